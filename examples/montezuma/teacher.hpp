// SPDX-License-Identifier: MIT
// The result of pre-training: a policy, states that it visits, and its world.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include <retain/state.hpp>

#include <ATen/ATen.h>

#include "policy.hpp"
#include "world.hpp"

namespace montezuma {

/// The reason why fine-tuning a teacher can lose knowledge: it has never seen the first rooms, or
/// it is an imperfect copy everywhere.
inline const std::string coverage_gap = "coverage-gap", cloning_gap = "cloning-gap";

template <training_world World>
struct teacher_in {
  using policy_type = typename World::policy_type;

  policy_type network{nullptr};
  at::Tensor memory;  ///< [n, observation]
  World where;
  int room = 7;        ///< FAR: the first room of training, or where a clone is measured
  double success = 0;  ///< in this room, at acceptance
  std::uint64_t seed = 0;
  std::int64_t steps = 0;
  std::string task = coverage_gap;

  void write(const std::string& path) const {
    retain::state out;
    save_network(out, network, "policy.");
    out.set("memory", memory);
    where.save(out);
    out.set("room", room);
    out.set("success", success);
    out.set("seed", seed);
    out.set("steps", steps);
    out.set("task", task);
    out.write(path);
  }
  /// `where`: the part of the world that belongs to this machine, not to the file.
  static teacher_in read(const std::string& path, const World& where = {}) {
    const auto in = retain::state::read(path);
    teacher_in result;
    result.network = load_network<policy_type>(in, "policy.");
    if (!in.contains("memory"))
      throw retain::state_error(
          "'" + path +
          "' is a policy without the states of a teacher: `montezuma pretrain` writes one");
    result.memory = in.tensor("memory");
    result.where = where;
    result.where.load(in);
    result.room = in.integer<int>("room");
    result.success = in.number("success");
    result.seed = in.integer<std::uint64_t>("seed");
    result.steps = in.integer("steps");
    if (in.contains("task")) result.task = in.text("task");
    return result;
  }
};
using teacher_file = teacher_in<world_options>;

/// A policy alone, with the world that it was trained in.
template <training_world World>
void write_policy(const std::string& path, const typename World::policy_type& network,
                  const World& where) {
  retain::state out;
  save_network(out, network, "policy.");
  where.save(out);
  out.write(path);
}

/// Reads the file of a policy or of a teacher.
template <training_world World = world_options>
std::pair<typename World::policy_type, World> read_policy(const std::string& path,
                                                          World where = {}) {
  const auto in = retain::state::read(path);
  auto network = load_network<typename World::policy_type>(in, "policy.");
  where.load(in);
  return {std::move(network), std::move(where)};
}

}  // namespace montezuma
