// SPDX-License-Identifier: MIT
// The options of a pyramid, and the state that changes from step to step.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>

#include "emulator.hpp"
#include "maps.hpp"

namespace montezuma {

enum class move : int { wait, left, right, up, down };

struct pyramid_options {
  std::string map = "standard";
  /// chance that a step repeats the action of the previous step and ignores the new action
  double sticky = 0.25;
  int step_cap = 0;  ///< steps per episode; 0: the default of the map
};

/// The state that changes. Without padding, so that equal games have equal bytes.
struct pyramid_state {
  std::uint64_t random = 0;
  std::int32_t steps = 0;
  std::int8_t room = 1, x = 0, y = 0, last_action = 0;
  std::int8_t fallen = 0;    ///< cells since the hero last stood
  std::uint8_t jumping = 0;  ///< at the top of a jump
  std::uint8_t held = 0;     ///< bits: red key, blue key
  std::uint8_t taken = 0;    ///< bits, by item
  std::uint8_t opened = 0;   ///< bits: red doors, blue doors
  std::uint8_t ended = 0, dead = 0;
  std::array<std::int8_t, room_count> skull_x{}, skull_way{};
  room_success success;
  std::uint8_t unused[6] = {};

  bool operator==(const pyramid_state&) const = default;
};
static_assert(std::has_unique_object_representations_v<pyramid_state>);

}  // namespace montezuma
