// SPDX-License-Identifier: MIT
// What pre-training leaves behind: a policy, states that it visits, and where it learnt.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include <retain/state.hpp>

#include <ATen/ATen.h>

#include "policy.hpp"
#include "world.hpp"

namespace montezuma {

struct teacher_file {
  policy network{nullptr};
  at::Tensor memory;  ///< [n, inputs]
  world_options world;
  int room = 7;       ///< where its episodes began
  double success = 0; ///< there, when it was accepted
  std::uint64_t seed = 0;
  std::int64_t steps = 0;

  void write(const std::string& path) const {
    retain::state out;
    save_network(out, network, "policy.");
    out.set("memory", memory);
    out.set("map", world.game.map);
    out.set("sticky", world.game.sticky);
    out.set("step_cap", world.game.step_cap);
    out.set("room", room);
    out.set("success", success);
    out.set("seed", seed);
    out.set("steps", steps);
    out.write(path);
  }
  static teacher_file read(const std::string& path) {
    const auto in = retain::state::read(path);
    teacher_file result;
    result.network = load_network(in, "policy.");
    if (!in.contains("memory")) throw retain::state_error("'" + path + "' is a policy without the states of a teacher: `montezuma pretrain` writes one");
    result.memory = in.tensor("memory");
    result.world.game.map = in.text("map");
    result.world.game.sticky = in.number("sticky");
    result.world.game.step_cap = in.integer<int>("step_cap");
    result.room = in.integer<int>("room");
    result.success = in.number("success");
    result.seed = in.integer<std::uint64_t>("seed");
    result.steps = in.integer("steps");
    return result;
  }
};

/// A policy by itself, with the world that it was trained in.
inline void write_policy(const std::string& path, const policy& network, const world_options& world) {
  retain::state out;
  save_network(out, network, "policy.");
  out.set("map", world.game.map);
  out.set("sticky", world.game.sticky);
  out.set("step_cap", world.game.step_cap);
  out.write(path);
}

/// Of a policy's file or a teacher's.
inline std::pair<policy, world_options> read_policy(const std::string& path) {
  const auto in = retain::state::read(path);
  world_options world;
  world.game.map = in.text("map");
  world.game.sticky = in.number("sticky");
  world.game.step_cap = in.integer<int>("step_cap");
  return {load_network(in, "policy."), world};
}

}  // namespace montezuma
