// SPDX-License-Identifier: MIT
// The result of pre-training: an agent, and transitions from its training.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <retain/replay/transitions.hpp>
#include <retain/state.hpp>

#include "../common/saved_tensor.hpp"
#include "agent.hpp"
#include "settings.hpp"

namespace robotic_sequence {

/// The stages of pre-training, which fine-tuning may forget.
inline const std::vector<stage_kind> known_stages{stage_kind::unplug, stage_kind::push_wall};
inline std::vector<bool> known_kinds() {
  std::vector<bool> known(static_cast<std::size_t>(kinds), false);
  for (const auto kind : known_stages) known[static_cast<std::size_t>(kind)] = true;
  return known;
}

inline void save_shape(retain::state& out, const agent_settings& settings) {
  out.set("kind", "robotic sequence agent 1");
  out.set("width", settings.width);
  out.set("one_hot", settings.one_hot ? 1 : 0);
}
/// Throws retain::state_error if the file is from another program.
inline void load_shape(const retain::state& in, agent_settings& settings) {
  if (!in.contains("kind") || in.text("kind") != "robotic sequence agent 1")
    throw retain::state_error("the file has no policy of this program; `robotic_sequence "
                              "pretrain` and `finetune` write such files");
  settings.width = in.integer("width");
  // checked before a network of this size is created
  check_saved_shape(in, "agent.actor.encoder.linear0.weight", {settings.width, any_size});
  settings.one_hot = in.integer("one_hot") != 0;
}

struct teacher_file {
  retain::state state;  ///< networks and temperatures under "agent."
  agent_settings shape;
  retain::transitions memory;  ///< of the last part of training, in random order
  std::map<std::string, double> success;
  std::uint64_t seed = 0;

  static teacher_file read(const std::string& path) {
    teacher_file result;
    result.state = retain::state::read(path);
    load_shape(result.state, result.shape);
    if (!result.state.contains("memory.observation"))
      throw retain::state_error("'" + path +
                                "' is a policy without the transitions of a teacher: "
                                "`robotic_sequence pretrain` writes one");
    std::vector<retain::named_tensor> columns;
    for (const auto* name : {"observation", "action", "reward", "next", "ended"})
      columns.push_back({name, result.state.tensor(std::string("memory.") + name)});
    result.memory = retain::transitions(std::move(columns));
    for (const auto kind : known_stages)
      result.success[name_of(kind)] = result.state.number(std::string("success.") + name_of(kind));
    result.seed = result.state.integer<std::uint64_t>("seed");
    return result;
  }
};

/// Reads only the actor, from the file of a teacher or of a run.
inline actor_network read_actor(const std::string& path) {
  const auto in = retain::state::read(path);
  agent_settings shape;
  load_shape(in, shape);
  auto actor = make_actor(shape);
  load_weights(in, actor, "agent.actor.");
  return actor;
}

}  // namespace robotic_sequence
