// SPDX-License-Identifier: MIT
// The scripted player's memory of a level, and its path search.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "observation.hpp"

namespace nethack {

struct place {
  int row = 0, column = 0;
  friend bool operator==(place, place) = default;
};

/// The eight directions, with the four straight ones first. So a shortest path is straight where
/// possible, which is easier to imitate.
inline constexpr std::array<place, 8> directions{
    {{-1, 0}, {0, 1}, {1, 0}, {0, -1}, {-1, 1}, {1, 1}, {1, -1}, {-1, -1}}};
inline constexpr std::array<std::uint8_t, 8> direction_keys{'k', 'l', 'j', 'h', 'u', 'n', 'b', 'y'};

inline place operator+(place a, place b) { return {a.row + b.row, a.column + b.column}; }
inline int distance(place a, place b) {
  const int rows_apart = std::abs(a.row - b.row), columns_apart = std::abs(a.column - b.column);
  return rows_apart > columns_apart ? rows_apart : columns_apart;
}
/// The map takes rows 1 to 21 of the screen; column 0 is never used by the game.
inline bool on_map(place p) {
  return p.row >= 1 && p.row <= 21 && p.column >= 1 && p.column < columns;
}

/// The terminal colors that NetHack uses.
namespace color {
inline constexpr int black = 0, red = 1, green = 2, brown = 3, blue = 4, magenta = 5, cyan = 6,
                     gray = 7, orange = 9, bright_green = 10, yellow = 11, bright_blue = 12,
                     bright_magenta = 13, white = 15;
}

/// One character of the map with its color.
struct glyph {
  std::uint8_t symbol = ' ', paint = 0;

  int hue() const { return paint & 15; }
  /// Shown inverse if the game is set to do so. A white dog or cat is a pet too.
  bool is_pet() const {
    return ((paint & 16) != 0 && is_monster()) ||
           ((symbol == 'd' || symbol == 'f') && hue() == color::white);
  }
  bool is_monster() const {
    const bool letter = (symbol >= 'a' && symbol <= 'z') || (symbol >= 'A' && symbol <= 'Z');
    return letter || symbol == '@' || symbol == '&' || symbol == ';' || symbol == ':' ||
           symbol == '~' || symbol == '\'';
  }
  /// A monster that harms a hero who touches it with bare hands or makes it explode. A Monk should
  /// not walk into it.
  bool is_harmful() const {
    switch (symbol) {
      // lichens and violet fungi can be fought; molds sting
      case 'F': return hue() != color::bright_green && hue() != color::magenta;
      // the floating eye paralyses, the gas spore explodes
      case 'e': return hue() == color::blue || hue() == color::gray;
      // cockatrices and chickatrices turn to stone
      case 'c': return hue() == color::yellow || hue() == color::brown;
      // these jellies freeze and burn, and never move
      case 'j': return hue() == color::blue || hue() == color::green;
      default: return false;
    }
  }
  bool is_watchman() const { return symbol == '@' && hue() == color::green; }
  /// An open or closed door. A broken door and an empty doorway look like floor and can be crossed
  /// diagonally.
  bool is_door() const {
    return hue() == color::brown && (symbol == '+' || symbol == '|' || symbol == '-');
  }
  bool is_closed_door() const { return hue() == color::brown && symbol == '+'; }
  bool is_wall() const {
    return (symbol == '|' || symbol == '-') && hue() != color::brown && hue() != color::cyan;
  }
  bool is_boulder() const { return symbol == '0' || symbol == '`'; }
  bool is_trap() const { return symbol == '^'; }
  /// A harmless trap that moves the hero down or to another place of the level: trap doors and
  /// teleporters have the same color, magenta.
  bool is_useful_trap() const { return is_trap() && hue() == color::magenta; }
  bool is_object() const {
    return std::string_view("$?!/=\"([)*%").find(static_cast<char>(symbol)) !=
           std::string_view::npos;
  }
  bool is_walkable() const {
    if (symbol == ' ') return false;
    // an open door, or a weapon or wand lying there
    if (symbol == '|' || symbol == '-') return hue() == color::brown || hue() == color::cyan;
    // not a tree, not iron bars
    if (symbol == '#') return hue() != color::green && hue() != color::cyan;
    // a door or a spell book
    if (symbol == '+') return true;
    return std::string_view(".<>_{\\").find(static_cast<char>(symbol)) != std::string_view::npos ||
           is_object();
  }
};

template <class T>
class grid {
 public:
  T& operator[](place p) { return cells_[static_cast<std::size_t>(p.row * columns + p.column)]; }
  const T& operator[](place p) const {
    return cells_[static_cast<std::size_t>(p.row * columns + p.column)];
  }
  void fill(T value) { cells_.fill(value); }

 private:
  std::array<T, rows * columns> cells_{};
};

/// The memory of a level. Monsters are not stored, so that the floor under them stays known.
class level_map {
 public:
  grid<glyph> ground;                         ///< the last glyph seen there that was no monster
  grid<std::uint16_t> visits;                 ///< how often the hero stood there
  grid<std::uint16_t> searches;               ///< how often the hero searched next to it
  grid<std::array<std::uint8_t, 8>> refused;  ///< failed steps in each direction
  /// the turn until which nobody should walk there, because a peaceful monster stands in the way
  grid<int> shunned_until;
  grid<bool> statue;  ///< looks like a monster but is a statue
  std::optional<place> stairs_down, stairs_up;
  /// because a watch or the owner of a closed shop kills whoever breaks a door
  bool guarded = false;
  int entered_turn = 0;
  int forgiven_turn = -1000;  ///< when `refused` was last cleared
  int kicks = 0;              ///< at doors of this level

  /// Reads only rows that changed, and the row that the hero has just left, unless the whole screen
  /// is new.
  void see(const observation& seen, place hero, bool everything) {
    for (int row = 1; row <= 21; ++row) {
      if (!everything && !(seen.changed_rows >> row & 1u) && row != hero.row && row != left_row_)
        continue;
      for (int column = 1; column < columns; ++column) {
        const place here{row, column};
        if (here == hero) continue;
        const glyph shown{seen.character(row, column), seen.color(row, column)};
        if (shown.is_monster()) {
          if (shown.is_watchman()) guarded = true;
          // The monster goes out of sight when the hero turns away, and would attract the hero
          // again. Most of these monsters hardly ever move.
          if (shown.is_harmful() && !statue[here])
            shunned_until[here] =
                seen.stats.turn + (shown.symbol == 'F' || shown.symbol == 'j' ? 500 : 60);
          continue;
        }
        ground[here] = shown;
        // the monster is gone, or it would be visible
        if (shunned_until[here] > 0 && distance(here, hero) == 1) shunned_until[here] = 0;
        if (shown.symbol == '>') stairs_down = here;
        if (shown.symbol == '<') stairs_up = here;
      }
    }
    left_row_ = hero.row;
  }

  bool is_blank(place p) const {
    return p.row >= 2 && p.row <= 20 && p.column > 1 && p.column < columns - 1 &&
           ground[p].symbol == ' ';
  }

  /// Whether the hero probably sees more of the level from `p`.
  bool is_frontier(place p) const {
    if (visits[p]) return false;
    const glyph here = ground[p];
    if (here.is_door()) return true;
    for (std::size_t d = 0; d < 8; ++d)
      if (is_blank(p + directions[d]) && (d < 4 || here.symbol == '#')) return true;
    return false;
  }

  int walkable_neighbours(place p) const {
    int count = 0;
    for (const place step : directions)
      if (on_map(p + step) && ground[p + step].is_walkable()) ++count;
    return count;
  }

 private:
  int left_row_ = 0;
};

/// Shortest paths from the hero to every place, by breadth-first search.
class route_finder {
 public:
  struct rules {
    bool push_boulders = false;
    bool cross_traps = false;
    int turn = 0;
  };

  void explore(const level_map& map, const observation& seen, place hero, rules allowed) {
    distance_.fill(unreached);
    reached_.clear();
    hero_ = hero;
    distance_[hero] = 0;
    reached_.push_back(hero);
    for (std::size_t next = 0; next < reached_.size(); ++next) {
      const place from = reached_[next];
      for (std::size_t d = 0; d < 8; ++d) {
        const place to = from + directions[d];
        if (!on_map(to) || distance_[to] != unreached || !passable(map, seen, from, to, d, allowed))
          continue;
        distance_[to] = distance_[from] + 1;
        arrived_by_[to] = static_cast<std::uint8_t>(d);
        reached_.push_back(to);
      }
    }
  }

  bool reaches(place p) const { return on_map(p) && distance_[p] != unreached; }
  int steps_to(place p) const { return distance_[p]; }
  const std::vector<place>& reached() const { return reached_; }

  /// The index of the first direction on the path to `goal`.
  std::size_t first_step(place goal) const {
    std::size_t d = 0;
    while (goal != hero_) {
      d = arrived_by_[goal];
      goal = {goal.row - directions[d].row, goal.column - directions[d].column};
    }
    return d;
  }

 private:
  static constexpr int unreached = std::numeric_limits<int>::max();

  static bool passable(const level_map& map, const observation& seen, place from, place to,
                       std::size_t d, rules allowed) {
    const glyph there = map.ground[to];
    const glyph shown{seen.character(to.row, to.column), seen.color(to.row, to.column)};
    if (map.shunned_until[to] > allowed.turn || map.refused[from][d] > 2) return false;
    if (shown.is_harmful() && !map.statue[to]) return false;
    if (there.is_trap()) {
      if (!there.is_useful_trap() && !allowed.cross_traps) return false;
    } else if (there.is_boulder()) {
      if (!allowed.push_boulders || d >= 4) return false;
    } else if (!there.is_walkable() && !(there.symbol == ' ' && shown.is_monster())) {
      return false;
    }
    // nobody goes diagonally through a door
    return d < 4 || !(map.ground[from].is_door() || there.is_door());
  }

  grid<int> distance_;
  grid<std::uint8_t> arrived_by_;
  std::vector<place> reached_;
  place hero_;
};

}  // namespace nethack
