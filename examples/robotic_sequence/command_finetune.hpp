// SPDX-License-Identifier: MIT
// `robotic_sequence finetune`: the whole sequence, from a policy that knows its last two stages.
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

#include "../common/files.hpp"
#include "../common/option_checks.hpp"
#include "../common/resume.hpp"
#include "run.hpp"
#include "teacher.hpp"

namespace robotic_sequence {

struct finetune_command {
  std::string teacher = "runs/robot-teacher/teacher.pt", out = "runs/robot", retain = "none", fisher = "gaussian", resume;
  bool from_scratch = false, resume_if_possible = false, overwrite = false, discard_checkpoint = false, quiet = false;
  int stages = 4, final_episodes = 100;
  std::int64_t checkpoint_every = 20'000;
  training_settings learning;
  retention_settings kept;
  std::vector<std::string> arguments;  ///< as given, for config.json

  std::string method() const { return from_scratch ? "scratch" : retain; }
};

/// What a run that goes on need not have in common with its beginning.
inline const std::vector<std::string> may_change{"--steps", "--learning-rate", "--evaluate-every", "--evaluation-episodes", "--final-episodes",
                                                 "--checkpoint-every", "--discard-checkpoint", "--quiet", "--resume-if-possible", "--overwrite"};

inline void declare_finetune(CLI::App* command, finetune_command& o) {
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // a resumed run may say something anew
  command->add_option("--teacher", o.teacher, "What to start from and to stay close to: teacher.pt of `robotic_sequence pretrain`")->capture_default_str();
  command->add_option("--retain", o.retain, "none, or what keeps the knowledge: l2, ewc, bc, em, ks, or several joined by + (bc+em)")
      ->check([](const std::string& text) {
        try {
          retention_settings{}.choose(text);
          return std::string();
        } catch (const std::exception& error) {
          return std::string(error.what());
        }
      })->capture_default_str();
  command->add_flag("--from-scratch", o.from_scratch, "Start from random weights instead (for comparison)");
  command->add_option("--stages", o.stages, "The last 3 to 6 of window, faucet, press, push, unplug, push-wall")->check(CLI::Range(3, 6))->capture_default_str();
  command->add_option("--fisher", o.fisher, "gaussian: exact, before the squash; continual-world: mean after the squash, heads excluded, floor 1e-5")
      ->check(CLI::IsMember({"gaussian", "continual-world"}))->capture_default_str();
  command->add_option("--out", o.out, "Run folder: config.json, metrics.csv, checkpoint.state, policy.pt, evaluation.json")->capture_default_str();
  command->add_option("--resume", o.resume, "Go on with the run in this folder, as it was begun; how long, how it is measured and saved, and Adam's rate may be said anew");
  command->add_flag("--resume-if-possible", o.resume_if_possible, "Go on if --out holds a checkpoint, begin otherwise");
  command->add_flag("--overwrite", o.overwrite, "Replace the run in --out");
  command->add_flag("--discard-checkpoint", o.discard_checkpoint, "Remove the checkpoint when the run is evaluated, to save room");
  command->add_option("--checkpoint-every", o.checkpoint_every, "Steps between checkpoints; 0: only at the end")->check(non_negative_number)->capture_default_str();
  command->add_option("--final-episodes", o.final_episodes, "Episodes from each stage at the end")->check(positive_number)->capture_default_str();
  command->add_flag("--quiet", o.quiet, "No table on stdout");
  const auto add = [&](const char* flag, auto& where, const char* text) {
    command->add_option(flag, where, text)->check(non_negative_number)->capture_default_str();
  };
  add("--seed", o.learning.seed, "Of weights, world and batches");
  add("--steps", o.learning.steps, "Decisions; one update each");
  add("--learning-rate", o.learning.agent.learning_rate, "Adam's");
  add("--capacity", o.learning.capacity, "Transitions that the buffer keeps");
  add("--evaluate-every", o.learning.evaluate_every, "Steps between evaluations");
  command->add_option("--evaluation-episodes", o.learning.evaluation_episodes, "Episodes from each stage in each of them")->check(positive_number)->capture_default_str();
  add("--alpha-floor", o.learning.agent.alpha_floor, "Least temperature of any stage");
  command->add_option("--value-bound", o.learning.agent.value_bound, "Critics are taught no value beyond this, above or below 0; a large number for no bound")
      ->check(positive_number)->capture_default_str();
  add("--known-alpha-cap", o.learning.agent.known_alpha_cap, "Greatest temperature of the pre-trained stages");
  add("--l2-strength", o.kept.l2_strength, "Pull to the teacher's weights");
  add("--ewc-strength", o.kept.ewc_strength, "The same, weighed by the Fisher information");
  add("--bc-strength", o.kept.bc_strength, "KL to the teacher on states of its memory");
  command->add_option("--bc-batch", o.kept.bc_batch, "States drawn for each update")->check(positive_number)->capture_default_str();
  add("--ks-strength", o.kept.ks_strength, "KL to the teacher on the states of the batch, at the start");
  add("--ks-factor", o.kept.ks_factor, "Times this after each update");
  command->add_option("--memory", o.kept.memory, "The teacher's transitions that BC clones on and EM protects; all that it kept, if they are fewer")
      ->check(positive_number)->capture_default_str();
}

/// The strengths of the terms in use, and what episodic memory protects.
inline nlohmann::json strengths_of(const retention_settings& kept) {
  nlohmann::json used = nlohmann::json::object();
  if (kept.l2) used["l2"] = kept.l2_strength;
  if (kept.ewc) used["ewc"] = kept.ewc_strength;
  if (kept.bc) used["bc"] = kept.bc_strength;
  if (kept.ks) used["ks"] = {{"strength", kept.ks_strength}, {"factor", kept.ks_factor}};
  if (kept.bc || kept.em) used["memory"] = kept.memory;
  return used;
}

inline int finetune(finetune_command command) {
  if (command.from_scratch && command.retain != "none") throw std::runtime_error("--from-scratch has nothing to retain: leave out --retain");
  if (!std::filesystem::exists(command.teacher))
    throw std::runtime_error("no teacher in " + command.teacher + ": name one with --teacher; `robotic_sequence pretrain` makes it");
  const run_place place{command.out, !command.resume.empty(), command.resume_if_possible, command.overwrite, command.checkpoint_every};
  const bool resuming = place.decide();
  const auto teacher = teacher_file::read(command.teacher);
  const auto stages = tail(command.stages);
  auto& settings = command.learning;
  auto& kept = command.kept;
  kept.choose(command.retain);
  kept.fisher = command.fisher == "gaussian" ? fisher_kind::gaussian : fisher_kind::continual_world;
  settings.agent.width = teacher.shape.width;
  settings.agent.one_hot = teacher.shape.one_hot;
  if (command.from_scratch) settings.random_steps = 2'000;

  sac_agent agent(settings.agent, command.from_scratch ? std::vector<bool>{} : known_kinds(), settings.seed);
  if (!command.from_scratch) agent.begin_with(teacher.state, "agent.");
  auto actor = agent.actor();
  std::optional<retention_terms> terms;
  if (kept.any_term()) terms.emplace(make_retention(actor, teacher.memory["observation"], kept, stream_seed(settings.seed, random_stream::cloning)));
  const auto protected_rows = kept.em ? teacher.memory.narrow(0, std::min(kept.memory, teacher.memory.size())) : retain::transitions{};
  learner learning(agent, stages, settings, episode_kind::whole, protected_rows, std::move(terms), kept);
  if (resuming) learning.load_state(retain::state::read(place.checkpoint().string()), "learner.");

  std::vector<std::string> stage_names, term_names;
  for (const auto kind : stages) stage_names.emplace_back(name_of(kind));
  if (kept.l2) term_names.emplace_back(retain::l2_init::name);
  if (kept.ewc) term_names.emplace_back(retain::ewc::name);
  if (kept.bc) term_names.emplace_back(cloning_term::name);
  if (kept.ks) term_names.emplace_back(retain::kickstarting<actor_teacher>::name);
  place.clear(resuming);
  write_json(place.folder / "config.json", {{"arguments", command.arguments},
                                            {"working_directory", std::filesystem::current_path().string()},
                                            {"method", command.method()},
                                            {"fisher", command.fisher},
                                            {"stages", stage_names},
                                            {"teacher", command.teacher},
                                            {"seed", settings.seed},
                                            {"capacity", settings.capacity},
                                            {"value_bound", settings.agent.value_bound},
                                            {"retention", strengths_of(kept)},
                                            {"versions", {{"retain", RETAIN_VERSION}, {"libtorch", TORCH_VERSION}, {"compiler", __VERSION__}}}});
  const bool finished = run_training(learning, agent, stages, place, command.method(), term_names);
  retain::state policy;
  save_shape(policy, settings.agent);
  agent.save_networks(policy, "agent.");
  policy.write((place.folder / "policy.pt").string());
  if (!finished) {
    std::fprintf(stderr, "stopped at step %lld and saved; to go on: ./run robotic_sequence finetune --resume %s\n", static_cast<long long>(learning.steps()),
                 place.folder.string().c_str());
    return interrupt::exit_code;
  }

  const auto success = measure_success(actor, stages, command.final_episodes, settings.seed * 31 + 999'999'937u);
  nlohmann::json evaluation{{"method", command.method()},
                            {"fisher", command.fisher},
                            {"stages", stage_names},
                            {"retention", strengths_of(kept)},
                            {"seed", settings.seed},
                            {"steps", learning.steps()},
                            {"episodes", command.final_episodes},
                            {"teacher", {{"file", command.teacher}, {"seed", teacher.seed}, {"success", teacher.success}}},
                            {"success", success}};
  if (learning.steps_per_second() > 0) evaluation["steps_per_second"] = learning.steps_per_second();  // 0: it went on from its last step
  if (learning.updates_per_second() > 0) evaluation["updates_per_second"] = learning.updates_per_second();
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

/// `arguments`: the command line behind the subcommand's name.
inline void add_finetune(CLI::App& app, std::function<int()>& chosen, const std::vector<std::string>& arguments) {
  auto options = std::make_shared<finetune_command>();
  auto* command = app.add_subcommand("finetune", "Trains a teacher on the whole sequence, with or without retention");
  declare_finetune(command, *options);
  command->callback([&chosen, options, arguments] {
    chosen = [options, arguments] {
      options->arguments = arguments;
      if (!options->resume.empty()) return finetune(resumed_command<finetune_command>(options->resume, arguments, declare_finetune, may_change));
      if (options->resume_if_possible && std::filesystem::exists(run_place{options->out}.checkpoint()))
        check_same_run<finetune_command>(options->out, arguments, declare_finetune, may_change);
      return finetune(*options);
    };
  });
}

}  // namespace robotic_sequence
