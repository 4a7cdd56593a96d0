// SPDX-License-Identifier: MIT
// The options of `robotic_sequence finetune`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "../common/option_checks.hpp"
#include "../common/retention_options.hpp"
#include "settings.hpp"

namespace robotic_sequence {

struct finetune_command {
  std::string teacher = "runs/robot-teacher/teacher.pt", out = "runs/robot", retain = "none",
              fisher = "gaussian", resume;
  bool from_scratch = false, resume_if_possible = false, overwrite = false,
       discard_checkpoint = false, quiet = false;
  int stages = 4, final_episodes = 100;
  std::int64_t checkpoint_every = 20'000;
  training_settings learning;
  retention_settings kept;
  std::vector<std::string> arguments;  ///< as given, for config.json

  std::string method() const {
    return from_scratch ? "scratch" : retention_named<retention_settings>(retain).name();
  }
};

/// The options that may change when a run is resumed.
inline const std::vector<std::string> may_change{"--steps",
                                                 "--learning-rate",
                                                 "--evaluate-every",
                                                 "--evaluation-episodes",
                                                 "--final-episodes",
                                                 "--checkpoint-every",
                                                 "--discard-checkpoint",
                                                 "--quiet",
                                                 "--resume-if-possible",
                                                 "--overwrite"};

inline void declare_finetune(CLI::App* command, finetune_command& o) {
  // a resumed run may repeat these options with other values
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  command
      ->add_option(
          "--teacher", o.teacher,
          "The start of fine-tuning and of retention: teacher.pt of `robotic_sequence pretrain`")
      ->capture_default_str();
  command
      ->add_option(
          "--retain", o.retain,
          "none, or the methods of retention: l2, ewc, bc, em, ks, or several joined by + (bc+em)")
      ->check(retention_check<retention_settings>())
      ->capture_default_str();
  command->add_flag("--from-scratch", o.from_scratch,
                    "Start from random weights instead of the teacher, for comparison");
  command
      ->add_option("--stages", o.stages,
                   "The last 3 to 6 of window, faucet, press, push, unplug, push-wall")
      ->check(CLI::Range(3, 6))
      ->capture_default_str();
  command
      ->add_option("--fisher", o.fisher,
                   "gaussian: exact, before the squash; continual-world: mean after the squash, "
                   "heads excluded, floor 1e-5")
      ->check(CLI::IsMember({"gaussian", "continual-world"}))
      ->capture_default_str();
  command
      ->add_option(
          "--out", o.out,
          "Run folder: config.json, metrics.csv, checkpoint.state, policy.pt, evaluation.json")
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
  command
      ->add_option("--checkpoint-every", o.checkpoint_every,
                   "Steps between checkpoints; 0: only at the end")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--final-episodes", o.final_episodes, "Episodes from each stage at the end")
      ->check(positive_number)
      ->capture_default_str();
  command->add_flag("--quiet", o.quiet, "No table on stdout");
  const auto add = [&](const char* flag, auto& where, const char* text) {
    command->add_option(flag, where, text)->check(non_negative_number)->capture_default_str();
  };
  add("--seed", o.learning.seed, "Seed of weights, world and batches");
  add("--steps", o.learning.steps, "Number of decisions, with one update each");
  add("--learning-rate", o.learning.agent.learning_rate, "Learning rate of Adam");
  command->add_option("--capacity", o.learning.capacity, "Number of transitions in the buffer")
      ->check(positive_number)
      ->capture_default_str();
  add("--evaluate-every", o.learning.evaluate_every, "Steps between evaluations");
  command
      ->add_option("--evaluation-episodes", o.learning.evaluation_episodes,
                   "Episodes from each stage in each evaluation during training")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--alpha-floor", o.learning.agent.alpha_floor, "Least temperature of any stage")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--value-bound", o.learning.agent.value_bound,
                   "Bound of the critics' targets, above and below 0; a large number for no bound")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--known-alpha-cap", o.learning.agent.known_alpha_cap,
                   "Greatest temperature of the pre-trained stages; no effect with --from-scratch")
      ->check(positive_number)
      ->capture_default_str();
  add("--l2-strength", o.kept.l2_strength,
      "L2 strength: penalty on the distance to the teacher's weights");
  add("--ewc-strength", o.kept.ewc_strength,
      "EWC strength: the same penalty, weighted by the Fisher information");
  add("--bc-strength", o.kept.bc_strength,
      "Strength of the KL to the teacher on states of the memory");
  command->add_option("--bc-batch", o.kept.bc_batch, "States drawn for each update")
      ->check(positive_number)
      ->capture_default_str();
  add("--ks-strength", o.kept.ks_strength,
      "Initial strength of the KL to the teacher on the states of the batch");
  add("--ks-factor", o.kept.ks_factor, "Factor that multiplies the KS strength after each update");
  add("--hold-kl", o.kept.hold_kl,
      "Above 0: adapt every strength at each evaluation, so that the KL to the teacher on states "
      "of "
      "the memory stays near this many nats; the strengths above are where it begins");
  command
      ->add_option(
          "--memory", o.kept.memory,
          "Number of the teacher's transitions that BC and EM use; all transitions if the teacher "
          "has fewer")
      ->check(positive_number)
      ->capture_default_str();
}

}  // namespace robotic_sequence
