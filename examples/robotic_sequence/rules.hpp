// SPDX-License-Identifier: MIT
// The rules of each stage: the positions of objects, the distance to the goal, when a stage is
// solved, and the reward of a decision.
#pragma once

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "stages.hpp"

namespace robotic_sequence {

/// A place on the table, or a vector on it, in meters. The arm's shoulder is at (0, -0.35); y
/// increases away from the arm.
struct point {
  double x = 0, y = 0;
  friend point operator+(point a, point b) { return {a.x + b.x, a.y + b.y}; }
  friend point operator-(point a, point b) { return {a.x - b.x, a.y - b.y}; }
  friend point operator*(double s, point a) { return {s * a.x, s * a.y}; }
  bool operator==(const point&) const = default;
};
inline double dot(point a, point b) { return a.x * b.x + a.y * b.y; }
inline double cross(point a, point b) { return a.x * b.y - a.y * b.x; }
inline double length(point a) { return std::hypot(a.x, a.y); }
inline double distance(point a, point b) { return length(a - b); }
inline point direction(point from, point to) {
  return 1 / (distance(from, to) + 1e-6) * (to - from);
}

/// The random values that are drawn when a stage starts.
struct layout {
  /// the place of the object: a faucet's axis; for other objects the initial position
  point place;
  point goal;           ///< target position of the object
  double shoulder = 0;  ///< of the arm, in radians
  double elbow = 0;
};

namespace detail {

inline constexpr double window_travel = 0.15, press_travel = 0.045, unplug_travel = 0.12;
inline constexpr double lever = 0.11, faucet_turn = 1.35;  ///< meters, radians
inline constexpr double wall_y = 0.2;
/// Half sizes of the wall: where a straight path of the puck would touch it, and where a path
/// around it passes.
inline constexpr double wall_blocks = 0.095, wall_corner = 0.11;

inline bool through_wall(point from, point to) {
  if ((from.y - wall_y) * (to.y - wall_y) >= 0) return false;
  return std::abs(from.x + (wall_y - from.y) / (to.y - from.y) * (to.x - from.x)) < wall_blocks;
}

/// The corner of the wall that gives the shorter path.
inline point corner(point from, point to) {
  const point left{-wall_corner, wall_y}, right{wall_corner, wall_y};
  return distance(from, left) + distance(left, to) < distance(from, right) + distance(right, to)
             ? left
             : right;
}

/// Radians that the lever still has to turn; negative past the goal.
inline double turn_left(const layout& where, point object) {
  const point now = object - where.place, then = where.goal - where.place;
  return std::atan2(cross(now, then), dot(now, then));
}

}  // namespace detail

/// Places and goals are uniform in boxes. `uniform(low, high)` draws one number.
template <class Uniform>
layout draw_layout(stage_kind kind, Uniform&& uniform) {
  layout where;
  where.shoulder = 0.45 + uniform(-0.1, 0.1);
  where.elbow = 2.24 + uniform(-0.1, 0.1);
  const auto in_box = [&](double left, double right, double near, double far) {
    const double x = uniform(left, right);
    return point{x, uniform(near, far)};
  };
  switch (kind) {
    case stage_kind::window:
      where.place = in_box(0, 0.15, 0.12, 0.25);
      where.goal = where.place - point{detail::window_travel, 0};
      return where;
    case stage_kind::faucet:
      where.place = in_box(0.04, 0.16, 0.2, 0.28);
      where.goal = where.place + detail::lever * point{std::sin(detail::faucet_turn),
                                                       -std::cos(detail::faucet_turn)};
      return where;
    case stage_kind::press:
      where.place = in_box(-0.2, 0.2, 0.25, 0.3);
      where.goal = where.place + point{0, detail::press_travel};
      return where;
    case stage_kind::push:
      where.place = in_box(0.02, 0.15, 0.1, 0.2);
      where.goal = in_box(-0.22, -0.15, 0.1, 0.2);
      return where;
    case stage_kind::unplug:
      where.place = in_box(-0.16, -0.08, 0.12, 0.25);
      where.goal = where.place + point{detail::unplug_travel, 0};
      return where;
    case stage_kind::push_wall:
      where.place = in_box(-0.1, 0.1, 0.09, 0.12);
      where.goal = in_box(-0.12, 0.12, 0.29, 0.32);
      return where;
  }
  throw std::invalid_argument("draw_layout: this stage does not exist");
}

/// The next target of the object: its goal, or first a corner of the wall if the wall is between.
inline point next_target(stage_kind kind, const layout& where, point object) {
  const bool around = kind == stage_kind::push_wall && detail::through_wall(object, where.goal);
  return around ? detail::corner(object, where.goal) : where.goal;
}

/// Meters that the object still has to move: straight on a rail, along the arc for a lever, around
/// the wall for a puck.
inline double way_left(stage_kind kind, const layout& where, point object) {
  if (kind == stage_kind::faucet) return detail::lever * std::abs(detail::turn_left(where, object));
  const point next = next_target(kind, where, object);
  return distance(object, next) + distance(next, where.goal);
}

/// The place where the tip touches the object to push it towards the next target.
inline point push_from(stage_kind kind, const layout& where, point object) {
  switch (kind) {
    case stage_kind::window: return object + point{0.055, 0};
    case stage_kind::faucet: {
      const point arm = direction(where.place, object);
      return object - 0.037 * point{-arm.y, arm.x};
    }
    case stage_kind::press: return object - point{0, 0.045};
    case stage_kind::push:
    case stage_kind::push_wall:
      return object - 0.06 * direction(object, next_target(kind, where, object));
    case stage_kind::unplug: return object - point{0.035, 0.035};
  }
  throw std::invalid_argument("push_from: this stage does not exist");
}

/// Objects on rails and hinges must be within a small distance of the goal or beyond it. A puck
/// must be within 5 cm by its center, without a wall in between.
inline bool solved(stage_kind kind, const layout& where, point object) {
  switch (kind) {
    case stage_kind::window: return where.place.x - object.x > 0.13;
    case stage_kind::faucet: return detail::turn_left(where, object) < 0.15;
    case stage_kind::press: return object.y - where.place.y > 0.04;
    case stage_kind::push:
    case stage_kind::push_wall: return way_left(kind, where, object) < 0.05;
    case stage_kind::unplug: return object.x - where.place.x > 0.1;
  }
  throw std::invalid_argument("solved: this stage does not exist");
}

/// 0.3 exp(-8 d) + 0.7 p, where d is the distance in meters from the tip to where it should push,
/// and p is the done part of the way: 1 - way_left / way_at_start. A step back counts 0.3 of p, and
/// no more than the whole way. In [-0.21, 1].
inline double dense_reward(stage_kind kind, const layout& where, double way_at_start, point tip,
                           point object) {
  double done = 1 - way_left(kind, where, object) / way_at_start;
  if (done < 0) done = 0.3 * std::max(done, -1.0);
  return 0.3 * std::exp(-8 * distance(tip, push_from(kind, where, object))) + 0.7 * done;
}

}  // namespace robotic_sequence
