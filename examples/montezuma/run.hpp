// SPDX-License-Identifier: MIT
// A training run in a folder: evaluates, logs, saves and resumes.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <retain/state.hpp>

#include "../common/interrupt.hpp"
#include "../common/progress.hpp"
#include "../common/run_log.hpp"
#include "../common/run_place.hpp"
#include "../common/table.hpp"

namespace montezuma {

struct run_watch {
  /// columns of `measure` and of update_report::named
  std::vector<std::string> columns;
  /// called at the start, every evaluate_every steps, and at the end
  std::function<std::map<std::string, double>(std::int64_t steps)> measure;
  /// the part of a row that the progress line shows
  std::function<std::string(const std::map<std::string, double>&)> note;
  /// saves the additional parts of a checkpoint, besides the trainer
  std::function<void(retain::state&)> save = [](retain::state&) {};
};

/// Returns true if the run reached its end, false if Ctrl-C stopped it. Saves the run in both
/// cases.
template <class Trainer>
bool run_training(Trainer& learner, const run_place& place, const run_watch& watch,
                  const std::string& title) {
  const auto begun_at = learner.steps();
  std::vector<std::string> columns{"global_step"};
  columns.insert(columns.end(), watch.columns.begin(), watch.columns.end());
  run_log metrics(place.folder / "metrics.csv", columns, begun_at);
  progress shown(title, static_cast<double>(learner.settings().steps), "steps");
  shown.start_at(static_cast<double>(begun_at));
  const auto each = learner.settings().games * learner.settings().horizon;
  const auto due = [&](std::int64_t every) {
    return every > 0 && learner.steps() / every != (learner.steps() - each) / every;
  };
  double reward = 0, length = 0, rooms = 0, episodes = 0;  // of training games since the last row
  const std::array<std::pair<const char*, double*>, 4> since_row{
      {{"reward", &reward}, {"length", &length}, {"rooms", &rooms}, {"episodes", &episodes}}};
  if (begun_at > 0) {
    const auto in = retain::state::read(place.checkpoint().string());
    for (const auto& [name, sum] : since_row)
      // the first checkpoints do not have it
      if (const auto key = std::string("since_row.") + name; in.contains(key))
        *sum = in.number(key);
  }
  const auto save = [&] {
    retain::state out;
    learner.save_state(out, "trainer.");
    watch.save(out);
    for (const auto& [name, sum] : since_row) out.set(std::string("since_row.") + name, *sum);
    out.write(place.checkpoint().string());
  };
  std::string note;
  const auto measure = [&](std::map<std::string, double> row) {
    row.merge(watch.measure(learner.steps()));
    metrics.add(learner.steps(), row);
    note = watch.note(row);
  };
  if (begun_at == 0) measure({});
  bool stopped = false;
  while (!learner.finished() && !stopped) {
    const auto report = learner.update();
    for (const auto& one : report.episodes) {
      reward += one.reward;
      length += static_cast<double>(one.steps);
      rooms += one.rooms;
      ++episodes;
    }
    shown.update(static_cast<double>(learner.steps()), note);
    stopped = interrupt::requested();
    if (learner.finished() || due(learner.settings().evaluate_every)) {
      auto row = report.named();
      if (episodes > 0) {
        row["charts/episodic_return"] = reward / episodes;
        row["charts/episodic_length"] = length / episodes;
        row["charts/rooms"] = rooms / episodes;
        reward = length = rooms = episodes = 0;
      }
      measure(std::move(row));
    }
    if (learner.finished() || stopped || due(place.checkpoint_every)) save();
  }
  shown.finish(static_cast<double>(learner.steps()), note);
  return learner.finished();
}

/// The columns of an update in a run with these terms.
inline std::vector<std::string> training_columns(const std::vector<std::string>& terms) {
  std::vector<std::string> columns{
      "charts/episodic_return", "charts/episodic_length", "charts/rooms",         "charts/SPS",
      "charts/bonus",           "losses/policy_loss",     "losses/value_loss",    "losses/entropy",
      "losses/approx_kl",       "losses/clipfrac",        "losses/gradient_norm", "time/playing",
      "time/learning"};
  for (const auto& term : terms) {
    columns.push_back("retain/" + term);
    columns.push_back("retain/" + term + "_strength");
  }
  return columns;
}

}  // namespace montezuma
