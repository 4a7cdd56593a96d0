// SPDX-License-Identifier: MIT
// Finds starting states for the rooms of the real game by random play from archived states, as in
// the first phase of Go-Explore (Ecoffet et al. 2021).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ale_machine.hpp"
#include "room_states.hpp"

namespace montezuma {

struct explore_options {
  std::uint64_t seed = 1;
  int per_room = 20;         ///< states kept per room
  int decisions = 100;       ///< per walk, four frames each
  double same_again = 0.95;  ///< chance that a decision repeats the previous one
  int frames_a_decision = 4;
};

/// The archive has one state for each cell (room, square of 16, items held): the state in which the
/// cell was first seen. A walk starts from an archived state, with rarely used states first. It
/// acts at random and ends when a life is lost. Whenever the hero enters a room, the state is kept
/// for this room if the hero survives in it.
template <ale_machine Machine>
class explorer {
 public:
  explorer(Machine machine, explore_options options)
      : machine_(std::move(machine)), options_(options), dice_(options.seed) {
    found_.game = machine_.identity();
    machine_.reset_game();
    archive(machine_.ram(), -1);
  }

  /// One walk.
  void walk() {
    auto& chosen = cells_[choose()];
    ++chosen.begun;
    const auto came_from_at_start = chosen.came_from;
    machine_.restore(chosen.state);
    for (int i = 0; i < 2; ++i) machine_.act(no_action);  // until then the memory is out of date
    frames_ += 2;
    auto ram = machine_.ram();
    int came_from = came_from_at_start;
    const int lives = machine_.lives();
    std::uniform_int_distribution<int> any(0, joystick_actions - 1);
    std::bernoulli_distribution again(options_.same_again);
    int action = any(dice_);
    for (int i = 0; i < options_.decisions; ++i) {
      if (i > 0 && !again(dice_)) action = any(dice_);
      for (int frame = 0; frame < options_.frames_a_decision; ++frame) machine_.act(action);
      frames_ += options_.frames_a_decision;
      if (machine_.game_over() || machine_.lives() < lives) return;
      const int before = ram_view{ram}.room();
      ram = machine_.ram();
      const int room = ram_view{ram}.room();
      if (room != before && room < game_rooms) {
        came_from = before;
        keep(room, before);
      }
      archive(ram, came_from);
    }
  }

  /// Whether each of these rooms has `per_room` states.
  bool has(const std::vector<int>& rooms) const {
    return std::all_of(rooms.begin(), rooms.end(), [&](int room) {
      return count(room) >= static_cast<std::size_t>(options_.per_room);
    });
  }
  std::size_t count(int room) const {
    const auto found = found_.rooms.find(room);
    return found == found_.rooms.end() ? 0 : found->second.size();
  }
  std::size_t cells() const { return cells_.size(); }
  const std::set<int>& rooms_seen() const { return rooms_seen_; }
  std::int64_t frames() const { return frames_; }
  const room_states& found() const { return found_; }

  /// Adds the archived states in which the hero survives, as places to practice from. `between` is
  /// called before each test, which takes 100 frames, and ends them by returning false.
  template <class Between>
  void keep_places(Between between) {
    for (const auto& each : cells_) {
      if (!between()) return;
      machine_.restore(each.state);
      for (int i = 0; i < 2; ++i) machine_.act(no_action);
      const auto memory = machine_.ram();
      const int room = ram_view{memory}.room();
      frames_ += 102;
      if (room < game_rooms && survives(machine_, each.state))
        found_.places[room].push_back({each.state, each.came_from});
    }
  }

 private:
  struct cell {
    std::string state;
    int came_from = -1;
    std::int64_t begun = 0;  ///< walks from here
    std::int64_t seen = 0;   ///< decisions that led here
  };

  void archive(const console_ram& ram, int came_from) {
    const ram_view view{ram};
    if (view.room() >= game_rooms) return;
    rooms_seen_.insert(view.room());
    const auto key = view.cell();
    const auto [place, fresh] = index_.try_emplace(key, cells_.size());
    if (fresh) cells_.push_back({machine_.save(), came_from, 0, 0});
    ++cells_[place->second].seen;
  }

  /// Draws a cell with weight 1 / √(1 + walks begun) times the same function of `seen`. New and
  /// rare cells come first, and every cell can be drawn.
  std::size_t choose() {
    std::vector<double> weights(cells_.size());
    for (std::size_t i = 0; i < cells_.size(); ++i)
      weights[i] = 1 / std::sqrt(1 + static_cast<double>(cells_[i].begun)) +
                   1 / std::sqrt(static_cast<double>(cells_[i].seen));
    return std::discrete_distribution<std::size_t>(weights.begin(), weights.end())(dice_);
  }

  void keep(int room, int came_from) {
    if (count(room) >= static_cast<std::size_t>(options_.per_room)) return;
    auto state = machine_.save();
    if (survives(machine_, state)) found_.rooms[room].push_back({state, came_from});
    frames_ += 100;
    machine_.restore(state);
  }

  Machine machine_;
  explore_options options_;
  std::mt19937_64 dice_;
  std::vector<cell> cells_;
  std::unordered_map<std::uint64_t, std::size_t> index_;
  std::set<int> rooms_seen_;
  room_states found_;
  std::int64_t frames_ = 0;
};

}  // namespace montezuma
