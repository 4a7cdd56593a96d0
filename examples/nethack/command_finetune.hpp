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
#include "../common/option_checks.hpp"
#include "../common/progress.hpp"
#include "../common/resume.hpp"
#include "../common/run_log.hpp"
#include "../common/run_place.hpp"
#include "command_evaluate.hpp"
#include "demonstration_states.hpp"
#include "finetune.hpp"
#include "monitor.hpp"

namespace nethack {

/// What the command line can say; an empty optional leaves the recipe's value.
struct finetune_command {
  std::string policy = "clone.pt", demonstrations, held_out, out = "runs/finetune", name, recipe = "quick", retain = "none", resume;
  bool from_scratch = false, resume_if_possible = false, overwrite = false, discard_checkpoint = false, keep_policies = false, quiet = false;
  int turns = 2000;
  std::uint64_t seed = 1;
  double max_minutes = 0;
  std::int64_t monitor_states = 3000;
  evaluation_plan evaluation;

  std::optional<std::int64_t> steps, games, horizon, minibatch, warmup, checkpoint_every, monitor_every, ewc_states, bc_states, bc_batch;
  std::optional<int> epochs;
  std::optional<double> learning_rate, clip, discount, gae_decay, entropy, value_weight, value_clip, longest_gradient, reward_scale,
      reward_clip, warmup_rate, collect_first, l2_strength, ewc_strength, bc_strength, ks_strength, ks_factor, ks_floor;
  std::optional<std::string> critic, schedule;
  std::vector<std::string> freeze;

  std::vector<std::string> arguments;  ///< as given, for config.json

  std::string method() const {
    if (from_scratch) return "scratch";
    retention_options terms;
    terms.choose(retain);
    return terms.name();
  }
};

/// What a run that goes on need not have in common with its beginning.
inline const std::vector<std::string> may_change{"--steps", "--max-minutes", "--learning-rate", "--entropy", "--epochs", "--clip", "--longest-gradient", "--name",
                                                 "--monitor-every", "--monitor-states", "--checkpoint-every", "--keep-policies", "--discard-checkpoint",
                                                 "--evaluation-games", "--evaluation-turns", "--saves", "--saved-turns", "--repeats", "--quiet",
                                                 "--resume-if-possible", "--overwrite"};

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
  if (command.clip) settings.clip.lowest = 1 / (1 + *command.clip), settings.clip.highest = 1 + *command.clip;
  if (command.critic) settings.separate_critic = *command.critic == "separate";
  if (command.schedule) settings.schedule = *command.schedule == "linear" ? rate_schedule::linear : rate_schedule::constant;
  if (!command.freeze.empty()) settings.freeze = command.freeze;
  return settings;
}

/// Every option with the value it came to have, and what the run was made with.
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
           {{"retain", RETAIN_VERSION}, {"libtorch", TORCH_VERSION}, {"compiler", __VERSION__}, {"game", default_package}}}};
}

/// The columns of metrics.csv: all that an update and the monitor can say in this run.
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
  const run_place place{out, !command.resume.empty(), command.resume_if_possible, command.overwrite};
  const bool resuming = place.decide();
  if (command.from_scratch && command.retain != "none")
    throw std::runtime_error("--from-scratch has nothing to retain: leave out --retain");
  const auto settings = detail::settings_of(command);
  check_starts(command.evaluation);  // now, not when the training is over
  const bool has_clone = std::filesystem::exists(command.policy);
  if (!has_clone && !command.from_scratch)
    throw std::runtime_error("no policy to fine-tune in " + command.policy + ": name one with --policy; `nethack pretrain` makes it");

  at::manual_seed(settings.seed);  // of a network from scratch
  auto network = has_clone && !command.from_scratch ? load_policy(command.policy)
                                                    : policy{has_clone ? load_policy(command.policy)->config() : policy_config{}};
  at::Tensor demonstrations;
  if (settings.retention.needs_demonstrations()) {
    if (command.demonstrations.empty()) throw std::runtime_error("EWC and BC need --demonstrations, what the clone learnt from");
    const auto wanted = std::max(settings.retention.behavioral_cloning ? settings.retention.bc_states : 0, settings.retention.ewc ? 5 * settings.retention.ewc_states : 0);
    demonstrations = load_states(command.demonstrations, network->config().features(), wanted).observations;
  }
  std::optional<forgetting_monitor> monitor;
  if (!command.held_out.empty() && has_clone)
    monitor.emplace(load_states(command.held_out, network->config().features()), load_policy(command.policy), command.monitor_states);

  environment_options game_options;
  game_options.turn_cap = command.turns;
  vector_environment games(static_cast<std::size_t>(settings.games), settings.seed, game_options);
  finetuner<> learner(network, games, demonstrations, settings);
  if (resuming) learner.resume(place.checkpoint().string());
  const auto begun_at = learner.steps();
  std::filesystem::create_directories(out);
  place.clear(resuming);
  write_json(out / "config.json", detail::config_of(command, settings));
  run_log metrics(out / "metrics.csv", detail::metric_columns(settings.retention), begun_at);
  run_log episodes(out / "episodes.csv", {"step", "score", "score_1000", "depth", "turns", "steps", "ending"}, begun_at);

  progress shown("train", static_cast<double>(settings.steps), "steps");
  shown.start_at(static_cast<double>(begun_at));
  std::deque<double> recent;  // scores of the last hundred games
  std::string drift;
  double steps_per_second = 0;
  std::int64_t row_step = -1;  // of the row that still waits for what the monitor may add
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
      episodes.add(now.steps, {decimals(episode.score), decimals(episode.milestone_score), std::to_string(episode.max_depth),
                               std::to_string(episode.turns), std::to_string(episode.steps), name(episode.ending)});
      recent.push_back(episode.score);
      if (recent.size() > 100) recent.pop_front();
    }
    const std::vector<double> scores_now(recent.begin(), recent.end());
    shown.update(static_cast<double>(now.steps), "score " + decimals(statistics::mean(scores_now)) + drift);
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
    if (command.keep_policies) save_policy((out / ("policy-" + std::to_string(step) + ".pt")).string(), learner.network());
  };
  const auto begin = std::chrono::steady_clock::now();
  hooks.stop = [&] {
    const double minutes = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 60;
    return interrupt::requested() || (command.max_minutes > 0 && minutes >= command.max_minutes);
  };
  learner.run(hooks);
  if (monitor && learner.steps() > begun_at && monitored != learner.steps() && !interrupt::requested())
    hooks.monitor(learner.steps(), learner.network());  // of a run that its time limit ended
  write_row();
  shown.finish(static_cast<double>(learner.steps()), drift.empty() ? drift : drift.substr(2));
  save_policy((out / "policy.pt").string(), learner.network());
  if (interrupt::requested()) {
    std::fprintf(stderr, "stopped at step %lld and saved; to go on: ./run nethack finetune --resume %s\n", static_cast<long long>(learner.steps()),
                 out.string().c_str());
    return interrupt::exit_code;
  }

  const auto finished = learner.network();
  const auto results = run_evaluation(command.evaluation, [&](std::size_t places) { return std::make_unique<policy_player>(finished, places); });
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
  if (steps_per_second > 0) file["training"]["steps_per_second"] = steps_per_second;  // none was measured where only the evaluation was left
  if (monitor) file["monitor"] = monitor->measure(finished).named();
  write_file(out / "games.csv", games_csv(results));
  write_json(place.evaluation(), file);
  if (command.discard_checkpoint) std::filesystem::remove(place.checkpoint());
  if (!command.quiet) std::cout << summary_table(file.at("name").get<std::string>(), results) << "in " << out.string() << "\n";
  return 0;
}

namespace detail {

inline void declare_finetune(CLI::App* command, finetune_command& o) {
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // a resumed run may say something anew
  command->add_option("--policy", o.policy, "The clone to start from, and to stay close to")->capture_default_str();
  command->add_option("--retain", o.retain, "none, or what keeps the knowledge: l2, ewc, bc, ks, or several joined by + (bc+ks)")
      ->check([](const std::string& text) {
        try {
          retention_options{}.choose(text);
          return std::string();
        } catch (const retain::config_error& error) {
          return std::string(error.what());
        }
      })->capture_default_str();
  command->add_flag("--from-scratch", o.from_scratch, "Start from random weights instead (for comparison)");
  command->add_option("--recipe", o.recipe,
                      "quick: fast, and shows what plain fine-tuning forgets; careful: about half of its drift (small learning rate, no entropy "
                      "bonus, a critic of its own, warmed up); paper: as Wolczyk et al. 2024")
      ->check(CLI::IsMember({"quick", "careful", "paper"}))->capture_default_str();
  command->add_option("--demonstrations", o.demonstrations, "What the clone learnt from; EWC and BC need it");
  command->add_option("--held-out", o.held_out, "Another recording: KL and agreement with the clone are measured on it while training");
  command->add_option("--out", o.out, "Run folder: config.json, metrics.csv, episodes.csv, checkpoint.state, policy.pt, evaluation.json")
      ->capture_default_str();
  command->add_option("--name", o.name, "Name in its own table and in runs.csv");
  command->add_option("--seed", o.seed, "Seed of games, actions and batches")->capture_default_str();
  command->add_option("--steps", o.steps, "Environment steps, all games together")->check(positive_number);
  command->add_option("--turns", o.turns, "Cap of a training game, in game turns")->check(positive_number)->capture_default_str();
  command->add_option("--max-minutes", o.max_minutes, "Stop training after so long and evaluate; 0: when the steps are done")
      ->check(non_negative_number)->capture_default_str();
  command->add_option("--resume", o.resume, "Go on with the run in this folder, as it was begun; how long, how it is measured and saved, and Adam's rate may be said anew");
  command->add_flag("--resume-if-possible", o.resume_if_possible, "Go on if --out holds a checkpoint, begin otherwise");
  command->add_flag("--overwrite", o.overwrite, "Replace the run in --out");
  command->add_flag("--discard-checkpoint", o.discard_checkpoint, "Remove the checkpoint when the run is evaluated, to save room");
  command->add_flag("--keep-policies", o.keep_policies, "Keep the policy of every checkpoint as policy-STEP.pt");
  command->add_flag("--quiet", o.quiet, "No table on stdout");

  const std::string learning = "Learning (the recipe's values where not given)";
  const auto add = [&](const char* flag, auto& where, const char* text) { return command->add_option(flag, where, text)->group(learning); };
  add("--learning-rate", o.learning_rate, "Of Adam")->check(positive_number);
  add("--schedule", o.schedule, "constant, or linear: to 0 over the steps")->check(CLI::IsMember({"constant", "linear"}));
  add("--games", o.games, "Games side by side")->check(positive_number);
  add("--horizon", o.horizon, "Steps of each game between updates")->check(positive_number);
  add("--epochs", o.epochs, "Times that an update shows its steps")->check(positive_number);
  add("--minibatch", o.minibatch, "Steps of an optimiser step")->check(positive_number);
  add("--clip", o.clip, "PPO: ratios beyond 1/(1+x) ... 1+x gain nothing")->check(positive_number);
  add("--discount", o.discount, "Gamma")->check(CLI::Range(0.0, 1.0));
  add("--gae-decay", o.gae_decay, "Lambda")->check(CLI::Range(0.0, 1.0));
  add("--entropy", o.entropy, "Weight of the entropy bonus")->check(non_negative_number);
  add("--value-weight", o.value_weight, "Weight of the critic's loss")->check(non_negative_number);
  add("--value-clip", o.value_clip, "Clip of the critic's change; 0: none")->check(non_negative_number);
  add("--longest-gradient", o.longest_gradient, "Gradients are shortened to this norm; 0: never")->check(non_negative_number);
  add("--reward-scale", o.reward_scale, "Points to reward")->check(positive_number);
  add("--reward-clip", o.reward_clip, "Largest reward of a step, after scaling")->check(positive_number);
  add("--critic", o.critic, "shared trunk, or separate: its gradient does not reach the policy")->check(CLI::IsMember({"shared", "separate"}));
  add("--critic-warmup", o.warmup, "Steps at the start in which only the critic learns")->check(non_negative_number);
  add("--critic-warmup-rate", o.warmup_rate, "Learning rate in those steps")->check(positive_number);
  add("--collect-first", o.collect_first, "Share of the steps, at the start, that are played and not learnt from")->check(CLI::Range(0.0, 1.0));
  add("--freeze", o.freeze, "Names or patterns of parameters and modules that do not learn: encoder")->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add("--checkpoint-every", o.checkpoint_every, "Steps between checkpoints; 0: only at the end")->check(non_negative_number);
  add("--monitor-every", o.monitor_every, "Steps between measurements of KL and agreement; 0: never")->check(non_negative_number);
  add("--monitor-states", o.monitor_states, "Held-out states, near and far each")->check(positive_number);

  const std::string strengths = "Retention strengths (the recipe's values where not given)";
  const auto strength = [&](const char* flag, auto& where, const char* text) { command->add_option(flag, where, text)->group(strengths); };
  strength("--l2-strength", o.l2_strength, "Pull to the clone's weights");
  strength("--ewc-strength", o.ewc_strength, "The same, weighed by the Fisher information");
  strength("--ewc-states", o.ewc_states, "Demonstrated states that the Fisher information is estimated on");
  strength("--bc-strength", o.bc_strength, "KL to the clone on demonstrated states");
  strength("--bc-states", o.bc_states, "Demonstrated states kept for it");
  strength("--bc-batch", o.bc_batch, "States drawn for each optimiser step");
  strength("--ks-strength", o.ks_strength, "KL to the clone on the states that the policy visits, at the start");
  strength("--ks-factor", o.ks_factor, "Times this after each optimiser step");
  strength("--ks-floor", o.ks_floor, "Never below this");

  const std::string evaluation = "Evaluation at the end";
  command->add_option("--evaluation-games", o.evaluation.games, "New games on held-out seeds; 0: none")
      ->check(non_negative_number)->capture_default_str()->group(evaluation);
  command->add_option("--evaluation-turns", o.evaluation.turns, "Their cap, in game turns")->check(positive_number)->capture_default_str()->group(evaluation);
  command->add_option("--saves", o.evaluation.from, "Folders of saved games to play from: saves/depth3 saves/depth4")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->group(evaluation);
  command->add_option("--saved-turns", o.evaluation.saved_turns, "Their cap, in game turns")->check(positive_number)->capture_default_str()->group(evaluation);
  command->add_option("--repeats", o.evaluation.repeats, "Times that each saved game is played")->check(positive_number)->capture_default_str()->group(evaluation);

}

}  // namespace detail

/// `arguments`: the command line behind the subcommand's name.
inline void add_finetune(CLI::App& app, std::function<int()>& chosen, const std::vector<std::string>& arguments) {
  auto options = std::make_shared<finetune_command>();
  auto* command = app.add_subcommand("finetune", "Fine-tunes a clone on the real game by PPO, with or without retention, and evaluates it");
  detail::declare_finetune(command, *options);
  command->callback([&chosen, options, arguments] {
    chosen = [options, arguments] {
      options->arguments = arguments;
      if (!options->resume.empty()) return finetune(resumed_command<finetune_command>(options->resume, arguments, detail::declare_finetune, may_change));
      if (options->resume_if_possible && std::filesystem::exists(run_place{options->out}.checkpoint()))
        check_same_run<finetune_command>(options->out, arguments, detail::declare_finetune, may_change);
      return finetune(*options);
    };
  });
}

}  // namespace nethack
