// SPDX-License-Identifier: MIT
// The file format of demonstrations. demonstrations.hpp reads and writes such files.
//
// All numbers are little-endian. `varint` has seven bits per byte, the low bits first:
//
//   header   "NHDEMO1\n", u32 size of the rest of the header, u64 seed, u32 turn cap, f64 noise,
//            u32 number of actions and one byte for each, varint length and text of `player`,
//            u32 CRC-32 of all earlier bytes
//   blocks   "BLCK", u32 size of the payload, u32 steps, u32 CRC-32 of size, steps and payload,
//            the payload
//   end      "END.", u64 steps, u64 games, u32 CRC-32 of both; a file without it is incomplete
//
// A payload is a sequence of records. Each record starts with a byte of flags (see
// `demonstration_flags`). A screen is written as its differences from the previous screen in the
// block, the first screen as its differences from a blank screen. So every block can be read alone.
// The status, the message and the changed rows are written only if they do not follow from the
// screen.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "actions.hpp"
#include "bytes.hpp"
#include "observation.hpp"
#include "status_line.hpp"

namespace nethack {

/// The settings of a recording.
struct demonstration_header {
  std::uint64_t seed = 0;
  std::uint32_t turn_cap = 2000;
  double noise = 0;          ///< share of moves that were replaced at random
  std::vector<key> actions;  ///< the small action set of the recording program
  std::string player;        ///< the player and its settings
};

/// The greatest number for an ending.
inline constexpr std::uint8_t last_ending = 5;

/// The result of a game.
struct game_outcome {
  double score = 0;
  int turns = 0;
  int depth = 0;            ///< the deepest level
  std::uint8_t ending = 0;  ///< as in `environment`, up to `last_ending`
  bool operator==(const game_outcome&) const = default;
};

/// One step: the screen, the key that the player wanted, and the key that was sent.
struct demonstration {
  observation seen;
  key wanted = 0, sent = 0;
  /// of the game; a recording that was stopped early has no last step
  bool first = false, last = false;
  game_outcome outcome;  ///< meaningful if `last`
};

namespace detail {

namespace demonstration_flags {
enum : std::uint8_t {
  first = 1,
  question = 2,
  replaced = 4,  // the key that was sent differs from the wanted key
  screen = 8,
  message = 16,
  stats = 32,  // written out, because they do not follow from known values
  rows = 64,
  cursor = 128
};
// with no other bit and no key: the game has ended
inline constexpr std::uint8_t outcome = question | cursor | first;
}  // namespace demonstration_flags

/// The numbers of a status in a fixed order, for both reading and writing.
template <class Status, class Visit>
void for_each_number(Status& s, Visit visit) {
  for (auto* number : {&s.strength,     &s.strength_percent,
                       &s.dexterity,    &s.constitution,
                       &s.intelligence, &s.wisdom,
                       &s.charisma,     &s.hp,
                       &s.hp_max,       &s.energy,
                       &s.energy_max,   &s.armor_class,
                       &s.depth,        &s.gold,
                       &s.level,        &s.experience,
                       &s.turn,         &s.hunger,
                       &s.burden,       &s.condition,
                       &s.alignment,    &s.score,
                       &s.hit_dice})
    visit(*number);
}

/// The values that follow from a screen, computed equally by writer and reader.
inline std::string message_on_screen(const observation& seen) {
  std::string_view line = seen.line(0);
  while (!line.empty() && line.back() == ' ') line.remove_suffix(1);
  return std::string(line);
}

inline status status_on_screen(const observation& seen, status before) {
  parse_status(seen.line(rows - 2), seen.line(rows - 1), before);
  return before;
}

inline constexpr std::uint32_t all_rows = (1u << rows) - 1;

inline observation blank_observation() {
  observation blank;
  blank.chars.fill(' ');
  blank.changed_rows = 0;
  return blank;
}

/// Writes the cells that differ as runs: the number of cells to skip, the number of cells that
/// follow, their characters, their colors as (color, count). Equal stretches of up to two cells are
/// cheaper inside a run than between two runs. Returns the rows that differ.
inline std::uint32_t write_screen(byte_writer& out, const observation& before,
                                  const observation& now) {
  constexpr std::size_t shortest_gap = 3;
  std::uint32_t changed = 0;
  std::size_t written = 0;  // the reader knows the cells up to here
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t begin = row * columns, end = begin + columns;
    if (std::memcmp(&before.chars[begin], &now.chars[begin], columns) == 0 &&
        std::memcmp(&before.colors[begin], &now.colors[begin], columns) == 0)
      continue;
    changed |= 1u << row;
    const auto differs = [&](std::size_t i) {
      return before.chars[i] != now.chars[i] || before.colors[i] != now.colors[i];
    };
    for (std::size_t i = begin; i < end;) {
      if (!differs(i)) {
        ++i;
        continue;
      }
      std::size_t last = i;
      for (std::size_t next = i + 1; next < end && next - last <= shortest_gap; ++next)
        if (differs(next)) last = next;
      out.put_varint(i - written);
      out.put_varint(last - i + 1);
      for (std::size_t cell = i; cell <= last; ++cell) out.put(now.chars[cell]);
      for (std::size_t cell = i; cell <= last;) {
        std::size_t same = cell;
        while (same <= last && now.colors[same] == now.colors[cell]) ++same;
        out.put(now.colors[cell]);
        out.put_varint(same - cell);
        cell = same;
      }
      i = written = last + 1;
    }
  }
  out.put_varint(static_cast<std::size_t>(rows * columns) - written);
  out.put_varint(0);  // a run of no cells ends the screen
  return changed;
}

inline std::uint32_t read_screen(byte_reader& in, observation& seen) {
  constexpr std::size_t cells = rows * columns;
  std::uint32_t changed = 0;
  std::size_t at = 0;
  for (;;) {
    const auto skip = in.get_varint(), length = in.get_varint();
    if (skip > cells - at || length > cells - at - skip)
      throw std::out_of_range("writes past the end of the screen");
    if (length == 0) return changed;
    at += static_cast<std::size_t>(skip);
    const auto characters = in.get_bytes(length);
    std::memcpy(&seen.chars[at], characters.data(), characters.size());
    const std::size_t end = at + characters.size();
    for (std::size_t cell = at; cell < end;) {
      const std::uint8_t color = in.get();
      const auto count = in.get_varint();
      if (count == 0 || count > end - cell)
        throw std::out_of_range("has colors that do not match its characters");
      std::memset(&seen.colors[cell], color, static_cast<std::size_t>(count));
      cell += static_cast<std::size_t>(count);
    }
    for (std::size_t row = at / columns; row <= (end - 1) / columns; ++row) changed |= 1u << row;
    at = end;
  }
}

/// Reads the steps of a block, one after the other. Throws std::out_of_range for bytes that no
/// writer writes: every number that is used as an index or a count is checked.
class step_reader {
 public:
  /// `payload` must not move until the block is read.
  void begin(std::string_view payload) {
    in_ = byte_reader(payload);
    now_.seen = blank_observation();
  }
  bool empty() const { return in_.empty(); }

  /// Returns the same object each time, with new contents.
  const demonstration& next() {
    namespace flags = demonstration_flags;
    observation& seen = now_.seen;
    const std::uint8_t set = in_.get();
    now_.first = set & flags::first;
    now_.wanted = in_.get();
    now_.sent = set & flags::replaced ? in_.get() : now_.wanted;
    if (now_.wanted == 0 || now_.sent == 0) throw std::out_of_range("has a step without a key");
    const std::uint32_t changed = set & flags::screen ? read_screen(in_, seen) : 0;
    if (set & flags::cursor) {
      seen.cursor_row = in_.get_int(0, rows - 1);
      seen.cursor_column = in_.get_int(0, columns - 1);
    }
    const std::int64_t down = in_.get_int(), right = in_.get_int();
    seen.hero_row = byte_reader::in_range(seen.hero_row + down, 0, rows - 1);
    seen.hero_column = byte_reader::in_range(seen.hero_column + right, 0, columns - 1);
    if (!(set & flags::cursor)) {
      seen.cursor_row = seen.hero_row;
      seen.cursor_column = seen.hero_column;
    }
    if (set & flags::message)
      seen.message = in_.get_text();
    else
      seen.message = message_on_screen(seen);
    if (set & flags::stats)
      for_each_number(seen.stats, [&](int& number) { number = in_.get_int(); });
    else
      seen.stats = status_on_screen(seen, seen.stats);
    seen.changed_rows = now_.first ? all_rows : changed;
    if (set & flags::rows) {
      const std::uint64_t said = in_.get_varint();
      if (said > all_rows) throw std::out_of_range("has changed rows that a screen does not have");
      seen.changed_rows = static_cast<std::uint32_t>(said);
    }
    seen.waiting = set & flags::question ? prompt::question : prompt::command;

    now_.last = false;
    now_.outcome = {};
    if (in_.left() >= 2 && in_.peek() == flags::outcome && in_.peek_second() == 0) {
      in_.get();
      in_.get();
      now_.last = true;
      now_.outcome.score = in_.get_f64();
      now_.outcome.turns = in_.get_int();
      now_.outcome.depth = in_.get_int();
      now_.outcome.ending = in_.get();
      if (!std::isfinite(now_.outcome.score) || now_.outcome.ending > last_ending)
        throw std::out_of_range("has an outcome that a game cannot have");
    }
    return now_;
  }

 private:
  byte_reader in_;
  demonstration now_;
};

}  // namespace detail

}  // namespace nethack
