// SPDX-License-Identifier: MIT
// A map as tables for fast steps and observations.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <stdexcept>
#include <string>
#include <string_view>

#include "maps.hpp"

namespace montezuma {

enum class cell : std::uint8_t { air, solid, ladder, fire, red_door, blue_door };
enum class item : std::uint8_t { red_key, blue_key, coin, treasure };

/// The layout of an observation: one-hots of column, row and room, the keys held, and the direction
/// of the room's skull. Then for each of the 5 × 5 cells around the hero whether it is solid, a
/// ladder, deadly, an item or a closed door.
struct feature_layout {
  static constexpr int view = 5, reach = view / 2, kinds = 5;
  static constexpr int column = 0, row = column + room_width, room = row + room_height,
                       key = room + room_count, skull = key + 2, cells = skull + 2,
                       count = cells + view * view * kinds;
  enum kind : std::uint8_t { solid, ladder, deadly, thing, door };

  static constexpr int cell_at(int dx, int dy, kind what) {
    return cells + ((dy + reach) * view + dx + reach) * kinds + what;
  }
};
static_assert(feature_layout::count == 157);

class level {
 public:
  /// An item or a door in a room, which can disappear.
  struct thing {
    std::int8_t x, y;
    bool door;
    std::uint8_t which;  ///< of items or doors: 0 red, 1 blue; 2 coin, 3 treasure
  };
  struct things {
    std::array<thing, 4> all{};
    int count = 0;
    const thing* begin() const { return all.data(); }
    const thing* end() const { return all.data() + count; }
  };
  /// The features of walls, ladders and fire around a place.
  struct scenery {
    std::uint8_t count = 0;
    std::array<std::uint8_t, feature_layout::view * feature_layout::view> features{};
  };

  /// Throws std::logic_error if the map is not valid.
  explicit level(const pyramid_map& map) : map_(map) {
    for (int r = 0; r < room_count; ++r) read_room(r);
    for (int r = 0; r < room_count; ++r)
      for (int y = 0; y < room_height; ++y)
        for (int x = 0; x < room_width; ++x) scenery_[index(r, x, y)] = look_around(r, x, y);
  }

  const pyramid_map& map() const { return map_; }
  const room_map& room(int r) const { return map_.rooms[static_cast<std::size_t>(r)]; }
  cell at(int r, int x, int y) const { return cells_[index(r, x, y)]; }
  const things& in_room(int r) const { return things_[static_cast<std::size_t>(r)]; }
  const scenery& around(int r, int x, int y) const { return scenery_[index(r, x, y)]; }

  static constexpr std::size_t index(int r, int x, int y) {
    return static_cast<std::size_t>((r * room_height + y) * room_width + x);
  }

 private:
  void read_room(int r) {
    auto& here = things_[static_cast<std::size_t>(r)];
    for (int y = 0; y < room_height; ++y) {
      const auto line = room(r).rows[static_cast<std::size_t>(y)];
      if (line.size() != room_width)
        fail(r, y,
             "has " + std::to_string(line.size()) + " cells, not " + std::to_string(room_width));
      for (int x = 0; x < room_width; ++x) {
        const char sign = line[static_cast<std::size_t>(x)];
        auto& what = cells_[index(r, x, y)];
        const auto put = [&](bool door, int which) {
          if (here.count == static_cast<int>(here.all.size()))
            fail(r, y, "has the fifth item or door of the room; a room has at most four");
          here.all[static_cast<std::size_t>(here.count++)] = {static_cast<std::int8_t>(x),
                                                              static_cast<std::int8_t>(y), door,
                                                              static_cast<std::uint8_t>(which)};
        };
        switch (sign) {
          case '.': what = cell::air; break;
          case '#': what = cell::solid; break;
          case 'H': what = cell::ladder; break;
          case 'X': what = cell::fire; break;
          case 'D': what = cell::red_door, put(true, 0); break;
          case 'E': what = cell::blue_door, put(true, 1); break;
          case 'K': put(false, static_cast<int>(item::red_key)); break;
          case 'B': put(false, static_cast<int>(item::blue_key)); break;
          case 'C': put(false, static_cast<int>(item::coin)); break;
          case 'T': put(false, static_cast<int>(item::treasure)); break;
          default: fail(r, y, std::string("has the unknown sign '") + sign + "'");
        }
      }
    }
  }

  scenery look_around(int r, int x, int y) const {
    using layout = feature_layout;
    scenery seen;
    for (int dy = -layout::reach; dy <= layout::reach; ++dy)
      for (int dx = -layout::reach; dx <= layout::reach; ++dx) {
        const int i = x + dx, j = y + dy;
        // the cells behind a passage are not visible
        if (i < 0 || i >= room_width || j < 0 || j >= room_height) continue;
        const auto what = at(r, i, j);
        if (what != cell::solid && what != cell::ladder && what != cell::fire) continue;
        const auto kind = what == cell::solid    ? layout::solid
                          : what == cell::ladder ? layout::ladder
                                                 : layout::deadly;
        seen.features[seen.count++] = static_cast<std::uint8_t>(layout::cell_at(dx, dy, kind));
      }
    return seen;
  }

  [[noreturn]] void fail(int r, int y, const std::string& what) const {
    throw std::logic_error("map " + std::string(map_.name) + ", room " + std::to_string(r) +
                           ", row " + std::to_string(y) + " " + what);
  }

  pyramid_map map_;
  std::array<cell, static_cast<std::size_t>(room_count) * room_height * room_width> cells_{};
  std::array<things, room_count> things_{};
  std::array<scenery, static_cast<std::size_t>(room_count) * room_height * room_width> scenery_{};
};

/// A map of this program by name, made once. Throws std::runtime_error for an unknown name.
inline const level& level_named(std::string_view name) {
  static const std::deque<level> made = [] {
    std::deque<level> all;
    for (const auto* map : all_maps) all.emplace_back(*map);
    return all;
  }();
  for (const auto& one : made)
    if (one.map().name == name) return one;
  throw std::runtime_error("there is no map '" + std::string(name) + "': choose one of " +
                           map_names());
}

}  // namespace montezuma
