// SPDX-License-Identifier: MIT
// The real game as an environment: turns a console's frames into decisions and observations.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "ale_machine.hpp"
#include "ale_sight.hpp"
#include "emulator.hpp"
#include "room_states.hpp"

namespace montezuma {

struct ale_options {
  double sticky = 0.25;  ///< chance that a frame repeats the previous frame's action
  int step_cap = 4500;   ///< decisions per episode
  /// rooms in whose archived places an episode of training may begin; none: only where the room's
  /// episodes begin
  std::vector<int> practice_rooms = {};
  double entry_share = 0.25;  ///< of the episodes of training that begin there all the same
  /// an episode of training ends when the hero leaves these rooms; none: never for that
  std::vector<int> stay_rooms = {};
};

/// A decision lasts four frames. With the chance `sticky`, a frame repeats the action of the
/// previous frame. The reward is the sum of the game's rewards. The new picture is the brighter of
/// the third and the fourth frame in each pixel, small and gray. An observation is what `Sight`
/// makes of it: this picture after the three earlier pictures, or the console's memory. An episode
/// ends when all lives are lost or after 4500 decisions. Losing one life does not end it. An
/// episode starts without idling.
///
/// The cap counts decisions since reset(). The console's own counter is not used, because it is
/// part of a saved state: an episode from a late state would be too short.
template <ale_machine Machine, class Sight = sight_of_pixels>
class ale_game {
 public:
  using value_type = typename Sight::value_type;
  static constexpr int actions = joystick_actions, rooms = game_rooms;
  static constexpr int frames_a_step = 4, first_room = 1;

  static std::vector<std::int64_t> observation_shape() { return Sight::observation_shape(); }
  static std::int64_t newest_channels() { return Sight::newest_channels(); }

  /// `states` may be null. Then episodes can start only in room 1.
  ale_game(Machine machine, std::uint64_t seed, std::shared_ptr<const room_states> states = {},
           const ale_options& options = {})
      : machine_(std::move(machine)),
        states_(std::move(states)),
        practice_rooms_(options.practice_rooms),
        stay_rooms_(options.stay_rooms),
        sticky_(chance(options.sticky)),
        entry_share_(chance(options.entry_share)),
        step_cap_(options.step_cap) {
    now_.random = seed;
    reset(first_room);
  }

  /// Room 1 starts as the game itself does. Other rooms start from a random saved state and idle
  /// for 2 to 4 frames, because screen and memory are out of date before the first frame.
  void reset(int room) {
    if (room < 0 || room >= rooms)
      throw std::out_of_range("there is no room " + std::to_string(room) + ": 0 to 23");
    begin(room, room == first_room ? nullptr : &state_of(room));
  }

  /// An episode of training: with the chance `entry_share` as reset() starts one, otherwise in a
  /// random archived place of a random practice room. So the way is learned from its end (Salimans
  /// and Chen 2018, arXiv 1812.03381; Ecoffet et al. 2021, arXiv 2004.12919).
  void practice(int room) {
    begin_practice(room);
    now_.confined = stay_rooms_.empty() ? 0 : 1;
  }

  step_result step(int action) {
    if (now_.ended != 0) return {0, true};
    const auto before = now_.room;
    const int held = ram_view{now_.ram}.items();
    int reward = 0;
    for (int frame = 1; frame <= frames_a_step; ++frame) {
      if (!(sticky_ > 0 && (draw() >> 11) < sticky_))
        now_.last_action = static_cast<std::int8_t>(action);
      reward += machine_.act(now_.last_action);
      if (frame == frames_a_step - 1) sight_.look_before(machine_);
      if (!machine_.game_over()) continue;
      if (frame < frames_a_step - 1) sight_.look_before(machine_);
      break;
    }
    sight_.look(machine_);
    read_memory();
    now_.success.step(before, now_.room, reward > 0 || (ram_view{now_.ram}.items() & ~held) != 0);
    ++now_.steps;
    const bool over = machine_.game_over() || left();
    const bool truncated = !over && now_.steps >= step_cap_;
    now_.ended = over || truncated ? 1 : 0;
    return {static_cast<float>(reward), now_.ended != 0, truncated};
  }

  void observe(value_type* values) const { sight_.observe(now_.ram, values); }
  int room() const { return now_.room; }
  bool succeeded() const { return now_.success.succeeded != 0; }
  std::uint64_t place_key() const { return ram_view{now_.ram}.cell(); }
  const console_ram& ram() const { return now_.ram; }
  int steps() const { return now_.steps; }
  const Machine& machine() const { return machine_; }

  /// Also saves the observation and the known values, because a restored machine shows old values
  /// until it plays a frame.
  std::string save() const {
    std::string bytes = header();
    bytes.append(reinterpret_cast<const char*>(&now_), sizeof now_);
    bytes.append(reinterpret_cast<const char*>(sight_.data()), sight_.size());
    return bytes + machine_.save();
  }
  void restore(std::string_view saved) {
    const auto head = header();
    const auto fixed = head.size() + sizeof now_ + sight_.size();
    if (saved.size() <= fixed || saved.substr(0, head.size()) != head)
      throw std::runtime_error("these bytes are not a saved game of the cartridge " +
                               machine_.identity());
    situation next;
    std::memcpy(&next, saved.data() + head.size(), sizeof next);
    const auto in = [](int value, int least, int most) { return value >= least && value <= most; };
    if (!in(next.last_action, 0, actions - 1) || !in(next.room, 0, rooms - 1) ||
        !in(next.success.room, 0, rooms - 1) ||
        !in(next.success.came_from, room_success::nowhere, rooms - 1))
      throw std::runtime_error(
          "these bytes are not a saved game: they have a room or an action that does not exist");
    machine_.restore(saved.substr(fixed));
    now_ = next;
    std::memcpy(sight_.data(), saved.data() + head.size() + sizeof now_, sight_.size());
  }

 private:
  /// Without padding, so that equal games have equal bytes.
  struct situation {
    std::uint64_t random = 0;
    std::int32_t steps = 0;
    std::int8_t last_action = 0, room = first_room;
    std::uint8_t ended = 0;
    room_success success;
    std::uint8_t confined = 0;  ///< an episode of training, which ends outside of stay_rooms
    std::uint8_t unused[5] = {};
    console_ram ram{};
  };
  static_assert(std::has_unique_object_representations_v<situation>);

  static std::uint64_t chance(double p) {
    if (!(p >= 0 && p <= 1))
      throw std::invalid_argument("a chance must be in [0, 1], got " + std::to_string(p));
    return static_cast<std::uint64_t>(p * 0x1p53);
  }
  /// splitmix64
  std::uint64_t draw() {
    std::uint64_t z = now_.random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::uint32_t below(std::uint32_t n) {
    return static_cast<std::uint32_t>(((draw() >> 32) * n) >> 32);
  }

  void begin_practice(int room) {
    if (practice_rooms_.empty() || (draw() >> 11) < entry_share_) return reset(room);
    const auto& chosen = practice_rooms_[below(static_cast<std::uint32_t>(practice_rooms_.size()))];
    begin(chosen, &place_of(chosen));
  }

  bool left() const {
    return now_.confined != 0 &&
           std::find(stay_rooms_.begin(), stay_rooms_.end(), now_.room) == stay_rooms_.end();
  }

  /// `start`: the states to start from; null: the game's own start.
  void begin(int room, const std::vector<room_state>* start) {
    const auto dice = now_.random;
    now_ = {};
    now_.random = dice;
    auto from = room_success::nowhere;
    if (start == nullptr) {
      machine_.reset_game();
    } else {
      const auto& chosen = (*start)[below(static_cast<std::uint32_t>(start->size()))];
      machine_.restore(chosen.bytes);
      from = static_cast<std::int8_t>(chosen.came_from);
      for (auto frames = 2 + below(3); frames > 0; --frames) machine_.act(no_action);
    }
    sight_.begin(machine_);
    read_memory();
    if (start != nullptr) now_.room = static_cast<std::int8_t>(room);
    now_.success.begin(now_.room, from);
  }

  /// Keeps the old room if the byte is not a room number, as in another game.
  void read_memory() {
    now_.ram = machine_.ram();
    if (const int room = ram_view{now_.ram}.room(); room < rooms)
      now_.room = static_cast<std::int8_t>(room);
  }

  const std::vector<room_state>& state_of(int room) const {
    if (const auto* found = find(&room_states::rooms, room)) return *found;
    throw std::runtime_error(
        "there is no saved state of room " + std::to_string(room) +
        " to start from (rooms with states: " + (states_ == nullptr ? "none" : states_->text()) +
        "). Make states with `montezuma make-states --rom FILE --out FILE` and pass them with "
        "--states "
        "FILE");
  }
  const std::vector<room_state>& place_of(int room) const {
    if (const auto* found = find(&room_states::places, room)) return *found;
    throw std::runtime_error("there is no archived place of room " + std::to_string(room) +
                             " to practice in. Make states with `montezuma make-states --rooms " +
                             std::to_string(room) + "` and pass them with --states FILE");
  }
  const std::vector<room_state>* find(std::map<int, std::vector<room_state>> room_states::* kind,
                                      int room) const {
    if (states_ == nullptr) return nullptr;
    if (states_->game != machine_.identity())
      throw std::runtime_error("the saved states are from the cartridge " + states_->game +
                               ", this cartridge is " + machine_.identity());
    const auto found = ((*states_).*kind).find(room);
    return found == ((*states_).*kind).end() || found->second.empty() ? nullptr : &found->second;
  }

  std::string header() const { return Sight::kind + (' ' + machine_.identity()) + '\n'; }

  Machine machine_;
  std::shared_ptr<const room_states> states_;
  std::vector<int> practice_rooms_, stay_rooms_;
  std::uint64_t sticky_, entry_share_;
  int step_cap_;
  situation now_;
  Sight sight_;
};

}  // namespace montezuma
