// SPDX-License-Identifier: MIT
// The folder of a training run: whether a run begins in it, goes on, or must not touch it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

struct run_place {
  std::filesystem::path folder;
  bool resume = false;              ///< there must be a checkpoint to go on from
  bool resume_if_possible = false;  ///< go on if there is one
  bool overwrite = false;
  std::int64_t checkpoint_every = 262'144;

  std::filesystem::path checkpoint() const { return folder / "checkpoint.state"; }
  /// there once a run is at its end
  std::filesystem::path evaluation() const { return folder / "evaluation.json"; }

  /// Whether this run goes on with another. Throws where that cannot be, or a run would be lost.
  bool decide() const {
    const bool there = std::filesystem::exists(checkpoint());
    if ((resume || resume_if_possible) && there && !std::filesystem::exists(folder / "metrics.csv"))
      throw std::runtime_error((folder / "metrics.csv").string() +
                               " is gone, and with it what the run wrote so far: bring it back, or "
                               "remove the folder to begin anew");
    if (resume && !there)
      throw std::runtime_error("there is no checkpoint to resume in " + folder.string());
    if ((resume || resume_if_possible) && there) return true;
    if (!resume_if_possible && !overwrite && std::filesystem::exists(folder / "config.json"))
      throw std::runtime_error(
          folder.string() +
          " holds a run already: --resume-if-possible goes on with it, --overwrite replaces it");
    if (resume_if_possible && !overwrite && std::filesystem::exists(evaluation()))
      throw std::runtime_error(
          folder.string() +
          " holds a finished run without a checkpoint to go on from: --overwrite replaces it");
    return false;
  }

  /// Throws when a run that goes on has more steps behind it than it is to make, of which it makes
  /// `at_once` between two looks at their number.
  void check_steps(std::int64_t made, std::int64_t wanted, std::int64_t at_once = 1) const {
    if (made >= wanted + at_once)
      throw std::runtime_error("the run in " + folder.string() + " has made " +
                               std::to_string(made) + " steps, and cannot end at " +
                               std::to_string(wanted) + ": give --steps " + std::to_string(made) +
                               " or more");
  }

  /// Once a run is known to begin or go on: what an earlier one said of its end is not true of
  /// this, and its checkpoint and policies are not of a run that begins.
  void clear(bool resuming) const {
    std::filesystem::remove(evaluation());
    if (resuming) return;
    std::filesystem::remove(checkpoint());
    // no run's folder: what lies there is not a run's
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
