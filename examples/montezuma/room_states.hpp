// SPDX-License-Identifier: MIT
// Saved states of the real game, by room: starts for episodes that do not begin at the game's own
// start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <retain/error.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>

#include "../common/saved_tensor.hpp"

namespace montezuma {

struct room_state {
  std::string bytes;   ///< of the machine
  int came_from = -1;  ///< the previous room; -1: none

  bool operator==(const room_state&) const = default;
};

struct room_states {
  std::string game;                              ///< ale_machine::identity()
  std::map<int, std::vector<room_state>> rooms;  ///< states in which the hero has just come in
  std::map<int, std::vector<room_state>> places = {};  ///< states all over a room, to practice from

  std::string text() const {
    std::string all;
    for (const auto& [room, states] : rooms)
      if (!states.empty())
        all += (all.empty() ? "" : ", ") + std::to_string(room) + " (" +
               std::to_string(states.size()) + ")";
    return all.empty() ? "none" : all;
  }

  void write(const std::string& path) const {
    retain::state out;
    out.set("kind", kind);
    out.set("game", game);
    save(out, rooms, "");
    save(out, places, "place_");
    out.write(path);
  }

  /// Throws retain::state_error if the file has another kind or version.
  static room_states read(const std::string& path) {
    const auto in = retain::state::read(path);
    const std::string found = in.contains("kind") ? in.text("kind") : "something else";
    if (found != kind)
      throw retain::state_error("'" + path + "' has " + found + ", not '" + kind +
                                "': `montezuma make-states` writes such files");
    room_states result;
    result.game = in.text("game");
    result.rooms = load(in, "", path);
    if (in.contains("place_count")) result.places = load(in, "place_", path);
    return result;
  }

 private:
  static constexpr const char* kind = "montezuma room states 1";
  static constexpr int most_rooms = 24;  ///< of the real game

  using by_room = std::map<int, std::vector<room_state>>;

  static void save(retain::state& out, const by_room& all, const std::string& kind_of) {
    std::int64_t count = 0;
    for (const auto& [room, states] : all)
      for (const auto& one : states) {
        const auto prefix = kind_of + "state" + std::to_string(count++) + ".";
        auto bytes = at::empty({static_cast<std::int64_t>(one.bytes.size())}, at::kByte);
        std::memcpy(bytes.data_ptr<std::uint8_t>(), one.bytes.data(), one.bytes.size());
        out.set(prefix + "room", room);
        out.set(prefix + "came_from", one.came_from);
        out.set(prefix + "bytes", bytes);
      }
    out.set(kind_of + "count", count);
  }

  static by_room load(const retain::state& in, const std::string& kind_of,
                      const std::string& path) {
    by_room all;
    const auto count = in.integer(kind_of + "count");
    for (std::int64_t i = 0; i < count; ++i) {
      const auto prefix = kind_of + "state" + std::to_string(i) + ".";
      const auto bytes = saved_tensor(in, prefix + "bytes", at::kByte, {any_size});
      const int room = in.integer<int>(prefix + "room"),
                came_from = in.integer<int>(prefix + "came_from");
      if (room < 0 || room >= most_rooms || came_from < -1 || came_from >= most_rooms)
        throw retain::state_error("'" + path + "' has a state of room " + std::to_string(room) +
                                  " that came from room " + std::to_string(came_from) +
                                  ": rooms are 0 to " + std::to_string(most_rooms - 1) +
                                  "; make the states again with montezuma make-states");
      all[room].push_back(
          {std::string(reinterpret_cast<const char*>(bytes.data_ptr<std::uint8_t>()),
                       static_cast<std::size_t>(bytes.numel())),
           came_from});
    }
    return all;
  }
};

}  // namespace montezuma
