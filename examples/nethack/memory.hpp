// SPDX-License-Identifier: MIT
// What a player without recurrence keeps in mind of one game.
#pragma once

#include "actions.hpp"
#include "cells.hpp"
#include "observation.hpp"

#include <array>
#include <cstdint>
#include <istream>
#include <ostream>
#include <stdexcept>
#include <type_traits>

namespace nethack {

/// Where the hero has been on this level, what lies under them, the keys before, when they last prayed. One object a game:
///
///     memory mind;
///     mind.observe(game.view());            // the first screen
///     mind.observe(game.view(), action);    // what `action` led to, after every step
///
/// A new game starts with reset(). save and load keep it beside a saved game, which would else go on with an empty mind.
class memory {
 public:
  static constexpr int actions_kept = 8;
  static constexpr int no_action = -1;

  memory() { reset(); }

  void reset() {
    kept_ = {};
    kept_.actions.fill(no_action);
    map_.clear();
  }

  /// `action` indexes small_actions.
  void observe(const observation& seen, int action = no_action) {
    if (action != no_action) remember_action(action);
    const bool arrived = seen.stats.depth != kept_.depth;
    if (arrived) {
      kept_.depth = seen.stats.depth;
      kept_.turn_of_arrival = seen.stats.turn;
      kept_.visits = {};
      kept_.visited = {};
      kept_.under = {};
      kept_.same_place = 0;
    }
    const int left_row = kept_.hero_row, left_column = kept_.hero_column;
    kept_.hero_row = seen.hero_row < first_map_row ? first_map_row : seen.hero_row > last_map_row ? last_map_row : seen.hero_row;
    kept_.hero_column = seen.hero_column;
    map_.update(seen, [&](int row) {
      for (int column = 0; column < columns; ++column) remember_ground(row, column);
    });
    if (arrived)
      for (int row = first_map_row; row <= last_map_row; ++row)
        for (int column = 0; column < columns; ++column) remember_ground(row, column);
    remember_ground(left_row, left_column);

    kept_.question = seen.waiting == prompt::question;
    kept_.turn = seen.stats.turn;
    if (kept_.question) return;
    std::uint16_t& visits = kept_.visits[cell_index(hero_row(), hero_column())];
    if (visits < 0xffff) ++visits;
    kept_.visited[static_cast<std::size_t>(hero_row())] |= bit(hero_column());
    kept_.same_place = hero_row() == kept_.last_row && hero_column() == kept_.last_column ? kept_.same_place + 1 : 0;
    kept_.same_turn = seen.stats.turn == kept_.last_turn ? kept_.same_turn + 1 : 0;
    kept_.last_row = hero_row();
    kept_.last_column = hero_column();
    kept_.last_turn = seen.stats.turn;
  }

  const screen_map& map() const { return map_; }
  int hero_row() const { return kept_.hero_row; }
  int hero_column() const { return kept_.hero_column; }
  int visits(int row, int column) const { return kept_.visits[cell_index(row, column)]; }
  const std::array<row_bits, rows>& visited() const { return kept_.visited; }
  /// The token that the hero stands on, as it was seen before they stepped there; 0 where it never was.
  std::uint8_t under_hero() const { return kept_.under[cell_index(hero_row(), hero_column())]; }
  /// The last actions, newest first.
  const std::array<std::int8_t, actions_kept>& actions() const { return kept_.actions; }
  bool has_prayed() const { return kept_.turn_of_prayer >= 0; }
  int turns_since_prayer() const { return kept_.turn - kept_.turn_of_prayer; }
  int turns_on_level() const { return kept_.turn - kept_.turn_of_arrival; }
  int same_place() const { return kept_.same_place; }  ///< commands in a row that left the hero where they were
  int same_turn() const { return kept_.same_turn; }    ///< commands in a row that took no game time

  void save(std::ostream& out) const {
    out.write(tag, sizeof tag);
    out.write(reinterpret_cast<const char*>(&kept_), sizeof kept_);
  }
  /// The screen itself is not kept: the next observe() reads it anew.
  void load(std::istream& in) {
    char found[sizeof tag] = {};
    in.read(found, sizeof found);
    kept restored;
    in.read(reinterpret_cast<char*>(&restored), sizeof restored);
    if (!in || std::string_view(found, sizeof found) != std::string_view(tag, sizeof tag))
      throw std::runtime_error("the player's memory beside the saved game is damaged or of another version: make the saved games anew");
    kept_ = restored;
    map_.clear();
  }

 private:
  static constexpr char tag[8] = {'m', 'e', 'm', 'o', 'r', 'y', '0', '1'};
  static constexpr std::size_t cell_index(int row, int column) { return static_cast<std::size_t>(row * columns + column); }

  void remember_action(int action) {
    for (std::size_t i = actions_kept - 1; i > 0; --i) kept_.actions[i] = kept_.actions[i - 1];
    kept_.actions[0] = static_cast<std::int8_t>(action);
    if (!kept_.question && small_actions[static_cast<std::size_t>(action)].code == keys::pray) kept_.turn_of_prayer = kept_.turn;
  }

  /// A monster hides what it stands on, and so does the hero: there the older memory stays.
  void remember_ground(int row, int column) {
    if (map_.is(monster, row, column) || (row == hero_row() && column == hero_column())) return;
    kept_.under[cell_index(row, column)] = map_.token(row, column);
  }

  struct kept {
    std::array<std::int8_t, actions_kept> actions{};
    std::int32_t depth = -1, turn = 0, turn_of_arrival = 0, turn_of_prayer = -1, last_turn = -1;
    std::int32_t hero_row = first_map_row, hero_column = 0, last_row = -1, last_column = -1;
    std::int32_t same_place = 0, same_turn = 0;
    std::int32_t question = 0;
    std::array<row_bits, rows> visited{};
    std::array<std::uint16_t, rows * columns> visits{};
    std::array<std::uint8_t, rows * columns> under{};
  };
  static_assert(std::is_trivially_copyable_v<kept>);

  kept kept_;
  screen_map map_;
};

}  // namespace nethack
