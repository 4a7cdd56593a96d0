// SPDX-License-Identifier: MIT
// The observation of the small policy: a record of fixed size, made from a screen and the memory of
// the game.
#pragma once

#include "compass.hpp"
#include "memory.hpp"
#include "observation.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cstdint>
#include <type_traits>

namespace nethack {

inline constexpr int crop_radius = 5, crop_width = 2 * crop_radius + 1,
                     crop_cells = crop_width * crop_width;
inline constexpr int max_rows = 128;

/// The cells around the hero as tokens, and all other features as a set of rows of one table. The
/// network's first layer sums these rows. Plain bytes: a policy reads a batch as a uint8 tensor
/// [n, sizeof(features)].
struct features {
  std::array<std::uint8_t, crop_cells> tokens{};
  std::uint8_t depth = 0;  ///< dungeon level; used by the monitor, not by the network
  std::uint8_t row_count = 0;
  /// 1 if a game starts, or continues from a save: a recurrent policy resets its state
  std::uint8_t first = 0;
  std::array<std::uint16_t, max_rows> rows{};
};
static_assert(std::is_trivially_copyable_v<features> && sizeof(features) == 380);

/// The first row of each kind.
namespace table {

// and one for "no earlier action"
inline constexpr int action_slots = static_cast<int>(small_actions.size()) + 1;
inline constexpr int far_columns = 27, far_rows = 15, far_column_width = 6, far_row_height = 3,
                     far_classes = 8;
inline constexpr int visit_levels = 3, message_buckets = 512;

inline constexpr int previous_actions = 0;
inline constexpr int under_hero = previous_actions + memory::actions_kept * action_slots;
inline constexpr int question = under_hero + token_count;
inline constexpr int hit_points = question + 1;
inline constexpr int in_danger = hit_points + 12;
inline constexpr int hunger = in_danger + 2;
inline constexpr int depth = hunger + 6;
inline constexpr int experience_level = depth + 16;
inline constexpr int armor_class = experience_level + 12;
inline constexpr int burden = armor_class + 8;
inline constexpr int since_prayer = burden + 3;
inline constexpr int same_place = since_prayer + 6;
inline constexpr int same_turn = same_place + 9;
inline constexpr int turns_on_level = same_turn + 6;
inline constexpr int turn = turns_on_level + 12;
inline constexpr int hero_column = turn + 10;
inline constexpr int hero_row = hero_column + 20;
inline constexpr int visits_here = hero_row + 11;
inline constexpr int message_words = visits_here + 6;
inline constexpr int whole_message = message_words + message_buckets;
inline constexpr int visits_around = whole_message + message_buckets;
inline constexpr int far_map = visits_around + crop_cells * visit_levels;
inline constexpr int bearings = far_map + far_columns * far_rows * far_classes;
inline constexpr int size = bearings + 3 * (9 + 6);

}  // namespace table

struct feature_options {
  /// also the first step to the nearest stairs, unexplored place and gold; gives a stronger clone
  bool compass = true;
};

namespace detail {

class row_writer {
 public:
  explicit row_writer(features& out) : out_(out) { out_.row_count = 0; }
  void operator()(int row) {
    if (out_.row_count < max_rows) out_.rows[out_.row_count++] = static_cast<std::uint16_t>(row);
  }

 private:
  features& out_;
};

inline int bit_length(int value) {
  return std::bit_width(static_cast<unsigned>(std::max(0, value)));
}

/// The index of the first bound that is above the value; `bounds.size()` if there is none.
template <std::size_t N>
int bucket(int value, const std::array<int, N>& bounds) {
  return static_cast<int>(std::upper_bound(bounds.begin(), bounds.end(), value) - bounds.begin());
}

inline void write_status(row_writer& add, const status& now, const memory& mind) {
  const auto clamp = [](std::int64_t value, int most) {
    return static_cast<int>(std::clamp<std::int64_t>(value, 0, most));
  };
  // from a recording, which may have any int
  const std::int64_t hp = now.hp, armor_class = now.armor_class;
  add(table::hit_points + (now.hp_max > 0 ? clamp(11 * hp / now.hp_max, 11) : 0));
  if (now.hp < 6) add(table::in_danger);
  if (hp * 7 < now.hp_max) add(table::in_danger + 1);  // with these two a prayer helps
  add(table::hunger + clamp(now.hunger, 5));
  add(table::depth + clamp(now.depth, 15));
  add(table::experience_level + clamp(now.level, 11));
  add(table::armor_class + clamp((armor_class + 4) / 2, 7));
  add(table::burden + clamp(now.burden, 2));
  add(table::turn + std::min(9, bit_length(now.turn / 16)));
  add(table::since_prayer + (mind.has_prayed()
                                 ? 2 + bucket(mind.turns_since_prayer(), std::array{100, 500, 901})
                                 : now.turn > 250));
}

inline void write_memory(row_writer& add, const memory& mind) {
  for (int i = 0; i < memory::actions_kept; ++i) {
    const int action = mind.actions()[static_cast<std::size_t>(i)];
    add(table::previous_actions + i * table::action_slots +
        (action == memory::no_action ? table::action_slots - 1 : action));
  }
  add(table::under_hero + mind.under_hero());
  add(table::same_place + bucket(mind.same_place(), std::array{1, 2, 3, 4, 8, 16, 32, 60}));
  add(table::same_turn + bucket(mind.same_turn(), std::array{1, 2, 4, 8, 13}));
  add(table::turns_on_level + std::min(11, bit_length(mind.turns_on_level())));
  add(table::hero_column + mind.hero_column() / 4);
  add(table::hero_row + mind.hero_row() / 2);
  add(table::visits_here +
      std::min(5, bit_length(mind.visits(mind.hero_row(), mind.hero_column()))));
}

/// One row for each of the first twenty words, and one for all words in order (FNV-1a).
inline void write_message(row_writer& add, std::string_view message) {
  constexpr std::uint64_t basis = 14695981039346656037u, prime = 1099511628211u;
  const auto bucket_of = [](std::uint64_t hash) {
    return static_cast<int>((hash >> 20) % table::message_buckets);
  };
  std::uint64_t word = basis, whole = basis;
  bool in_word = false;
  int words = 0;
  const auto end_word = [&] {
    if (!in_word) return;
    add(table::message_words + bucket_of(word));
    word = basis;
    in_word = false;
    ++words;
  };
  for (const char shown : message) {
    if (words == 20) break;
    const auto c = static_cast<unsigned char>(shown);
    if (!is_letter(c)) {
      end_word();
      continue;
    }
    word = (word ^ (c | 0x20u)) * prime;
    whole = (whole ^ (c | 0x20u)) * prime;
    in_word = true;
  }
  if (words < 20) end_word();
  if (words > 0) add(table::whole_message + bucket_of(whole));
}

inline void write_crop(features& out, row_writer& add, const memory& mind) {
  const int top = mind.hero_row() - crop_radius, left = mind.hero_column() - crop_radius;
  for (int y = 0; y < crop_width; ++y)
    std::copy_n(mind.map().token_row(top + y, left), crop_width,
                &out.tokens[static_cast<std::size_t>(y * crop_width)]);
  out.tokens[crop_cells / 2] = mind.under_hero();

  for (int row = std::max(top, first_map_row); row <= std::min(top + crop_width - 1, last_map_row);
       ++row) {
    row_bits visited = mind.visited()[static_cast<std::size_t>(row)];
    visited = left >= 0 ? visited >> left : visited << -left;
    visited &= (row_bits{1} << crop_width) - 1;
    for (auto bits = static_cast<unsigned>(visited); bits != 0; bits &= bits - 1) {
      const int x = std::countr_zero(bits);
      const int often = bucket(mind.visits(row, left + x), std::array{3, 8});
      add(table::visits_around + ((row - top) * crop_width + x) * table::visit_levels + often);
    }
  }
}

/// The cells outside the crop, in bins of 6 × 3 cells around the hero: one row for each kind of
/// cell in a bin.
inline void write_far_map(row_writer& add, const memory& mind,
                          const std::array<row_bits, rows>& unexplored) {
  const screen_map& map = mind.map();
  const int hero_row = mind.hero_row(), hero_column = mind.hero_column();
  // The most important kinds first, in case a crowded screen does not fit.
  const std::array<std::pair<const std::array<row_bits, rows>*, int>, table::far_classes> kinds{
      {{&unexplored, 7},
       {&map.plane(stairs_down), 4},
       {&map.plane(door), 3},
       {&map.plane(other), 5},
       {&map.plane(monster), 6},
       {&map.plane(floor_tile), 0},
       {&map.plane(corridor), 1},
       {&map.plane(stairs_up), 2}}};
  // Column 0 of the screen is cell `first` of the 162 columns, which start 81 columns to the left
  // of the hero.
  const int first = 81 - hero_column, first_bin = first / table::far_column_width,
            shift = first % table::far_column_width;
  const row_bits in_crop =
      (((row_bits{1} << crop_width) - 1) << std::max(0, hero_column - crop_radius)) >>
      std::max(0, crop_radius - hero_column);
  for (const auto& [plane, kind] : kinds) {
    int row = first_map_row;
    while (row <= last_map_row) {
      const int band = (row - hero_row + 22) / table::far_row_height;
      row_bits any = 0;
      for (; row <= last_map_row && (row - hero_row + 22) / table::far_row_height == band; ++row) {
        row_bits cells = (*plane)[static_cast<std::size_t>(row)];
        if (std::abs(row - hero_row) <= crop_radius) cells &= ~in_crop;
        any |= cells;
      }
      any <<= shift;
      while (any != 0) {
        const int bin = lowest(any) / table::far_column_width;
        add(table::far_map + (band * table::far_columns + first_bin + bin) * table::far_classes +
            kind);
        any &= ~(((row_bits{1} << table::far_column_width) - 1) << (bin * table::far_column_width));
      }
    }
  }
}

inline void write_compass(row_writer& add, const compass& found) {
  int at = table::bearings;
  for (const bearing& target : {found.stairs, found.unexplored, found.gold}) {
    add(at + target.direction);
    add(at + 9 + std::min(5, bit_length(target.distance)));
    at += 15;
  }
}

}  // namespace detail

/// The features of `seen`. Call `mind.observe` with the same screen before.
inline features encode(const observation& seen, const memory& mind,
                       const feature_options& options = {}) {
  features out;
  detail::row_writer add(out);
  out.depth = static_cast<std::uint8_t>(std::clamp(seen.stats.depth, 0, 255));
  if (seen.waiting == prompt::question) add(table::question);
  detail::write_memory(add, mind);
  detail::write_status(add, seen.stats, mind);
  detail::write_message(add, seen.message);

  auto unexplored = unexplored_cells(mind.map(), mind.visited());
  unexplored[static_cast<std::size_t>(mind.hero_row())] &= ~bit(mind.hero_column());
  if (options.compass) {
    const std::uint8_t under = mind.under_hero();
    const bool in_door = under >= tokens::door_open_vertical && under <= tokens::door_closed;
    detail::write_compass(
        add, find_bearings(mind.map(), mind.hero_row(), mind.hero_column(), in_door, unexplored));
  }
  detail::write_crop(out, add, mind);
  detail::write_far_map(add, mind, unexplored);
  return out;
}

}  // namespace nethack
