// SPDX-License-Identifier: MIT
// The steps of an experiment as jobs of this program: record, pretrain, reference evaluations,
// saved games and fine-tuning runs.
#pragma once

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/jobs.hpp"

namespace nethack {

inline const std::vector<std::string>& retention_methods() {
  static const std::vector<std::string> all{"none", "l2", "ewc", "bc", "ks", "bc+ks"};
  return all;
}

/// The sizes and the folder of one experiment. Every file has a fixed place in `folder`, so that a
/// repeated command finds finished steps.
struct experiment {
  std::filesystem::path folder;
  unsigned long seed = 1;
  long record_steps = 1'000'000;
  long held_out_steps = 60'000;
  double pretrain_minutes = 0;  ///< 0: as many epochs as `pretrain` does by default
  int games = 200;              ///< of each evaluation
  int saved_games = 0;          ///< per depth; 0: no saved games and no evaluation from them
  int turns = 2000;             ///< cap of an evaluation game
  long steps = 500'000;         ///< of each fine-tuning run
  long monitor_states = 3000;

  std::filesystem::path demonstrations() const { return folder / "demonstrations.bin"; }
  std::filesystem::path held_out() const { return folder / "held_out.bin"; }
  std::filesystem::path clone() const { return folder / "clone.pt"; }
  std::filesystem::path saves() const { return folder / "saves"; }
};

namespace detail {
inline job make_job(const experiment& setup, const std::string& name,
                    const std::filesystem::path& product, std::vector<std::string> arguments,
                    std::vector<std::string> after) {
  arguments.insert(arguments.begin(), this_program());
  return {.name = name,
          .command = std::move(arguments),
          .product = product,
          .log = setup.folder / "logs" / (name + ".log"),
          .after = std::move(after)};
}
}  // namespace detail

inline job record_job(const experiment& setup) {
  return detail::make_job(setup, "record", setup.demonstrations(),
                          {"record", "--out", setup.demonstrations().string(), "--steps",
                           std::to_string(setup.record_steps), "--seed", std::to_string(setup.seed),
                           "--turns", std::to_string(setup.turns)},
                          {});
}

/// Games that differ from the clone's training games. The monitor measures forgetting on them.
inline job held_out_job(const experiment& setup) {
  return detail::make_job(
      setup, "record-held-out", setup.held_out(),
      {"record", "--out", setup.held_out().string(), "--steps",
       std::to_string(setup.held_out_steps), "--seed", std::to_string(setup.seed + 1'000'000),
       "--turns", std::to_string(setup.turns)},
      {});
}

inline job pretrain_job(const experiment& setup) {
  std::vector<std::string> arguments{"pretrain",
                                     "--demonstrations",
                                     setup.demonstrations().string(),
                                     "--held-out",
                                     setup.held_out().string(),
                                     "--out",
                                     setup.clone().string(),
                                     "--games",
                                     "0",
                                     "--seed",
                                     std::to_string(setup.seed)};
  if (setup.pretrain_minutes > 0) {
    arguments.push_back("--max-minutes");
    arguments.push_back(std::to_string(setup.pretrain_minutes));
  }
  return detail::make_job(setup, "pretrain", setup.clone(), arguments,
                          {"record", "record-held-out"});
}

inline job save_states_job(const experiment& setup) {
  return detail::make_job(setup, "save-states", setup.saves() / "saves.json",
                          {"save-states", "--out", setup.saves().string(), "--count",
                           std::to_string(setup.saved_games), "--seed", std::to_string(setup.seed)},
                          {});
}

/// Evaluates random, player or clone once.
inline job reference_job(const experiment& setup, const std::string& name) {
  std::vector<std::string> arguments{"evaluate",
                                     "--games",
                                     std::to_string(setup.games),
                                     "--turns",
                                     std::to_string(setup.turns),
                                     "--out",
                                     (setup.folder / name).string(),
                                     "--name",
                                     name,
                                     "--quiet"};
  std::vector<std::string> after;
  if (name == "clone") {
    arguments.insert(
        arguments.end(),
        {"--policy", setup.clone().string(), "--teacher", setup.clone().string(), "--held-out",
         setup.held_out().string(), "--monitor-states", std::to_string(setup.monitor_states)});
    after.push_back("pretrain");
  } else {
    arguments.push_back("--" + name);
  }
  if (setup.saved_games > 0) {
    arguments.insert(arguments.end(), {"--from", (setup.saves() / "depth3").string(),
                                       (setup.saves() / "depth4").string()});
    after.push_back("save-states");
  }
  return detail::make_job(setup, name, setup.folder / name / "evaluation.json", arguments, after);
}

struct finetune_plan {
  std::string method, recipe;
  unsigned long seed = 1;
  int training_turns = 2000;

  std::string name() const {
    return recipe + "-" + method + "-" + std::to_string(training_turns) + "-seed" +
           std::to_string(seed);
  }
};

/// One run: fine-tuning, then its evaluation, whose file shows that the run is complete. A stopped
/// run continues from its last checkpoint.
inline job finetune_job(const experiment& setup, const finetune_plan& plan, const std::string& name,
                        const std::vector<std::string>& more = {}) {
  const auto folder = setup.folder / "runs" / name;
  std::vector<std::string> arguments{"finetune",
                                     "--policy",
                                     setup.clone().string(),
                                     "--demonstrations",
                                     setup.demonstrations().string(),
                                     "--held-out",
                                     setup.held_out().string(),
                                     "--monitor-states",
                                     std::to_string(setup.monitor_states),
                                     "--recipe",
                                     plan.recipe,
                                     "--seed",
                                     std::to_string(plan.seed),
                                     "--steps",
                                     std::to_string(setup.steps),
                                     "--monitor-every",
                                     std::to_string(std::max(1L, setup.steps / 16)),
                                     "--turns",
                                     std::to_string(plan.training_turns),
                                     "--out",
                                     folder.string(),
                                     "--name",
                                     name,
                                     "--evaluation-games",
                                     std::to_string(setup.games),
                                     "--evaluation-turns",
                                     std::to_string(setup.turns),
                                     "--resume-if-possible",
                                     "--quiet"};
  if (plan.method == "scratch")
    arguments.push_back("--from-scratch");
  else
    arguments.insert(arguments.end(), {"--retain", plan.method});
  std::vector<std::string> after{"pretrain"};
  if (setup.saved_games > 0) {
    arguments.insert(arguments.end(), {"--saves", (setup.saves() / "depth3").string(),
                                       (setup.saves() / "depth4").string()});
    after.push_back("save-states");
  }
  arguments.insert(arguments.end(), more.begin(), more.end());
  return detail::make_job(setup, name, folder / "evaluation.json", arguments, after);
}

/// Prints the reason and returns the exit code if not every job was completed.
inline int explain_stop(const jobs_result& result, const experiment& setup,
                        const std::string& again) {
  if (result.interrupted) {
    std::fprintf(stderr, "stopped. Finished steps are kept; to continue: %s\n", again.c_str());
    return interrupt::exit_code;
  }
  std::fprintf(
      stderr,
      "nethack: the step %s failed: %s\nIts output is in %s; fix the cause and continue with: %s\n",
      result.failed.c_str(), result.message.c_str(),
      (setup.folder / "logs" / (result.failed + ".log")).string().c_str(), again.c_str());
  return 1;
}

}  // namespace nethack
