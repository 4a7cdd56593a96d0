// SPDX-License-Identifier: MIT
// `robotic_sequence finetune`: trains on the whole sequence, from a policy that was trained on the
// last two stages.
#pragma once

#include <torch/version.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <retain/monitor.hpp>
#include <retain/teacher.hpp>

#include "../common/files.hpp"
#include "../common/resume.hpp"
#include "finetune_options.hpp"
#include "run.hpp"
#include "teacher.hpp"

namespace robotic_sequence {

/// The settings that must be equal for two runs to be comparable, besides method and seed.
inline nlohmann::json to_json(const training_settings& settings) {
  return {{"width", settings.agent.width},
          {"one_hot", settings.agent.one_hot},
          {"learning_rate", settings.agent.learning_rate},
          {"capacity", settings.capacity},
          {"value_bound", settings.agent.value_bound},
          {"alpha_floor", settings.agent.alpha_floor},
          {"known_alpha_cap", settings.agent.known_alpha_cap}};
}

/// The strengths of the terms in use, and the settings of the memory.
inline nlohmann::json strengths_of(const retention_settings& kept, std::int64_t memory_rows) {
  nlohmann::json used = nlohmann::json::object();
  if (kept.l2) used["l2"] = kept.l2_strength;
  if (kept.ewc) used["ewc"] = kept.ewc_strength, used["fisher_states"] = kept.fisher_states;
  if (kept.bc) used["bc"] = kept.bc_strength, used["bc_batch"] = kept.bc_batch;
  if (kept.ks) used["ks"] = {{"strength", kept.ks_strength}, {"factor", kept.ks_factor}};
  if (kept.hold_kl > 0) used["hold_kl"] = kept.hold_kl;
  // the requested size, and the size that the teacher has
  if (kept.bc || kept.em) used["memory"] = kept.memory, used["memory_rows"] = memory_rows;
  return used;
}

inline int finetune(finetune_command command) {
  if (command.from_scratch && command.retain != "none")
    throw std::runtime_error("--from-scratch has nothing to retain: remove --retain");
  if (!std::filesystem::exists(command.teacher))
    throw std::runtime_error("no teacher in " + command.teacher +
                             ": name one with --teacher; `robotic_sequence pretrain` makes it");
  const run_place place{command.out, !command.resume.empty(), command.resume_if_possible,
                        command.overwrite, command.checkpoint_every};
  const bool resuming = place.decide();
  const auto teacher = teacher_file::read(command.teacher);
  const auto stages = tail(command.stages);
  auto& settings = command.learning;
  auto& kept = command.kept;
  kept.choose(command.retain);
  const auto memory_rows = std::min(kept.memory, teacher.memory.size());
  if (settings.agent.alpha_floor > settings.agent.known_alpha_cap && !command.from_scratch)
    throw std::runtime_error("--alpha-floor " + decimals(settings.agent.alpha_floor, 4) +
                             " is above --known-alpha-cap " +
                             decimals(settings.agent.known_alpha_cap, 4));
  if (kept.em && memory_rows >= settings.capacity)
    throw std::runtime_error("--memory: " + std::to_string(memory_rows) +
                             " transitions of the teacher leave no space in a --capacity of " +
                             std::to_string(settings.capacity));
  kept.fisher = command.fisher == "gaussian" ? fisher_kind::gaussian : fisher_kind::continual_world;
  settings.agent.width = teacher.shape.width;
  settings.agent.one_hot = teacher.shape.one_hot;
  if (command.from_scratch) settings.random_steps = 2'000;

  sac_agent agent(settings.agent, command.from_scratch ? std::vector<bool>{} : known_kinds(),
                  settings.seed);
  if (!command.from_scratch) agent.begin_with(teacher.state, "agent.");
  auto actor = agent.actor();
  retention_terms terms;
  if (kept.any_term())
    terms = make_retention(actor, teacher.memory["observation"], kept,
                           stream_seed(settings.seed, random_stream::cloning));
  const auto protected_rows =
      kept.em ? teacher.memory.narrow(0, memory_rows) : retain::transitions{};
  learner learning(agent, stages, settings, episode_kind::whole, protected_rows, std::move(terms),
                   kept);
  // KL(teacher || actor) on states of the memory
  std::optional<retain::monitor<retain::teacher<actor_network>>> watch;
  run_measure far;
  if (kept.hold_kl > 0) {
    watch.emplace(retain::teacher{actor});
    const auto states = teacher.memory["observation"];
    watch->add("far", states.narrow(0, 0, std::min<std::int64_t>(1'000, states.size(0))));
    far.column = "far/kl";
    far.measure = [&](std::int64_t steps) {
      watch->measure(actor, static_cast<double>(steps));
      for (const auto& name : learning.retention().names())
        learning.retention().adapt(name, *watch, "far", kept.hold_kl);
      return watch->kl("far");
    };
    far.save = [&](retain::state& out) { watch->save_state(out, "monitor."); };
  }
  if (resuming) {
    const auto in = retain::state::read(place.checkpoint().string());
    learning.load_state(in, "learner.");
    if (watch) watch->load_state(in, "monitor.");
  }
  place.check_steps(learning.steps(), settings.steps);

  std::vector<std::string> stage_names;
  for (const auto kind : stages) stage_names.emplace_back(name_of(kind));
  place.clear(resuming);
  write_json(
      place.folder / "config.json",
      {{"arguments", command.arguments},
       {"working_directory", std::filesystem::current_path().string()},
       {"method", command.method()},
       {"fisher", command.fisher},
       {"stages", stage_names},
       {"teacher", command.teacher},
       {"seed", settings.seed},
       {"settings", to_json(settings)},
       {"retention", strengths_of(kept, memory_rows)},
       {"versions",
        {{"retain", RETAIN_VERSION}, {"libtorch", TORCH_VERSION}, {"compiler", __VERSION__}}}});
  const bool finished = run_training(learning, agent, stages, place, command.method(), far);
  retain::state policy;
  save_shape(policy, settings.agent);
  agent.save_networks(policy, "agent.");
  policy.write((place.folder / "policy.pt").string());
  if (!finished) {
    std::fprintf(stderr,
                 "stopped at step %lld and saved; to continue: ./run robotic_sequence finetune "
                 "--resume %s\n",
                 static_cast<long long>(learning.steps()), place.folder.string().c_str());
    return interrupt::exit_code;
  }

  const auto success =
      measure_success(actor, stages, command.final_episodes, settings.seed * 31 + 999'999'937u);
  nlohmann::json evaluation{
      {"method", command.method()},
      {"fisher", command.fisher},
      {"stages", stage_names},
      {"settings", to_json(settings)},
      {"retention", strengths_of(kept, memory_rows)},
      {"seed", settings.seed},
      {"steps", learning.steps()},
      {"episodes", command.final_episodes},
      {"teacher",
       {{"file", command.teacher}, {"seed", teacher.seed}, {"success", teacher.success}}},
      {"success", success}};
  // 0: the run was resumed at its last step
  if (learning.steps_per_second() > 0) evaluation["steps_per_second"] = learning.steps_per_second();
  if (learning.updates_per_second() > 0)
    evaluation["updates_per_second"] = learning.updates_per_second();
  write_json(place.evaluation(), evaluation);
  if (command.discard_checkpoint) std::filesystem::remove(place.checkpoint());
  if (!command.quiet) {
    text_table lines({command.method(), "success"});
    for (const auto& name : stage_names) lines.add({name, decimals(success.at(name), 2)});
    lines.add({"all in one episode", decimals(success.at("all"), 2)});
    std::cout << lines.markdown() << "in " << place.folder.string() << "\n";
  }
  return 0;
}

/// `arguments`: the command line after the name of the subcommand.
inline void add_finetune(CLI::App& app, std::function<int()>& chosen,
                         const std::vector<std::string>& arguments) {
  auto options = std::make_shared<finetune_command>();
  auto* command = app.add_subcommand(
      "finetune", "Trains a teacher on the whole sequence, with or without retention");
  declare_finetune(command, *options);
  command->callback([&chosen, command, options, arguments] {
    chosen = [command, options, arguments] {
      options->arguments = arguments;
      if (options->resume.empty())
        note_unused_options(*command, retention_named<retention_settings>(options->retain).terms(),
                            {{"--fisher", {"ewc"}}, {"--memory", {"bc", "em"}}});
      if (!options->resume.empty())
        return finetune(resumed_command<finetune_command>(options->resume, arguments,
                                                          declare_finetune, may_change));
      if (options->resume_if_possible &&
          std::filesystem::exists(run_place{options->out}.checkpoint()))
        check_same_run<finetune_command>(options->out, arguments, declare_finetune, may_change);
      return finetune(*options);
    };
  });
}

}  // namespace robotic_sequence
