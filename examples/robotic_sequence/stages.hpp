// SPDX-License-Identifier: MIT
// The MuJoCo models of the six stages: one arm on a table, and one movable object in front of it.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace robotic_sequence {

enum class stage_kind { window, faucet, press, push, unplug, push_wall };

inline const char* name_of(stage_kind kind) {
  switch (kind) {
    case stage_kind::window: return "window";
    case stage_kind::faucet: return "faucet";
    case stage_kind::press: return "press";
    case stage_kind::push: return "push";
    case stage_kind::unplug: return "unplug";
    case stage_kind::push_wall: return "push-wall";
  }
  throw std::invalid_argument("name_of: there is no stage " +
                              std::to_string(static_cast<int>(kind)));
}

/// In the order of a sequence. A policy is pre-trained on the last two.
inline const std::vector<stage_kind> all_stages{stage_kind::window, stage_kind::faucet,
                                                stage_kind::press,  stage_kind::push,
                                                stage_kind::unplug, stage_kind::push_wall};

/// The last `stages` of all; four is the usual sequence: press, push, unplug, push-wall.
inline std::vector<stage_kind> tail(int stages) {
  const int most = static_cast<int>(all_stages.size());
  if (stages < 1 || stages > most)
    throw std::invalid_argument("a sequence has 1 to " + std::to_string(most) + " stages, not " +
                                std::to_string(stages));
  return {all_stages.end() - stages, all_stages.end()};
}

namespace detail {

/// Seen from above: two links of 0.4 m, hinged at (0, -0.35) and at the elbow, a motor of 4 Nm in
/// each hinge, and a ball at the tip. Only the tip touches objects. Meters, radians, seconds.
/// There is no gravity, because everything moves in the plane of the table.
inline constexpr const char* arm = R"(
  <body pos="0 -0.35 0.05">
    <joint name="shoulder" type="hinge" axis="0 0 1" range="-1.2 3.2" limited="true" damping="2" armature="0.02"/>
    <geom type="capsule" fromto="0 0 0.06 0.4 0 0.06" size="0.02" mass="0.4" group="3" rgba="0.45 0.5 0.55 1"/>
    <body pos="0.4 0 0">
      <joint name="elbow" type="hinge" axis="0 0 1" range="0.15 2.75" limited="true" damping="2" armature="0.02"/>
      <geom type="capsule" fromto="0 0 0.06 0.4 0 0.06" size="0.015" mass="0.3" group="3" rgba="0.6 0.65 0.7 1"/>
      <geom type="sphere" pos="0.4 0 0" size="0.025" mass="0.05" class="touch" group="4" rgba="0.84 0.37 0 1"/>
      <site name="tip" pos="0.4 0 0"/>
    </body>
  </body>)";

/// The object at its random place, with the part that the arm moves. A policy observes the position
/// of the site "object". Groups are the layers of a drawing, from below: 0 rails, 1 moved parts,
/// 2 walls, 3 the arm, 4 its tip.
inline const char* thing(stage_kind kind) {
  switch (kind) {
    case stage_kind::window:  // a pane on a rail, to be slid to the left
      return R"(
    <geom type="box" pos="-0.075 0 0" size="0.11 0.006 0.01" rgba="0.8 0.8 0.8 1"/>
    <body>
      <joint type="slide" axis="1 0 0" range="-0.16 0.005" limited="true" frictionloss="0.5" damping="4"/>
      <geom type="box" size="0.03 0.03 0.04" mass="0.2" class="touch" group="1" rgba="0.34 0.71 0.91 1"/>
      <site name="object"/>
    </body>)";
    case stage_kind::faucet:  // a lever that points to the arm, to be turned counter-clockwise
      return R"(
    <geom type="cylinder" size="0.02 0.03" rgba="0.8 0.8 0.8 1"/>
    <body>
      <joint type="hinge" axis="0 0 1" range="-0.05 1.5" limited="true" frictionloss="0.05" damping="0.05"/>
      <geom type="capsule" fromto="0 0 0 0 -0.12 0" size="0.012" mass="0.1" class="touch" group="1" rgba="0.34 0.71 0.91 1"/>
      <site name="object" pos="0 -0.11 0"/>
    </body>)";
    case stage_kind::press:  // a button with a spring behind it
      return R"(
    <geom type="box" pos="0 0.075 0" size="0.045 0.02 0.04" rgba="0.8 0.8 0.8 1"/>
    <body>
      <joint type="slide" axis="0 1 0" stiffness="20" damping="10"/>
      <geom type="box" size="0.03 0.02 0.04" mass="0.2" class="touch" group="1" rgba="0.8 0.2 0.2 1"/>
      <site name="object"/>
    </body>)";
    case stage_kind::push:
    case stage_kind::push_wall:  // a puck that stops where it is let go
      return R"(
    <body>
      <joint type="slide" axis="1 0 0" frictionloss="0.5" damping="3"/>
      <joint type="slide" axis="0 1 0" frictionloss="0.5" damping="3"/>
      <geom type="sphere" size="0.035" mass="0.15" class="touch" group="1" rgba="0.34 0.71 0.91 1"/>
      <site name="object"/>
    </body>)";
    case stage_kind::unplug:  // a plug in the shape of a T, to be pulled to the right by its head
      return R"(
    <body>
      <joint type="slide" axis="1 0 0" frictionloss="1" damping="4"/>
      <geom type="box" size="0.008 0.05 0.04" mass="0.2" class="touch" group="1" rgba="0.34 0.71 0.91 1"/>
      <geom type="box" pos="-0.09 0 0" size="0.09 0.008 0.03" mass="0.1" class="touch" group="1" rgba="0.34 0.71 0.91 1"/>
      <site name="object"/>
    </body>)";
  }
  throw std::invalid_argument("thing: this stage does not exist");
}

}  // namespace detail

/// The whole model of a stage. The object is attached to a mocap body, whose place belongs to the
/// data of a simulation and not to the model, so one model serves every simulation. `size` limits
/// the number of constraints and contacts, far above what occurs. MuJoCo's default size takes more
/// time to clear at the start of an episode than the episode itself.
inline std::string mjcf(stage_kind kind) {
  const std::string wall = kind != stage_kind::push_wall ? "" : R"(
  <geom type="box" pos="0 0.2 0.05" size="0.06 0.012 0.05" class="touch" group="2" rgba="0.35 0.3 0.28 1"/>)";
  return std::string(R"(<mujoco>
<compiler angle="radian"/>
<size njmax="64" nconmax="16"/>
<option timestep="0.01" gravity="0 0 0" iterations="20"/>
<default>
  <geom contype="0" conaffinity="0" friction="0.3 0.005 0.0001"/>
  <default class="touch"><geom contype="1" conaffinity="1"/></default>
</default>
<worldbody>)") +
         detail::arm + R"(
  <body name="place" mocap="true" pos="0 0 0.05">)" +
         detail::thing(kind) + R"(
  </body>)" +
         wall + R"(
</worldbody>
<actuator>
  <motor joint="shoulder" gear="4" ctrllimited="true" ctrlrange="-1 1"/>
  <motor joint="elbow" gear="4" ctrllimited="true" ctrlrange="-1 1"/>
</actuator>
</mujoco>
)";
}

}  // namespace robotic_sequence
