// SPDX-License-Identifier: MIT
// `robotic_sequence evaluate`: the success rate of a policy in each stage and in the whole
// sequence.
#pragma once

#include <cstdint>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "../common/option_checks.hpp"
#include "../common/table.hpp"
#include "command_play.hpp"
#include "evaluate.hpp"
#include "teacher.hpp"

namespace robotic_sequence {

inline void add_evaluate(CLI::App& app, std::function<int()>& chosen) {
  struct evaluate_command {
    std::string policy;
    int stages = 4, episodes = 100;
    std::uint64_t seed = 1;
  };
  auto o = std::make_shared<evaluate_command>();
  auto* command = app.add_subcommand(
      "evaluate", "Measures the success from the start of each stage and in the whole sequence");
  command->add_option("--policy", o->policy, "policy.pt of a run, or teacher.pt")->required();
  command
      ->add_option("--stages", o->stages,
                   "The last 2 to 6 of window, faucet, press, push, unplug, push-wall")
      ->check(CLI::Range(2, 6))
      ->capture_default_str();
  command->add_option("--episodes", o->episodes, "Episodes from each stage")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--seed", o->seed, "Seed of the positions of all objects")
      ->check(non_negative_number)
      ->capture_default_str();
  command->callback([&chosen, o] {
    chosen = [o] {
      const auto stages = tail(o->stages);
      const auto success = measure_success(read_actor(o->policy), stages, o->episodes, o->seed);
      text_table lines({"start", "success"});
      for (const auto kind : stages)
        lines.add({name_of(kind), decimals(success.at(name_of(kind)), 2)});
      lines.add({"first stage, all stages in one episode", decimals(success.at("all"), 2)});
      std::cout << lines.markdown();
      return 0;
    };
  });
}

/// Returns the mode of a saved policy, for `play`.
inline player saved_player(const std::string& file, const std::vector<stage_kind>& stages) {
  return [actor = read_actor(file), stages](const float* observation, int stage,
                                            float* action) mutable {
    const at::NoGradGuard no_grad;
    auto row = at::zeros({1, observation_width});
    std::copy_n(observation, sequence::observation_size, row.data_ptr<float>());
    row.data_ptr<float>()[sequence::observation_size +
                          static_cast<int>(stages[static_cast<std::size_t>(stage)])] = 1;
    const auto said = actor->forward(row).mode().contiguous();
    std::copy_n(said.data_ptr<float>(), sequence::action_size, action);
  };
}

}  // namespace robotic_sequence
