// SPDX-License-Identifier: MIT
// The options of `montezuma finetune`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "../common/option_checks.hpp"
#include "../common/retention_options.hpp"
#include "backend.hpp"
#include "settings.hpp"
#include "training_options.hpp"

namespace montezuma {

struct finetune_command {
  std::string teacher = "runs/teacher/teacher.pt", out = "runs/finetune", preset, retain = "none",
              resume;
  bool from_scratch = false, resume_if_possible = false, overwrite = false,
       discard_checkpoint = false, quiet = false;
  std::uint64_t seed = 1;
  int final_games = 256;
  std::int64_t checkpoint_every = 262'144;
  backend_options backend;
  training_options learning;
  retention_settings strengths;

  std::vector<std::string> arguments;  ///< as given, for config.json

  std::string method() const {
    return from_scratch ? "scratch" : retention_named<retention_settings>(retain).name();
  }
};

/// The options that may change when a run is resumed.
inline const std::vector<std::string> may_change{"--steps",
                                                 "--learning-rate",
                                                 "--entropy",
                                                 "--novelty-weight",
                                                 "--epochs",
                                                 "--clip",
                                                 "--longest-gradient",
                                                 "--evaluation-games",
                                                 "--final-games",
                                                 "--checkpoint-every",
                                                 "--discard-checkpoint",
                                                 "--quiet",
                                                 "--resume-if-possible",
                                                 "--overwrite",
                                                 "--rom",
                                                 "--python"};

inline void declare_finetune(CLI::App* command, finetune_command& o) {
  // a resumed run may repeat these options with other values
  command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  command
      ->add_option(
          "--teacher", o.teacher,
          "The start of fine-tuning and of retention: teacher.pt of `montezuma pretrain`; the run "
          "uses the teacher's world")
      ->capture_default_str();
  command
      ->add_option(
          "--retain", o.retain,
          "none, or the methods of retention: l2, ewc, bc, ks, or several joined by + (bc+ks)")
      ->check(retention_check<retention_settings>())
      ->capture_default_str();
  command->add_flag("--from-scratch", o.from_scratch,
                    "Start from random weights instead of the teacher, for comparison");
  command
      ->add_option(
          "--preset", o.preset,
          "quick: fast, and plain fine-tuning forgets (default for the pyramid); careful: half "
          "the learning rate, a third of the entropy bonus; ram, paper: for the real game, seen by "
          "its memory or by pictures as published (the default is that of the teacher)")
      ->check(CLI::IsMember({"quick", "careful", "ram", "paper"}));
  command
      ->add_option(
          "--out", o.out,
          "Run folder: config.json, metrics.csv, checkpoint.state, policy.pt, evaluation.json")
      ->capture_default_str();
  command->add_option("--seed", o.seed, "Seed of games, actions and batches")
      ->capture_default_str();
  command->add_option(
      "--resume", o.resume,
      "Continue the run in this folder with its own options; only steps, learning settings, "
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
  command->add_option("--final-games", o.final_games, "Games from each room at the end")
      ->check(positive_number)
      ->capture_default_str();
  command->add_flag("--quiet", o.quiet, "No table on stdout");
  declare_backend(command, o.backend);
  declare_training(command, o.learning);
  const std::string strengths = "Retention strengths";
  const auto add = [&](const char* flag, auto& where, const char* text) {
    command->add_option(flag, where, text)
        ->check(non_negative_number)
        ->capture_default_str()
        ->group(strengths);
  };
  add("--l2-strength", o.strengths.l2_strength,
      "L2 strength: penalty on the distance to the teacher's weights");
  add("--ewc-strength", o.strengths.ewc_strength,
      "EWC strength: the same penalty, weighted by the Fisher information");
  add("--bc-strength", o.strengths.bc_strength,
      "Strength of the KL to the teacher on states of the memory");
  add("--bc-batch", o.strengths.bc_batch, "States drawn for each optimizer step");
  add("--ks-strength", o.strengths.ks_strength,
      "Initial strength of the KL to the teacher on the states that the policy visits");
  add("--ks-factor", o.strengths.ks_factor,
      "Factor that multiplies the KS strength after each optimizer step");
  add("--hold-kl", o.strengths.hold_kl,
      "Above 0: adapt every strength at each evaluation, so that the KL to the teacher on states "
      "of "
      "the memory stays near this many nats; the strengths above are where it begins");
}

}  // namespace montezuma
