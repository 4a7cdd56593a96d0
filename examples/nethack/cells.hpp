// SPDX-License-Identifier: MIT
// The meaning of one cell of the map: a token for the network, and traits for searches of the map.
#pragma once

#include "observation.hpp"

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace nethack {

/// row 0 has messages, rows 22 and 23 the status
inline constexpr int first_map_row = 1, last_map_row = 21;

/// One bit per column. A map is searched one row at a time: a shift gives the neighbors.
__extension__ typedef unsigned __int128 row_bits;

constexpr row_bits bit(int column) { return row_bits{1} << column; }
constexpr bool has(row_bits bits, int column) { return (bits >> column) & 1; }
constexpr int lowest(row_bits bits) {
  const auto low = static_cast<std::uint64_t>(bits);
  return low != 0 ? std::countr_zero(low)
                  : 64 + std::countr_zero(static_cast<std::uint64_t>(bits >> 64));
}

/// The properties of cells. A bit plane of the map has one property for every cell.
enum trait : int {
  blank,
  floor_tile,
  corridor,
  door,
  stairs_down,
  stairs_up,
  monster,
  other,
  walkable,
  ground,
  gold,
  trait_count
};

/// A cell's token: its character minus 32, except where the color changes the meaning.
inline constexpr int token_count = 104;
namespace tokens {
inline constexpr std::uint8_t door_open_vertical = 95, door_open_horizontal = 96, door_closed = 97,
                              pet = 98, lichen = 99, floating_eye = 100, human_or_elf = 101,
                              iron_bars = 102, newt = 103;
}

struct cell {
  std::uint8_t token = 0;
  std::uint16_t traits = 0;
};

namespace detail {

constexpr bool is_letter(unsigned c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

constexpr std::uint8_t token_of(unsigned c, unsigned color) {
  const unsigned hue = color & 15;
  const bool brown = hue == 3, white = hue == 15;
  if (color & 16) return tokens::pet;  // the game shows pets inverse
  if (c < 32 || c > 126) return 0;
  if (c == '|' && brown) return tokens::door_open_vertical;
  if (c == '-' && brown) return tokens::door_open_horizontal;
  if (c == '+' && brown) return tokens::door_closed;
  // the kitten, little dog or pony of the start
  if (((c == 'd' || c == 'f') && white) || (c == 'u' && brown)) return tokens::pet;
  // colors of the two monsters that must not be touched
  if (c == 'F' && (hue == 10 || hue == 1)) return tokens::lichen;
  if (c == 'e' && hue == 4) return tokens::floating_eye;
  if (c == '@' && white) return tokens::human_or_elf;
  if (c == '\'' && brown) return tokens::iron_bars;
  if (c == ':' && hue == 7) return tokens::newt;
  return static_cast<std::uint8_t>(c - 32);
}

constexpr std::uint16_t traits_of(unsigned c, std::uint8_t token) {
  unsigned traits = 0;
  const auto set = [&](trait t, bool yes) { traits |= yes ? 1u << t : 0u; };
  const bool is_door = token >= tokens::door_open_vertical && token <= tokens::door_closed;
  const bool is_wall = !is_door && (c == '|' || c == '-' || c == '+');
  const bool is_monster = is_letter(c) || c == '@' || c == '&' || c == ';';
  set(blank, c == ' ');
  set(floor_tile, c == '.');
  set(corridor, c == '#');
  set(door, is_door);
  set(stairs_down, c == '>');
  set(stairs_up, c == '<');
  set(monster, is_monster);
  set(other, c != ' ' && c != '.' && c != '#' && c != '|' && c != '-' && c != '>' && c != '<' &&
                 !is_door && !is_monster);
  set(walkable, c != ' ' && c != '^' && c != '}' && c != '`' && !is_wall);
  set(ground, !is_wall && std::string_view(".#<>$?!/=\"([)*%_{@\\:'").find(static_cast<char>(c)) !=
                              std::string_view::npos);
  set(gold, c == '$');
  return static_cast<std::uint16_t>(traits);
}

inline const std::array<cell, 256 * 32> cell_table = [] {
  std::array<cell, 256 * 32> table;
  for (unsigned c = 0; c < 256; ++c)
    for (unsigned color = 0; color < 32; ++color) {
      const std::uint8_t token = token_of(c, color);
      table[c * 32 + color] = {token, traits_of(c, token)};
    }
  return table;
}();

}  // namespace detail

inline const cell& cell_of(std::uint8_t character, std::uint8_t color) {
  return detail::cell_table[static_cast<std::size_t>(character * 32 + (color & 31))];
}

/// The map part of the screen as tokens and as bit planes. An update reads only the rows that
/// changed.
class screen_map {
 public:
  static constexpr int margin = 8;  ///< readable empty cells around the map

  void clear() {
    known_ = false;
    for (auto& row : tokens_) row.fill(0);
    for (auto& plane : planes_) plane.fill(0);
  }

  /// Calls changed(row) for every row of the map that differs from the previous screen.
  template <class Changed>
  void update(const observation& seen, Changed changed) {
    for (int row = first_map_row; row <= last_map_row; ++row) {
      const std::size_t at = static_cast<std::size_t>(row * columns);
      if (known_ && std::memcmp(&chars_[at], &seen.chars[at], columns) == 0 &&
          std::memcmp(&colors_[at], &seen.colors[at], columns) == 0)
        continue;
      std::memcpy(&chars_[at], &seen.chars[at], columns);
      std::memcpy(&colors_[at], &seen.colors[at], columns);
      read_row(row);
      changed(row);
    }
    known_ = true;
  }

  /// The token of a cell. Rows and columns may be up to `margin` outside the map.
  std::uint8_t token(int row, int column) const { return *token_row(row, column); }
  /// The tokens from a cell to the right.
  const std::uint8_t* token_row(int row, int column) const {
    return &tokens_[static_cast<std::size_t>(row + margin)]
                   [static_cast<std::size_t>(column + margin)];
  }
  bool is(trait t, int row, int column) const {
    return nethack::has(plane(t)[static_cast<std::size_t>(row)], column);
  }
  const std::array<row_bits, rows>& plane(trait t) const {
    return planes_[static_cast<std::size_t>(t)];
  }

 private:
  void read_row(int row) {
    std::array<std::uint8_t, columns> low, high;
    const std::size_t at = static_cast<std::size_t>(row * columns);
    std::uint8_t* token = &tokens_[static_cast<std::size_t>(row + margin)][margin];
    for (std::size_t column = 0; column < columns; ++column) {
      const cell& shown = cell_of(chars_[at + column], colors_[at + column]);
      token[column] = shown.token;
      low[column] = static_cast<std::uint8_t>(shown.traits);
      high[column] = static_cast<std::uint8_t>(shown.traits >> 8);
    }
    for (int t = 0; t < trait_count; ++t)
      planes_[static_cast<std::size_t>(t)][static_cast<std::size_t>(row)] =
          t < 8 ? gather(low, t) : gather(high, t - 8);
  }

  /// Bit `which` of 80 bytes as 80 bits. Eight bytes at a time: the product moves bit 0 of byte i
  /// to bit 56 + i.
  static row_bits gather(const std::array<std::uint8_t, columns>& bytes, int which) {
    row_bits bits = 0;
    for (std::size_t group = 0; group < columns / 8; ++group) {
      std::uint64_t eight;
      std::memcpy(&eight, &bytes[group * 8], 8);
      const std::uint64_t packed =
          (((eight >> which) & 0x0101010101010101u) * 0x0102040810204080u) >> 56;
      bits |= row_bits{packed} << (group * 8);
    }
    return bits;
  }

  bool known_ = false;
  std::array<std::uint8_t, rows * columns> chars_{}, colors_{};
  std::array<std::array<std::uint8_t, columns + 2 * margin>, rows + 2 * margin> tokens_{};
  std::array<std::array<row_bits, rows>, trait_count> planes_{};
};

}  // namespace nethack
