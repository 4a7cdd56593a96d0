// SPDX-License-Identifier: MIT
// The folder of a training run. Decides whether a run starts in the folder, resumes, or is
// refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

struct run_place {
  std::filesystem::path folder;
  bool resume = false;              ///< resume; a checkpoint must exist
  bool resume_if_possible = false;  ///< resume if a checkpoint exists
  bool overwrite = false;
  std::int64_t checkpoint_every = 262'144;

  std::filesystem::path checkpoint() const { return folder / "checkpoint.state"; }
  /// exists after the run has finished
  std::filesystem::path evaluation() const { return folder / "evaluation.json"; }

  /// Returns whether the run resumes from a checkpoint. Throws std::runtime_error if it must
  /// resume but cannot, or if it would overwrite an existing run.
  bool decide() const {
    const bool there = std::filesystem::exists(checkpoint());
    if ((resume || resume_if_possible) && there && !std::filesystem::exists(folder / "metrics.csv"))
      throw std::runtime_error((folder / "metrics.csv").string() +
                               " is missing, so the run has no log of its earlier steps. Restore "
                               "the file, or remove the folder to start a new run");
    if (resume && !there)
      throw std::runtime_error("there is no checkpoint to resume in " + folder.string());
    if ((resume || resume_if_possible) && there) return true;
    if (!resume_if_possible && !overwrite && std::filesystem::exists(folder / "config.json"))
      throw std::runtime_error(
          folder.string() +
          " already holds a run: use --resume-if-possible to continue it, or --overwrite to "
          "replace it");
    if (resume_if_possible && !overwrite && std::filesystem::exists(evaluation()))
      throw std::runtime_error(
          folder.string() +
          " holds a finished run without a checkpoint, which cannot be continued: use --overwrite "
          "to replace it");
    return false;
  }

  /// Throws std::runtime_error if a resumed run has already made more steps than `wanted`. A run
  /// checks the number of steps only every `at_once` steps, so it may exceed `wanted` by fewer than
  /// `at_once` steps.
  void check_steps(std::int64_t made, std::int64_t wanted, std::int64_t at_once = 1) const {
    if (made >= wanted + at_once)
      throw std::runtime_error("the run in " + folder.string() + " has made " +
                               std::to_string(made) + " steps, more than --steps " +
                               std::to_string(wanted) + ": use --steps " + std::to_string(made) +
                               " or more");
  }

  /// Deletes files of an earlier run. Call it after `decide()`. It always deletes the evaluation.
  /// For a new run, it also deletes the checkpoint, the log of games and the saved policies.
  void clear(bool resuming) const {
    std::filesystem::remove(evaluation());
    if (resuming) return;
    std::filesystem::remove(checkpoint());
    // without config.json this is not the folder of a run, so its files are kept
    if (!std::filesystem::exists(folder / "config.json")) return;
    std::filesystem::remove(folder / "games.csv");
    std::vector<std::filesystem::path> policies;  // policy.pt, policy-STEP.pt
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (const auto name = entry.path().stem().string();
          entry.path().extension() == ".pt" &&
          (name == "policy" || (name.starts_with("policy-") &&
                                name.find_first_not_of("0123456789", 7) == std::string::npos)))
        policies.push_back(entry.path());
    for (const auto& policy : policies) std::filesystem::remove(policy);
  }
};
