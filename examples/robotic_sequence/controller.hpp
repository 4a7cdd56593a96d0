// SPDX-License-Identifier: MIT
// A scripted player for the stages that a policy is not pre-trained on. It gets the observation of
// a policy, and shows that the stages can be solved.
#pragma once

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "rules.hpp"

namespace robotic_sequence {

inline bool controller_knows(stage_kind kind) {
  return kind != stage_kind::unplug && kind != stage_kind::push_wall;
}

namespace detail {

/// The joint angles (shoulder, elbow) that move the tip to a place, or as close as the arm reaches.
/// The elbow bends in the direction that its joint allows.
inline point inverse_kinematics(point tip) {
  constexpr double link = 0.4, base_y = -0.35;
  const double x = tip.x, y = tip.y - base_y,
               reach = std::clamp(std::hypot(x, y), 0.2, 2 * link - 0.01);
  const double elbow = std::acos((reach * reach - 2 * link * link) / (2 * link * link));
  return {std::atan2(y, x) - elbow / 2, elbow};
}

}  // namespace detail

/// Moves behind the object, seen from the target, goes around the object if necessary, and pushes.
/// Maps the observation of a sequence to two numbers in [-1, 1]. Throws std::invalid_argument if
/// the stage has no scripted solution.
inline void control(stage_kind kind, const float* observation, float* action) {
  if (!controller_knows(kind))
    throw std::invalid_argument("the scripted controller cannot play the stage " +
                                std::string(name_of(kind)));
  const auto seen = [&](int i) { return static_cast<double>(observation[i]); };
  const point angles{seen(0) + 1, seen(1) + 1.5}, velocities{2 * seen(2), 2 * seen(3)};
  const point tip{seen(4) / 4, seen(5) / 4 + 0.15}, object{seen(6) / 4, seen(7) / 4 + 0.15},
      goal{seen(10) / 4, seen(11) / 4 + 0.2};

  // The way of a lever's end is the tangent at it; the chord to the goal is near enough, turned
  // back by half of what is left.
  point way = direction(object, goal);
  if (kind == stage_kind::faucet) {
    const double half = std::asin(std::min(1.0, distance(object, goal) / (2 * detail::lever)));
    way = {way.x * std::cos(half) + way.y * std::sin(half),
           way.y * std::cos(half) - way.x * std::sin(half)};
  }
  const double contact = kind == stage_kind::push     ? 0.06
                         : kind == stage_kind::faucet ? 0.037
                         : kind == stage_kind::window ? 0.055
                                                      : 0.045;
  const point from_object = tip - object, across{-way.y, way.x};
  const double along = dot(from_object, way), beside = dot(from_object, across);
  point target;
  if (along < -0.7 * contact && std::abs(beside) < 0.03)
    target = object + 0.05 * way - beside * across;  // behind it: push, back to the line
  else if (along < -contact)
    target = object - (contact + 0.01) * way;  // half behind it: to the line
  else
    // at the side or in front of the object: go around it
    target = object - (contact + 0.04) * way + (beside < 0 ? -1 : 1) * (contact + 0.02) * across;
  const point wanted = detail::inverse_kinematics(target);
  action[0] =
      static_cast<float>(std::clamp(6 * (wanted.x - angles.x) - 0.3 * velocities.x, -1.0, 1.0));
  action[1] =
      static_cast<float>(std::clamp(6 * (wanted.y - angles.y) - 0.3 * velocities.y, -1.0, 1.0));
}

}  // namespace robotic_sequence
