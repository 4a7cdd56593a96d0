// SPDX-License-Identifier: MIT
// `nethack finetune`: reinforcement learning from a clone, into a run folder.
#pragma once

#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
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

#include "../common/interrupt.hpp"
#include "../common/progress.hpp"
#include "../common/resume.hpp"
#include "../common/run_log.hpp"
#include "../common/run_place.hpp"
#include "command_evaluate.hpp"
#include "demonstration_states.hpp"
#include "finetune.hpp"
#include "finetune_command.hpp"
#include "monitor.hpp"

namespace nethack {

namespace detail {

inline finetune_options settings_of(const finetune_command& command) {
  retention_options retention;
  retention.choose(command.retain);
  auto settings = recipe(command.recipe, retention);
  settings.seed = command.seed;
  const auto take = [](auto& setting, const auto& given) {
    if (given) setting = *given;
  };
  take(settings.steps, command.steps);
  take(settings.games, command.games);
  take(settings.horizon, command.horizon);
  take(settings.epochs, command.epochs);
  take(settings.minibatch, command.minibatch);
  take(settings.learning_rate, command.learning_rate);
  take(settings.discount, command.discount);
  take(settings.gae_decay, command.gae_decay);
  take(settings.entropy, command.entropy);
  take(settings.value_weight, command.value_weight);
  take(settings.value_clip, command.value_clip);
  take(settings.longest_gradient, command.longest_gradient);
  take(settings.reward_scale, command.reward_scale);
  take(settings.reward_clip, command.reward_clip);
  take(settings.critic_warmup, command.warmup);
  take(settings.critic_warmup_rate, command.warmup_rate);
  take(settings.collect_first, command.collect_first);
  take(settings.checkpoint_every, command.checkpoint_every);
  take(settings.monitor_every, command.monitor_every);
  take(settings.retention.l2_strength, command.l2_strength);
  take(settings.retention.ewc_strength, command.ewc_strength);
  take(settings.retention.ewc_states, command.ewc_states);
  take(settings.retention.bc_strength, command.bc_strength);
  take(settings.retention.bc_states, command.bc_states);
  take(settings.retention.bc_batch_size, command.bc_batch);
  take(settings.retention.ks_strength, command.ks_strength);
  take(settings.retention.ks_factor, command.ks_factor);
  take(settings.retention.ks_floor, command.ks_floor);
  if (command.clip)
    settings.clip.lowest = 1 / (1 + *command.clip), settings.clip.highest = 1 + *command.clip;
  if (command.critic) settings.separate_critic = *command.critic == "separate";
  if (command.schedule)
    settings.schedule =
        *command.schedule == "linear" ? rate_schedule::linear : rate_schedule::constant;
  if (!command.freeze.empty()) settings.freeze = command.freeze;
  return settings;
}

/// Every option with its final value, and the versions of the program.
inline nlohmann::json config_of(const finetune_command& command, const finetune_options& settings) {
  const auto& retention = settings.retention;
  return {{"arguments", command.arguments},
          {"working_directory", std::filesystem::current_path().string()},
          {"method", command.method()},
          {"recipe", command.recipe},
          {"policy", command.policy},
          {"demonstrations", command.demonstrations},
          {"held_out", command.held_out},
          {"turns", command.turns},
          {"backend", nethack::name(command.evaluation.source.backend)},
          {"steps", settings.steps},
          {"seed", settings.seed},
          {"games", settings.games},
          {"horizon", settings.horizon},
          {"epochs", settings.epochs},
          {"minibatch", settings.minibatch},
          {"learning_rate", settings.learning_rate},
          {"adam_epsilon", settings.adam_epsilon},
          {"schedule", settings.schedule == rate_schedule::linear ? "linear" : "constant"},
          {"clip", {settings.clip.lowest, settings.clip.highest}},
          {"ratio_bounds", {settings.clip.least_ratio, settings.clip.greatest_ratio}},
          {"discount", settings.discount},
          {"gae_decay", settings.gae_decay},
          {"entropy", settings.entropy},
          {"value_weight", settings.value_weight},
          {"value_clip", settings.value_clip},
          {"longest_gradient", settings.longest_gradient},
          {"reward_scale", settings.reward_scale},
          {"reward_clip", settings.reward_clip},
          {"critic", settings.separate_critic ? "separate" : "shared"},
          {"critic_warmup", settings.critic_warmup},
          {"critic_warmup_rate", settings.critic_warmup_rate},
          {"collect_first", settings.collect_first},
          {"freeze", settings.freeze},
          {"checkpoint_every", settings.checkpoint_every},
          {"monitor_every", settings.monitor_every},
          {"monitor_states", command.monitor_states},
          {"retention",
           {{"l2_strength", retention.l2_strength},
            {"ewc_strength", retention.ewc_strength},
            {"ewc_states", retention.ewc_states},
            {"bc_strength", retention.bc_strength},
            {"bc_states", retention.bc_states},
            {"bc_batch_size", retention.bc_batch_size},
            {"ks_strength", retention.ks_strength},
            {"ks_factor", retention.ks_factor},
            {"ks_floor", retention.ks_floor}}},
          {"versions",
           {{"retain", RETAIN_VERSION},
            {"libtorch", TORCH_VERSION},
            {"compiler", __VERSION__},
            {"game", default_package}}}};
}

/// The columns of metrics.csv: all values that an update and the monitor report in this run.
inline std::vector<std::string> metric_columns(const retention_options& retention) {
  update_report everything;
  everything.episodes.resize(1);
  const auto term = [&](bool used, const char* name) {
    if (used) everything.retention.push_back({name, at::zeros({}), 0});
  };
  term(retention.l2, retain::l2_init::name);
  term(retention.ewc, retain::ewc::name);
  term(retention.behavioral_cloning, retain::behavioral_cloning<at::Tensor, at::Tensor>::name);
  term(retention.kickstarting, retain::kickstarting<policy_teacher>::name);
  std::vector<std::string> columns{"global_step"};
  for (const auto& [name, value] : everything.named()) columns.push_back(name);
  for (const auto& [name, value] : forgetting_report{}.named()) columns.push_back(name);
  return columns;
}

}  // namespace detail

inline int finetune(const finetune_command& command) {
  const std::filesystem::path out = command.out;
  const run_place place{out, !command.resume.empty(), command.resume_if_possible,
                        command.overwrite};
  const bool resuming = place.decide();
  if (command.from_scratch && command.retain != "none")
    throw std::runtime_error("--from-scratch has nothing to retain: remove --retain");
  const auto settings = detail::settings_of(command);
  check_starts(command.evaluation);  // before the training
  const bool has_clone = std::filesystem::exists(command.policy);
  if (!has_clone && !command.from_scratch)
    throw std::runtime_error("no policy to fine-tune in " + command.policy +
                             ": name one with --policy; `nethack pretrain` makes one");

  at::manual_seed(settings.seed);  // of a network from scratch
  auto network = has_clone && !command.from_scratch
                     ? load_policy(command.policy)
                     : policy{has_clone ? load_policy(command.policy)->config() : policy_config{}};
  at::Tensor demonstrations;
  if (settings.retention.needs_demonstrations()) {
    if (command.demonstrations.empty())
      throw std::runtime_error("EWC and BC need --demonstrations, the clone's training data");
    const auto wanted =
        std::max(settings.retention.behavioral_cloning ? settings.retention.bc_states : 0,
                 settings.retention.ewc ? 5 * settings.retention.ewc_states : 0);
    demonstrations =
        load_states(command.demonstrations, network->config().features(), wanted).observations;
  }
  std::optional<forgetting_monitor> monitor;
  if (!command.held_out.empty() && has_clone)
    monitor.emplace(load_states(command.held_out, network->config().features()),
                    load_policy(command.policy), command.monitor_states);

  environment_options game_options;
  game_options.turn_cap = command.turns;
  game_options.source = command.evaluation.source;
  vector_environment games(static_cast<std::size_t>(settings.games), settings.seed, game_options);
  finetuner<> learner(network, games, demonstrations, settings);
  if (resuming) learner.resume(place.checkpoint().string());
  const auto begun_at = learner.steps();
  place.check_steps(begun_at, settings.steps, settings.games * settings.horizon);
  std::filesystem::create_directories(out);
  place.clear(resuming);
  write_json(out / "config.json", detail::config_of(command, settings));
  run_log metrics(out / "metrics.csv", detail::metric_columns(settings.retention), begun_at);
  run_log episodes(out / "episodes.csv",
                   {"step", "score", "score_1000", "depth", "turns", "steps", "ending"}, begun_at);

  progress shown("train", static_cast<double>(settings.steps), "steps");
  shown.start_at(static_cast<double>(begun_at));
  std::deque<double> recent;  // scores of the last hundred games
  std::string drift;
  double steps_per_second = 0;
  std::int64_t row_step = -1;  // of the row that waits for the monitor's values
  std::map<std::string, double> row;
  const auto write_row = [&] {
    if (row_step >= 0) metrics.add(row_step, row);
    row_step = -1;
    row.clear();
  };
  finetune_hooks hooks;
  hooks.updated = [&](const update_report& now) {
    write_row();
    row_step = now.steps;
    row = now.named();
    steps_per_second = now.steps_per_second;
    for (const auto& episode : now.episodes) {
      episodes.add(now.steps, {decimals(episode.score), decimals(episode.milestone_score),
                               std::to_string(episode.max_depth), std::to_string(episode.turns),
                               std::to_string(episode.steps), name(episode.ending)});
      recent.push_back(episode.score);
      if (recent.size() > 100) recent.pop_front();
    }
    const std::vector<double> scores_now(recent.begin(), recent.end());
    shown.update(static_cast<double>(now.steps),
                 "score " + decimals(statistics::mean(scores_now)) + drift);
  };
  std::int64_t monitored = -1;
  if (monitor)
    hooks.monitor = [&](std::int64_t step, policy student) {
      monitored = step;
      const auto report = monitor->measure(student);
      row_step = step;
      row.merge(report.named());
      drift = ", KL near " + decimals(report.close.kl, 3) + " far " + decimals(report.far.kl, 3);
    };
  hooks.checkpoint = [&](std::int64_t step) {
    write_row();
    learner.save(place.checkpoint().string());
    if (command.keep_policies)
      save_policy((out / ("policy-" + std::to_string(step) + ".pt")).string(), learner.network());
  };
  const auto begin = std::chrono::steady_clock::now();
  hooks.stop = [&] {
    const double minutes =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 60;
    return interrupt::requested() || (command.max_minutes > 0 && minutes >= command.max_minutes);
  };
  learner.run(hooks);
  if (monitor && learner.steps() > begun_at && monitored != learner.steps() &&
      !interrupt::requested())
    hooks.monitor(learner.steps(), learner.network());  // for a run that its time limit ended
  write_row();
  shown.finish(static_cast<double>(learner.steps()), drift.empty() ? drift : drift.substr(2));
  save_policy((out / "policy.pt").string(), learner.network());
  if (interrupt::requested()) {
    std::fprintf(
        stderr, "stopped at step %lld and saved; to continue: ./run nethack finetune --resume %s\n",
        static_cast<long long>(learner.steps()), out.string().c_str());
    return interrupt::exit_code;
  }

  const auto finished = learner.network();
  const auto results = run_evaluation(command.evaluation, [&](std::size_t places) {
    return std::make_unique<policy_player>(finished, places);
  });
  nlohmann::json file{{"who", "policy"},
                      {"name", command.name.empty() ? command.method() : command.name},
                      {"policy", (out / "policy.pt").string()},
                      {"turns", command.evaluation.turns},
                      {"starts", to_json(results)},
                      {"training",
                       {{"method", command.method()},
                        {"recipe", command.recipe},
                        {"seed", settings.seed},
                        {"steps", learner.steps()},
                        {"turns", command.turns},
                        {"games_replaced", games.replaced()}}}};
  // 0: only the evaluation was left to do
  if (steps_per_second > 0) file["training"]["steps_per_second"] = steps_per_second;
  if (monitor) file["monitor"] = monitor->measure(finished).named();
  write_file(out / "games.csv", games_csv(results));
  write_json(place.evaluation(), file);
  if (command.discard_checkpoint) std::filesystem::remove(place.checkpoint());
  if (!command.quiet)
    std::cout << summary_table(file.at("name").get<std::string>(), results) << "in " << out.string()
              << "\n";
  return 0;
}

/// `arguments`: the command line after the name of the subcommand.
inline void add_finetune(CLI::App& app, std::function<int()>& chosen,
                         const std::vector<std::string>& arguments) {
  auto options = std::make_shared<finetune_command>();
  auto* command = app.add_subcommand(
      "finetune",
      "Fine-tunes a clone on the real game by PPO, with or without retention, and evaluates it");
  declare_finetune(command, *options);
  command->callback([&chosen, command, options, arguments] {
    chosen = [command, options, arguments] {
      options->arguments = arguments;
      if (options->resume.empty())
        note_unused_options(*command, retention_named<retention_options>(options->retain).terms());
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

}  // namespace nethack
