// SPDX-License-Identifier: MIT
// What a player without recurrence keeps in mind of one game.
#pragma once

#include "actions.hpp"
#include "cells.hpp"
#include "observation.hpp"

#include <array>
#include <cstdint>
#include <istream>
#include <map>
#include <ostream>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>

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
  memory(const memory& other) : kept_(other.kept_), levels_(other.levels_), level_(&levels_[kept_.depth]), map_(other.map_) {}
  memory& operator=(const memory& other) {
    kept_ = other.kept_;
    levels_ = other.levels_;
    level_ = &levels_[kept_.depth];
    map_ = other.map_;
    return *this;
  }

  void reset() {
    kept_ = {};
    kept_.actions.fill(no_action);
    levels_.clear();
    level_ = &levels_[kept_.depth];
    map_.clear();
  }

  /// `action` indexes small_actions.
  void observe(const observation& seen, int action = no_action) {
    if (action != no_action) remember_action(action);
    const bool arrived = seen.stats.depth != kept_.depth;
    if (arrived) {
      kept_.depth = seen.stats.depth;
      kept_.turn_of_arrival = seen.stats.turn;
      kept_.same_place = 0;
      level_ = &levels_[kept_.depth];
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
    else
      remember_ground(left_row, left_column);

    kept_.question = seen.waiting == prompt::question;
    kept_.turn = seen.stats.turn;
    if (kept_.question) return;
    std::uint16_t& visits = level_->visits[cell_index(hero_row(), hero_column())];
    if (visits < 0xffff) ++visits;
    level_->visited[static_cast<std::size_t>(hero_row())] |= bit(hero_column());
    kept_.same_place = hero_row() == kept_.last_row && hero_column() == kept_.last_column ? kept_.same_place + 1 : 0;
    kept_.same_turn = seen.stats.turn == kept_.last_turn ? kept_.same_turn + 1 : 0;
    kept_.last_row = hero_row();
    kept_.last_column = hero_column();
    kept_.last_turn = seen.stats.turn;
  }

  const screen_map& map() const { return map_; }
  int hero_row() const { return kept_.hero_row; }
  int hero_column() const { return kept_.hero_column; }
  int visits(int row, int column) const { return level_->visits[cell_index(row, column)]; }
  const std::array<row_bits, rows>& visited() const { return level_->visited; }
  /// The token that the hero stands on, as it was seen before they stepped there; 0 where it never was.
  std::uint8_t under_hero() const { return level_->under[cell_index(hero_row(), hero_column())]; }
  /// The last actions, newest first.
  const std::array<std::int8_t, actions_kept>& actions() const { return kept_.actions; }
  bool has_prayed() const { return kept_.turn_of_prayer >= 0; }
  int turns_since_prayer() const { return kept_.turn - kept_.turn_of_prayer; }
  int turns_on_level() const { return kept_.turn - kept_.turn_of_arrival; }
  int same_place() const { return kept_.same_place; }  ///< commands in a row that left the hero where they were
  int same_turn() const { return kept_.same_turn; }    ///< commands in a row that took no game time

  void save(std::ostream& out) const {
    out.write(tag, sizeof tag);
    write(out, kept_);
    write(out, static_cast<std::int32_t>(levels_.size()));
    for (const auto& [depth, level] : levels_) {
      write(out, static_cast<std::int32_t>(depth));
      write(out, level);
    }
  }
  /// The screen itself is not kept: the next observe() reads it anew.
  void load(std::istream& in) {
    std::array<char, sizeof tag> found{};
    kept restored;
    std::int32_t count = 0;
    std::map<int, level_memory> levels;
    read(in, found);
    read(in, restored);
    read(in, count);
    for (std::int32_t i = 0; in && i < count; ++i) {
      std::int32_t depth = 0;
      read(in, depth);
      read(in, levels[depth]);
    }
    if (!in || std::string_view(found.data(), found.size()) != std::string_view(tag, sizeof tag))
      throw std::runtime_error("the player's memory beside the saved game is damaged or of another version: make the saved games anew");
    kept_ = restored;
    levels_ = std::move(levels);
    level_ = &levels_[kept_.depth];
    map_.clear();
  }

 private:
  static constexpr char tag[8] = {'m', 'e', 'm', 'o', 'r', 'y', '0', '2'};
  static constexpr std::size_t cell_index(int row, int column) { return static_cast<std::size_t>(row * columns + column); }

  void remember_action(int action) {
    for (std::size_t i = actions_kept - 1; i > 0; --i) kept_.actions[i] = kept_.actions[i - 1];
    kept_.actions[0] = static_cast<std::int8_t>(action);
    if (!kept_.question && small_actions[static_cast<std::size_t>(action)].code == keys::pray) kept_.turn_of_prayer = kept_.turn;
  }

  /// A monster hides what it stands on, and so does the hero: there the older memory stays.
  void remember_ground(int row, int column) {
    if (map_.is(monster, row, column) || (row == hero_row() && column == hero_column())) return;
    level_->under[cell_index(row, column)] = map_.token(row, column);
  }

  struct kept {
    std::array<std::int8_t, actions_kept> actions{};
    std::int32_t depth = -1, turn = 0, turn_of_arrival = 0, turn_of_prayer = -1, last_turn = -1;
    std::int32_t hero_row = first_map_row, hero_column = 0, last_row = -1, last_column = -1;
    std::int32_t same_place = 0, same_turn = 0;
    std::int32_t question = 0;
  };
  /// One dungeon level; it is still known when the hero comes back to it.
  struct level_memory {
    std::array<row_bits, rows> visited{};
    std::array<std::uint16_t, rows * columns> visits{};
    std::array<std::uint8_t, rows * columns> under{};
  };

  template <class T>
  static void write(std::ostream& out, const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    out.write(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <class T>
  static void read(std::istream& in, T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    in.read(reinterpret_cast<char*>(&value), sizeof value);
  }

  kept kept_;
  std::map<int, level_memory> levels_;
  level_memory* level_ = nullptr;  // the one of kept_.depth; a map's elements stay where they are
  screen_map map_;
};

}  // namespace nethack
