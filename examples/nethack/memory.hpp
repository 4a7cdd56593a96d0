// SPDX-License-Identifier: MIT
// What a player without recurrence remembers of one game.
#pragma once

#include "actions.hpp"
#include "bytes.hpp"
#include "cells.hpp"
#include "observation.hpp"

#include <retain/files/new_file.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <istream>
#include <iterator>
#include <limits>
#include <map>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace nethack {

/// The cells that the hero has visited on this level, the cell under the hero, the last keys, the
/// time of the last prayer. One object per game:
///
///     memory mind;
///     mind.observe(game.view());            // the first screen
///     mind.observe(game.view(), action);    // the screen after `action`, after every step
///
/// Call reset() for a new game. save and load store it with a saved game; otherwise the game would
/// continue with an empty memory.
class memory {
 public:
  static constexpr int actions_kept = 8;
  static constexpr int no_action = -1;

  memory() { reset(); }
  memory(const memory& other)
      : kept_(other.kept_),
        levels_(other.levels_),
        level_(&levels_[kept_.depth]),
        map_(other.map_) {}
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

  /// `action` is an index of small_actions.
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
    kept_.hero_row = seen.hero_row < first_map_row  ? first_map_row
                     : seen.hero_row > last_map_row ? last_map_row
                                                    : seen.hero_row;
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
    kept_.same_place = hero_row() == kept_.last_row && hero_column() == kept_.last_column
                           ? kept_.same_place + 1
                           : 0;
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
  /// The token of the cell under the hero, as seen before the hero stepped there; 0 if it was never
  /// seen.
  std::uint8_t under_hero() const { return level_->under[cell_index(hero_row(), hero_column())]; }
  /// The last actions, newest first.
  const std::array<std::int8_t, actions_kept>& actions() const { return kept_.actions; }
  bool has_prayed() const { return kept_.turn_of_prayer >= 0; }
  int turns_since_prayer() const { return turns_since(kept_.turn_of_prayer); }
  int turns_on_level() const { return turns_since(kept_.turn_of_arrival); }
  /// commands in a row that did not move the hero
  int same_place() const { return kept_.same_place; }
  int same_turn() const { return kept_.same_turn; }  ///< commands in a row that took no game time

  void save(std::ostream& out) const {
    const std::string bytes = to_bytes();
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  /// The screen itself is not stored: the next observe() reads it again. Throws if the bytes are
  /// not those of a memory with each number in its range; then this memory does not change. `name`
  /// is its name in errors.
  void load(std::istream& in, const std::string& name = "the player's memory of the saved game") {
    try {
      from_bytes(std::string(std::istreambuf_iterator<char>(in), {}));
    } catch (const std::out_of_range& problem) {
      throw std::runtime_error(name + " is damaged or of another version: it " + problem.what() +
                               "; make the saved games again (nethack save-states)");
    }
  }

  /// The same for files.
  void write(const std::filesystem::path& file) const {
    retain::detail::new_file out(file.string());
    out.put(to_bytes());
    out.take_place();
  }
  void read(const std::filesystem::path& file) {
    std::error_code error;
    std::ifstream in;
    if (std::filesystem::is_regular_file(file, error)) in.open(file, std::ios::binary);
    if (!in.is_open())
      throw std::runtime_error(
          "no " + file.string() +
          " for the saved game: make the saved games again (nethack save-states)");
    load(in, file.string());
  }

 private:
  static constexpr std::string_view tag = "memory03", tag_without_checksum = "memory02";
  /// more than a screen shows and more than a dungeon has
  static constexpr int most_turns = 1'000'000'000, most_depth = 127;
  /// The turns in a recording may be any int.
  int turns_since(int turn) const {
    const std::int64_t passed = std::int64_t{kept_.turn} - turn;
    return static_cast<int>(std::clamp<std::int64_t>(passed, std::numeric_limits<int>::min(),
                                                     std::numeric_limits<int>::max()));
  }
  static constexpr std::size_t cell_index(int row, int column) {
    return static_cast<std::size_t>(row * columns + column);
  }

  void remember_action(int action) {
    for (std::size_t i = actions_kept - 1; i > 0; --i) kept_.actions[i] = kept_.actions[i - 1];
    kept_.actions[0] = static_cast<std::int8_t>(action);
    if (!kept_.question && small_actions[static_cast<std::size_t>(action)].code == keys::pray)
      kept_.turn_of_prayer = kept_.turn;
  }

  /// A monster or the hero hides the cell under it; the older memory of this cell stays.
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
  /// One dungeon level. It stays known when the hero leaves it and comes back.
  struct level_memory {
    std::array<row_bits, rows> visited{};
    std::array<std::uint16_t, rows * columns> visits{};
    std::array<std::uint8_t, rows * columns> under{};
  };

  /// The numbers of `kept` after the actions, with their ranges, in the order of the file.
  template <class Kept, class Visit>
  static void for_each_number(Kept& k, Visit visit) {
    visit(k.depth, -1, most_depth);
    for (auto* turn : {&k.turn, &k.turn_of_arrival, &k.turn_of_prayer, &k.last_turn})
      visit(*turn, -1, most_turns);
    visit(k.hero_row, first_map_row, last_map_row);
    visit(k.hero_column, 0, columns - 1);
    visit(k.last_row, -1, last_map_row);
    visit(k.last_column, -1, columns - 1);
    for (auto* count : {&k.same_place, &k.same_turn}) visit(*count, 0, most_turns);
    visit(k.question, 0, 1);
  }

  /// The tag, `kept`, the number of levels and each level with its depth, and a CRC-32 of all these
  /// bytes. Numbers are little-endian.
  std::string to_bytes() const {
    detail::byte_writer out;
    out.bytes = tag;
    for (const std::int8_t action : kept_.actions) out.put(static_cast<std::uint8_t>(action));
    for_each_number(kept_, [&](std::int32_t number, std::int32_t, std::int32_t) {
      out.put_u32(static_cast<std::uint32_t>(number));
    });
    out.put_u32(static_cast<std::uint32_t>(levels_.size()));
    for (const auto& [depth, level] : levels_) {
      out.put_u32(static_cast<std::uint32_t>(depth));
      for (const row_bits row : level.visited) {
        out.put_u64(static_cast<std::uint64_t>(row));
        out.put_u64(static_cast<std::uint64_t>(row >> 64));
      }
      for (const std::uint16_t visits : level.visits) out.put_u16(visits);
      for (const std::uint8_t token : level.under) out.put(token);
    }
    out.put_u32(detail::crc32(out.bytes));
    return std::move(out.bytes);
  }

  /// Throws std::out_of_range before any change. Files of the previous version have the same format
  /// without the checksum.
  void from_bytes(std::string_view bytes) {
    detail::byte_reader in(bytes);
    const auto found = in.get_bytes(tag.size());
    if (found != tag && found != tag_without_checksum)
      throw std::out_of_range("does not begin with the tag of such a file");
    if (found == tag) {
      if (bytes.size() < tag.size() + 4) throw std::out_of_range("ends early");
      const auto all = bytes.substr(0, bytes.size() - 4);
      if (detail::byte_reader(bytes.substr(all.size())).get_u32() != detail::crc32(all))
        throw std::out_of_range("has another checksum");
      in = detail::byte_reader(all.substr(tag.size()));
    }
    const auto number = [&](std::int64_t least, std::int64_t most) {
      return detail::byte_reader::in_range(static_cast<std::int32_t>(in.get_u32()), least, most);
    };
    kept restored;
    for (std::int8_t& action : restored.actions)
      action = static_cast<std::int8_t>(
          detail::byte_reader::in_range(static_cast<std::int8_t>(in.get()), no_action,
                                        static_cast<int>(small_actions.size()) - 1));
    for_each_number(restored, [&](std::int32_t& value, std::int32_t least, std::int32_t most) {
      value = number(least, most);
    });
    std::map<int, level_memory> levels;
    for (int left = number(1, most_depth + 2); left > 0; --left) {
      const int depth = number(-1, most_depth);
      if (!levels.empty() && depth <= levels.rbegin()->first)
        throw std::out_of_range("has a level twice or in the wrong order");
      read_level(in, levels[depth]);
    }
    if (!in.empty()) throw std::out_of_range("has more bytes after its end");
    if (!levels.contains(restored.depth)) throw std::out_of_range("does not have the hero's level");
    kept_ = restored;
    levels_ = std::move(levels);
    level_ = &levels_[kept_.depth];
    map_.clear();
  }
  static void read_level(detail::byte_reader& in, level_memory& level) {
    for (row_bits& row : level.visited) {
      const std::uint64_t low = in.get_u64();
      row = (row_bits{in.get_u64()} << 64) | low;
    }
    for (std::uint16_t& visits : level.visits) visits = in.get_u16();
    for (std::uint8_t& token : level.under)
      if ((token = in.get()) >= token_count)
        throw std::out_of_range("has a token that a cell cannot have");
    for (int row = 0; row < rows; ++row) {
      const row_bits visited = level.visited[static_cast<std::size_t>(row)];
      bool right = (visited >> columns) == 0 &&
                   ((row >= first_map_row && row <= last_map_row) || visited == 0);
      for (int column = 0; column < columns; ++column)
        right = right && has(visited, column) == (level.visits[cell_index(row, column)] > 0);
      if (!right) throw std::out_of_range("has visits of a place where the hero was not");
    }
  }

  kept kept_;
  std::map<int, level_memory> levels_;
  level_memory* level_ = nullptr;  // of kept_.depth; elements of a map do not move
  screen_map map_;
};

}  // namespace nethack
