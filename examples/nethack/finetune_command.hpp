// SPDX-License-Identifier: MIT
// The command line of `nethack finetune`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "../common/option_checks.hpp"
#include "../common/retention_options.hpp"
#include "evaluation_plan.hpp"
#include "finetune_options.hpp"
#include "source_options.hpp"

namespace nethack {

/// The options of the command line; an empty optional keeps the recipe's value.
struct finetune_command {
  std::string policy = "clone.pt", demonstrations, held_out, out = "runs/finetune", name,
              recipe = "quick", retain = "none", resume;
  bool from_scratch = false, resume_if_possible = false, overwrite = false,
       discard_checkpoint = false, keep_policies = false, quiet = false;
  int turns = 2000;
  std::uint64_t seed = 1;
  double max_minutes = 0;
  std::int64_t monitor_states = 3000;
  evaluation_plan evaluation;

  std::optional<std::int64_t> steps, games, horizon, minibatch, warmup, checkpoint_every,
      monitor_every, ewc_states, bc_states, bc_batch;
  std::optional<int> epochs;
  std::optional<double> learning_rate, clip, discount, gae_decay, entropy, value_weight, value_clip,
      longest_gradient, reward_scale, reward_clip, warmup_rate, collect_first, l2_strength,
      ewc_strength, bc_strength, ks_strength, ks_factor, ks_floor;
  std::optional<std::string> critic, schedule;
  std::vector<std::string> freeze;

  std::vector<std::string> arguments;  ///< as given, for config.json

  std::string method() const {
    return from_scratch ? "scratch" : retention_named<retention_options>(retain).name();
  }
};

/// The options that may change when a run is resumed.
inline const std::vector<std::string> may_change{"--steps",
                                                 "--max-minutes",
                                                 "--learning-rate",
                                                 "--entropy",
                                                 "--epochs",
                                                 "--clip",
                                                 "--longest-gradient",
                                                 "--name",
                                                 "--monitor-every",
                                                 "--monitor-states",
                                                 "--checkpoint-every",
                                                 "--keep-policies",
                                                 "--discard-checkpoint",
                                                 "--nle",
                                                 "--evaluation-games",
                                                 "--evaluation-turns",
                                                 "--saves",
                                                 "--saved-turns",
                                                 "--repeats",
                                                 "--quiet",
                                                 "--resume-if-possible",
                                                 "--overwrite"};

inline void declare_finetune(CLI::App* command, finetune_command& o) {
  // a resumed run may repeat these options with other values
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  command->add_option("--policy", o.policy, "The clone: the start of fine-tuning and of retention")
      ->capture_default_str();
  command
      ->add_option(
          "--retain", o.retain,
          "none, or the methods of retention: l2, ewc, bc, ks, or several joined by + (bc+ks)")
      ->check(retention_check<retention_options>())
      ->capture_default_str();
  command->add_flag("--from-scratch", o.from_scratch,
                    "Start from random weights instead of the clone, for comparison");
  command
      ->add_option(
          "--recipe", o.recipe,
          "quick: fast, and plain fine-tuning forgets; careful: the policy changes about half as "
          "much (small learning rate, no entropy bonus, a separate critic with warm-up); paper: as "
          "Wolczyk et al. 2024")
      ->check(CLI::IsMember({"quick", "careful", "paper"}))
      ->capture_default_str();
  command->add_option("--demonstrations", o.demonstrations,
                      "The training data of the clone; EWC and BC need them");
  command->add_option(
      "--held-out", o.held_out,
      "Another recording, on which KL and agreement with the clone are measured in training");
  command
      ->add_option("--out", o.out,
                   "Run folder: config.json, metrics.csv, episodes.csv, checkpoint.state, "
                   "policy.pt, evaluation.json")
      ->capture_default_str();
  command->add_option("--name", o.name, "Name in the table of the run and in runs.csv");
  command->add_option("--seed", o.seed, "Seed of games, actions and batches")
      ->capture_default_str();
  command->add_option("--steps", o.steps, "Environment steps over all games")
      ->check(positive_number);
  add_source_options(command, o.evaluation.source);
  command->add_option("--turns", o.turns, "Cap of a training game, in game turns")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--max-minutes", o.max_minutes,
                   "Time limit of training in minutes, before the evaluation; 0: no limit")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option(
      "--resume", o.resume,
      "Continue the run in this folder with its own options; only steps, learning rate, "
      "evaluation and checkpoint options may change");
  command->add_flag("--resume-if-possible", o.resume_if_possible,
                    "Continue if --out has a checkpoint; otherwise start a new run");
  command->add_flag("--overwrite", o.overwrite, "Replace the run in --out");
  command->add_flag("--discard-checkpoint", o.discard_checkpoint,
                    "Remove the checkpoint after the final evaluation, to save disk space");
  command->add_flag("--keep-policies", o.keep_policies,
                    "Keep the policy of every checkpoint as policy-STEP.pt");
  command->add_flag("--quiet", o.quiet, "No table on stdout");

  const std::string learning = "Learning (defaults: the values of the recipe)";
  const auto add = [&](const char* flag, auto& where, const char* text) {
    return command->add_option(flag, where, text)->group(learning);
  };
  add("--learning-rate", o.learning_rate, "Learning rate of Adam")->check(positive_number);
  add("--schedule", o.schedule, "constant, or linear: falls to 0 over the steps")
      ->check(CLI::IsMember({"constant", "linear"}));
  add("--games", o.games, "Number of parallel games")->check(positive_number);
  add("--horizon", o.horizon, "Steps of each game between updates")->check(positive_number);
  add("--epochs", o.epochs, "Passes over the steps in an update")->check(positive_number);
  add("--minibatch", o.minibatch, "Environment steps per optimizer step")->check(positive_number);
  add("--clip", o.clip, "PPO's clipping range: ratios are clipped to 1/(1+x) ... 1+x")
      ->check(positive_number);
  add("--discount", o.discount, "Gamma")->check(CLI::Range(0.0, 1.0));
  add("--gae-decay", o.gae_decay, "Lambda")->check(CLI::Range(0.0, 1.0));
  add("--entropy", o.entropy, "Weight of the entropy bonus")->check(non_negative_number);
  add("--value-weight", o.value_weight, "Weight of the critic's loss")->check(non_negative_number);
  add("--value-clip", o.value_clip, "Clipping range of the critic's change; 0: none")
      ->check(non_negative_number);
  add("--longest-gradient", o.longest_gradient,
      "Norm to which gradients are clipped; 0: no clipping")
      ->check(non_negative_number);
  add("--reward-scale", o.reward_scale, "Factor from points to reward")->check(positive_number);
  add("--reward-clip", o.reward_clip, "Largest reward of a step, after scaling")
      ->check(positive_number);
  add("--critic", o.critic,
      "shared: one trunk with the policy; separate: the critic's gradient does not change the "
      "policy")
      ->check(CLI::IsMember({"shared", "separate"}));
  add("--critic-warmup", o.warmup, "Steps at the start in which only the critic learns")
      ->check(non_negative_number);
  add("--critic-warmup-rate", o.warmup_rate, "Learning rate during the warm-up")
      ->check(positive_number);
  add("--collect-first", o.collect_first,
      "Share of the steps at the start from which nothing is learned")
      ->check(CLI::Range(0.0, 1.0));
  add("--freeze", o.freeze, "Names or patterns of parameters and modules that are frozen: encoder")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add("--checkpoint-every", o.checkpoint_every, "Steps between checkpoints; 0: only at the end")
      ->check(non_negative_number);
  add("--monitor-every", o.monitor_every,
      "Steps between measurements of KL and agreement; 0: never")
      ->check(non_negative_number);
  add("--monitor-states", o.monitor_states, "Held-out states in each of CLOSE and FAR")
      ->check(positive_number);

  const std::string strengths = "Retention strengths (defaults: the values of the recipe)";
  const auto strength = [&](const char* flag, auto& where, const char* text) {
    command->add_option(flag, where, text)->group(strengths);
  };
  strength("--l2-strength", o.l2_strength,
           "L2 strength: penalty on the distance to the clone's weights");
  strength("--ewc-strength", o.ewc_strength,
           "EWC strength: the same penalty, weighted by the Fisher information");
  strength("--ewc-states", o.ewc_states,
           "Number of demonstrated states for the Fisher information");
  strength("--bc-strength", o.bc_strength,
           "Strength of the KL to the clone on demonstrated states");
  strength("--bc-states", o.bc_states, "Number of demonstrated states for BC");
  strength("--bc-batch", o.bc_batch, "States drawn for each optimizer step");
  strength("--ks-strength", o.ks_strength,
           "Initial strength of the KL to the clone on the states that the policy visits");
  strength("--ks-factor", o.ks_factor,
           "Factor that multiplies the KS strength after each optimizer step");
  strength("--ks-floor", o.ks_floor, "Lower limit of the KS strength");

  const std::string evaluation = "Evaluation at the end";
  command
      ->add_option("--evaluation-games", o.evaluation.games, "New games on held-out seeds; 0: none")
      ->check(non_negative_number)
      ->capture_default_str()
      ->group(evaluation);
  command->add_option("--evaluation-turns", o.evaluation.turns, "Cap of these games, in game turns")
      ->check(positive_number)
      ->capture_default_str()
      ->group(evaluation);
  command
      ->add_option("--saves", o.evaluation.from,
                   "Folders of saved games to play from: saves/depth3 saves/depth4")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(evaluation);
  command
      ->add_option("--saved-turns", o.evaluation.saved_turns, "Cap of these games, in game turns")
      ->check(positive_number)
      ->capture_default_str()
      ->group(evaluation);
  command->add_option("--repeats", o.evaluation.repeats, "Number of games from each saved game")
      ->check(positive_number)
      ->capture_default_str()
      ->group(evaluation);
}

}  // namespace nethack
