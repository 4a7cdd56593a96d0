// SPDX-License-Identifier: MIT
// A small platform world modeled on Montezuma's Revenge: eight rooms with the passages of the real
// rooms, ladders, deadly falls, skulls, keys, doors, and rare rewards.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "emulator.hpp"
#include "level.hpp"
#include "pyramid_state.hpp"

namespace montezuma {

/// The rules. A hero on a solid cell or on a ladder can walk left and right, climb ladders, and
/// jump. A jump takes the hero one cell up, then one step in the air in which it can move sideways,
/// then down. A hero without support falls one cell per step and may move sideways. Landing after
/// more than three cells kills. Fire kills, and so does the skull, which walks back and forth in
/// the hero's room. Walking into an item takes the item. Walking into a door with its key opens all
/// doors of its color and spends the key. Keys, doors and the coin pay 1. The treasure pays 3 and
/// ends the episode.
///
/// A pyramid is a value: a copy continues the same game independently. Equal seeds and actions give
/// equal games.
class pyramid {
 public:
  using value_type = float;
  static constexpr int actions = 5, rooms = room_count;
  static constexpr int longest_fall = 3;
  static constexpr float item_reward = 1, treasure_reward = 3;

  static std::vector<std::int64_t> observation_shape() { return {feature_layout::count}; }
  static std::int64_t newest_channels() { return feature_layout::count; }

  using state = pyramid_state;

  explicit pyramid(std::uint64_t seed = 1, const pyramid_options& options = {})
      : level_(&level_named(options.map)),
        sticky_(chance(options.sticky)),
        step_cap_(options.step_cap > 0 ? options.step_cap : level_->map().step_cap) {
    state_.random = seed;
    reset(1);
  }

  void reset(int room) {
    if (room < 0 || room >= rooms)
      throw std::out_of_range("pyramid: there is no room " + std::to_string(room) + ": 0 to 7");
    const auto& start = level_->room(room).start;
    state fresh;
    fresh.random = state_.random;
    state_ = fresh;
    state_.room = static_cast<std::int8_t>(room);
    state_.x = static_cast<std::int8_t>(start.x);
    state_.y = static_cast<std::int8_t>(start.y);
    state_.success.begin(room, start.from);
    for (const auto& [done, key] : {std::pair{start.has_red_opened, item::red_key},
                                    std::pair{start.has_blue_opened, item::blue_key}})
      if (done) {
        state_.taken = with(state_.taken, static_cast<int>(key));
        state_.opened = with(state_.opened, static_cast<int>(key));
      }
    for (std::size_t r = 0; r < room_count; ++r) {
      const auto& skull = level_->room(static_cast<int>(r)).skull;
      if (skull.row < 0) continue;
      state_.skull_x[r] = static_cast<std::int8_t>(
          skull.first +
          static_cast<int>(below(static_cast<std::uint32_t>(skull.last - skull.first + 1))));
      state_.skull_way[r] = below(2) == 0 ? -1 : 1;
    }
  }

  step_result step(int action) {
    if (state_.ended) return {0, true};
    if (sticky_ > 0 && (draw() >> 11) < sticky_) action = state_.last_action;
    state_.last_action = static_cast<std::int8_t>(action);
    ++state_.steps;
    const int before = state_.room;
    const auto held_before = state_.held;
    const float reward = enter(destination(static_cast<move>(action))) + pick_up();
    if (standing()) {
      if (state_.fallen > longest_fall) die();
      state_.fallen = 0;
    }
    if (level_->at(state_.room, state_.x, state_.y) == cell::fire) die();
    move_skull();
    state_.success.step(before, state_.room, reward > 0 || (state_.held & ~held_before) != 0);
    const bool truncated = !state_.ended && state_.steps >= step_cap_;
    if (truncated) state_.ended = 1;
    return {reward, state_.ended != 0, truncated};
  }

  void observe(float* values) const {
    using layout = feature_layout;
    std::memset(values, 0, sizeof(float) * layout::count);
    values[layout::column + state_.x] = 1;
    values[layout::row + state_.y] = 1;
    values[layout::room + state_.room] = 1;
    if (state_.held & 1) values[layout::key] = 1;
    if (state_.held & 2) values[layout::key + 1] = 1;
    const auto& around = level_->around(state_.room, state_.x, state_.y);
    for (int i = 0; i < around.count; ++i) values[around.features[static_cast<std::size_t>(i)]] = 1;
    for (const auto& thing : level_->in_room(state_.room)) {
      if (gone(thing)) continue;
      if (const int dx = thing.x - state_.x, dy = thing.y - state_.y; near(dx, dy))
        values[layout::cell_at(dx, dy, thing.door ? layout::door : layout::thing)] = 1;
    }
    if (const auto* skull = skull_here()) {
      const auto r = static_cast<std::size_t>(state_.room);
      values[layout::skull + (state_.skull_way[r] > 0 ? 1 : 0)] = 1;
      if (const int dx = state_.skull_x[r] - state_.x, dy = skull->row - state_.y; near(dx, dy))
        values[layout::cell_at(dx, dy, layout::deadly)] = 1;
    }
  }

  int room() const { return state_.room; }
  bool succeeded() const { return state_.success.succeeded != 0; }
  bool dead() const { return state_.dead != 0; }
  std::uint64_t place_key() const {
    return level::index(state_.room, state_.x, state_.y) * 16u +
           static_cast<unsigned>(state_.held | (state_.opened << 2));
  }

  std::string save() const {
    std::string bytes(level_->map().name);
    bytes += '\0';
    return bytes.append(reinterpret_cast<const char*>(&state_), sizeof state_);
  }
  void restore(std::string_view saved) {
    const auto name = level_->map().name;
    if (saved.size() != name.size() + 1 + sizeof state_ || saved.substr(0, name.size()) != name ||
        saved[name.size()] != '\0')
      throw std::runtime_error("pyramid: these bytes are not a saved game of the map '" +
                               std::string(name) + "'");
    state next;
    std::memcpy(&next, saved.data() + name.size() + 1, sizeof next);
    if (!possible(next))
      throw std::runtime_error(
          "pyramid: these bytes are not a saved game: they have an object at a place that the "
          "map '" +
          std::string(name) + "' does not allow");
    state_ = next;
  }

  const state& now() const { return state_; }
  /// For searches and tests: the same world in another state. The caller must give positions inside
  /// the map.
  void set(const state& to) { state_ = to; }
  const level& where() const { return *level_; }
  bool holds(item key) const { return state_.held >> static_cast<int>(key) & 1; }
  bool took(item what) const { return state_.taken >> static_cast<int>(what) & 1; }
  bool opened(item key) const { return state_.opened >> static_cast<int>(key) & 1; }
  bool gone(const level::thing& thing) const {
    return ((thing.door ? state_.opened : state_.taken) >> thing.which & 1) != 0;
  }

  /// Games are equal if they continue in the same way.
  friend bool operator==(const pyramid& a, const pyramid& b) {
    return a.level_ == b.level_ && a.sticky_ == b.sticky_ && a.step_cap_ == b.step_cap_ &&
           a.state_ == b.state_;
  }

 private:
  struct place {
    int room, x, y;
  };

  /// Whether every position is in this map and every action is an action of this game.
  bool possible(const state& s) const {
    const auto in = [](int value, int least, int most) { return value >= least && value <= most; };
    bool right = in(s.room, 0, rooms - 1) && in(s.x, 0, room_width - 1) &&
                 in(s.y, 0, room_height - 1) && in(s.last_action, 0, actions - 1) &&
                 in(s.success.room, 0, rooms - 1) &&
                 in(s.success.came_from, room_success::nowhere, rooms - 1) && s.steps >= 0 &&
                 s.fallen >= 0 && s.held < 4 && s.opened < 4;
    for (std::size_t r = 0; r < room_count; ++r)
      if (const auto& skull = level_->room(static_cast<int>(r)).skull; skull.row >= 0)
        right = right && in(s.skull_x[r], skull.first, skull.last) &&
                (s.skull_way[r] == 1 || s.skull_way[r] == -1);
    return right;
  }

  static std::uint64_t chance(double p) {
    if (!(p >= 0 && p <= 1))
      throw std::invalid_argument("pyramid: the chance of a sticky action must be in [0, 1], got " +
                                  std::to_string(p));
    return static_cast<std::uint64_t>(p * 0x1p53);
  }
  static std::uint8_t with(std::uint8_t bits, int bit) {
    return static_cast<std::uint8_t>(bits | (1u << bit));
  }
  static bool near(int dx, int dy) {
    return std::abs(dx) <= feature_layout::reach && std::abs(dy) <= feature_layout::reach;
  }

  /// splitmix64
  std::uint64_t draw() {
    std::uint64_t z = state_.random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::uint32_t below(std::uint32_t n) {
    return static_cast<std::uint32_t>(((draw() >> 32) * n) >> 32);
  }

  const patrol* skull_here() const {
    const auto& skull = level_->room(state_.room).skull;
    return skull.row < 0 ? nullptr : &skull;
  }
  bool closed(cell what) const {
    return what == cell::solid || (what == cell::red_door && !(state_.opened & 1)) ||
           (what == cell::blue_door && !(state_.opened & 2));
  }
  bool ladder(int x, int y) const {
    return y >= 0 && y < room_height && level_->at(state_.room, x, y) == cell::ladder;
  }
  /// Below the lowest row is a passage down, or the ground.
  bool ground(int x, int y) const {
    return y >= room_height ? adjacency[static_cast<std::size_t>(state_.room)].down < 0
                            : closed(level_->at(state_.room, x, y));
  }
  bool standing() const {
    return ladder(state_.x, state_.y) || ladder(state_.x, state_.y + 1) ||
           ground(state_.x, state_.y + 1);
  }

  /// The position after an action, if nothing blocks the way.
  place destination(move action) {
    const int sideways = action == move::left ? -1 : action == move::right ? 1 : 0;
    place to{state_.room, state_.x, state_.y};
    const bool at_top = std::exchange(state_.jumping, std::uint8_t{0}) != 0;
    if (standing()) {
      to.x += sideways;
      if (action == move::up) {
        --to.y;
        if (!ladder(state_.x, state_.y)) {
          if (to.y < 0 || ground(to.x, to.y)) return {state_.room, state_.x, state_.y};
          state_.jumping = 1;
        }
      }
      if (action == move::down && (ladder(state_.x, state_.y) || ladder(state_.x, state_.y + 1) ||
                                   state_.y + 1 == room_height))
        ++to.y;
    } else if (at_top) {
      to.x += sideways;
    } else {
      ++to.y;
      ++state_.fallen;
      const int x = to.x + sideways;
      if (sideways != 0 && x >= 0 && x < room_width && to.y < room_height &&
          !closed(level_->at(state_.room, x, to.y)))
        to.x = x;
    }
    return through_passage(to);
  }

  place through_passage(place to) const {
    const auto& next = adjacency[static_cast<std::size_t>(state_.room)];
    const place stay{state_.room, state_.x, state_.y};
    if (to.x < 0) return next.left < 0 ? stay : place{next.left, room_width - 1, to.y};
    if (to.x >= room_width) return next.right < 0 ? stay : place{next.right, 0, to.y};
    if (to.y < 0) return next.up < 0 ? stay : place{next.up, to.x, room_height - 1};
    if (to.y >= room_height) return next.down < 0 ? stay : place{next.down, to.x, 0};
    return to;
  }

  /// Moves to a position, through a door if the hero has its key. Returns the reward.
  float enter(const place& to) {
    const auto what = level_->at(to.room, to.x, to.y);
    float reward = 0;
    if (closed(what)) {
      if (what == cell::solid) return 0;
      const int key = what == cell::red_door ? 0 : 1;
      if (!(state_.held >> key & 1)) return 0;
      state_.held = static_cast<std::uint8_t>(state_.held & ~(1u << key));
      state_.opened = with(state_.opened, key);
      reward = item_reward;
    }
    state_.room = static_cast<std::int8_t>(to.room);
    state_.x = static_cast<std::int8_t>(to.x);
    state_.y = static_cast<std::int8_t>(to.y);
    return reward;
  }

  float pick_up() {
    for (const auto& thing : level_->in_room(state_.room)) {
      if (thing.door || thing.x != state_.x || thing.y != state_.y || gone(thing)) continue;
      state_.taken = with(state_.taken, thing.which);
      const auto what = static_cast<item>(thing.which);
      if (what == item::red_key || what == item::blue_key)
        state_.held = with(state_.held, thing.which);
      if (what == item::treasure) state_.ended = 1;
      return what == item::treasure ? treasure_reward : item_reward;
    }
    return 0;
  }

  /// The hero dies if it walks into the skull or the skull walks into it.
  void move_skull() {
    const auto* skull = skull_here();
    if (skull == nullptr) return;
    const auto r = static_cast<std::size_t>(state_.room);
    auto &x = state_.skull_x[r], &way = state_.skull_way[r];
    const auto touches = [&] { return skull->row == state_.y && x == state_.x; };
    if (touches()) return die();
    const int next = x + way;
    if (next < skull->first || next > skull->last)
      way = static_cast<std::int8_t>(-way);
    else
      x = static_cast<std::int8_t>(next);
    if (touches()) die();
  }

  void die() {
    state_.dead = 1;
    state_.ended = 1;
  }

  const level* level_;
  std::uint64_t sticky_;
  int step_cap_;
  state state_;
};
static_assert(emulator<pyramid> && std::copyable<pyramid>);

}  // namespace montezuma
