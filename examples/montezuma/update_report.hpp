// SPDX-License-Identifier: MIT
// The measurements of one update in a training run.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <retain/compose.hpp>

#include "games.hpp"

namespace montezuma {

/// The report of one update.
struct update_report {
  std::int64_t steps = 0;
  double steps_per_second = 0;
  std::vector<episode> episodes;  ///< ended since the last update
  double policy_loss = 0, value_loss = 0, entropy = 0, approx_kl = 0, clip_fraction = 0,
         gradient_norm = 0;
  double bonus = 0;  ///< mean of the rollout, scaled
  std::vector<retain::term_report> retention;
  double playing_seconds = 0, learning_seconds = 0;  ///< since the start or the resume

  /// The values under the usual names of PPO plots.
  std::map<std::string, double> named() const {
    std::map<std::string, double> values{
        {"charts/SPS", steps_per_second},        {"losses/policy_loss", policy_loss},
        {"losses/value_loss", value_loss},       {"losses/entropy", entropy},
        {"losses/approx_kl", approx_kl},         {"losses/clipfrac", clip_fraction},
        {"losses/gradient_norm", gradient_norm}, {"charts/bonus", bonus},
        {"time/playing", playing_seconds},       {"time/learning", learning_seconds}};
    for (const auto& term : retention) {
      if (term.value.defined()) values["retain/" + term.name] = term.value.item<double>();
      values["retain/" + term.name + "_strength"] = term.strength;
    }
    return values;
  }
};

}  // namespace montezuma
