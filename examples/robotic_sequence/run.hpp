// SPDX-License-Identifier: MIT
// A training run in a folder: evaluates, logs, saves and resumes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../common/interrupt.hpp"
#include "../common/progress.hpp"
#include "../common/run_log.hpp"
#include "../common/run_place.hpp"
#include "../common/table.hpp"
#include "evaluate.hpp"
#include "learner.hpp"

namespace robotic_sequence {

/// A measurement that a run makes at each evaluation besides its own, and saves with its state.
struct run_measure {
  std::string column{};  ///< in metrics.csv
  std::function<double(std::int64_t steps)> measure{};
  std::function<void(retain::state&)> save{};
};

/// Returns true if the run reached its end, false if Ctrl-C stopped it. Saves the run in both
/// cases.
inline bool run_training(learner& learning, sac_agent& agent, const std::vector<stage_kind>& stages,
                         const run_place& place, const std::string& title,
                         const run_measure& also = {}) {
  const auto& settings = learning.settings();
  std::vector<std::string> columns{"global_step",    "success/all",  "charts/SPS",
                                   "losses/critics", "losses/actor", "losses/entropy"};
  for (const auto kind : stages)
    for (const auto* what : {"success/", "alpha/", "visits/"})
      columns.push_back(what + std::string(name_of(kind)));
  for (const auto& term : learning.retention().names())
    columns.insert(columns.end(), {"retain/" + term, "retain/" + term + "_strength"});
  if (also.measure) columns.push_back(also.column);
  run_log metrics(place.folder / "metrics.csv", columns, learning.steps());
  progress shown(title, static_cast<double>(settings.steps), "steps");
  shown.start_at(static_cast<double>(learning.steps()));
  std::string note;
  const auto measure = [&] {
    auto row = learning.report();
    note.clear();
    // Equal starts for every method at equal steps.
    for (const auto& [stage, share] :
         measure_success(agent.actor(), stages, settings.evaluation_episodes,
                         settings.seed * 31 + static_cast<std::uint64_t>(learning.steps()))) {
      row["success/" + stage] = share;
      note += (note.empty() ? "" : ", ") + stage + " " + decimals(share, 2);
    }
    if (also.measure) row[also.column] = also.measure(learning.steps());
    metrics.add(learning.steps(), row);
  };
  const auto save = [&] {
    retain::state out;
    learning.save_state(out, "learner.");
    if (also.save) also.save(out);
    out.write(place.checkpoint().string());
  };
  if (learning.steps() == 0) measure();
  bool stopped = false;
  while (!learning.finished() && !stopped) {
    learning.step();
    const auto step = learning.steps();
    if (step % 64 == 0) shown.update(static_cast<double>(step), note);
    stopped = interrupt::requested();
    if (settings.evaluation_due(step)) measure();
    if (learning.finished() || stopped ||
        (place.checkpoint_every > 0 && step % place.checkpoint_every == 0))
      save();
  }
  // needed if a resumed run is already at its last step
  if (learning.finished() && metrics.last_step() != learning.steps()) measure();
  shown.finish(static_cast<double>(learning.steps()), note);
  return learning.finished();
}

}  // namespace robotic_sequence
