// SPDX-License-Identifier: MIT
// Chooses settings from the runs of the tuning. No chosen value is ever typed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/common/statistics.hpp"
#include "plan.hpp"
#include "results.hpp"

namespace compare {

/// A candidate of a method, on one task or as the mean over tasks.
struct candidate_score {
  json settings;
  std::vector<double>
      values;  ///< one for each seed; the mean over tasks if all tasks use one choice
  double mean = std::nan("");
  bool chosen = false;
};

struct tuned_method {
  std::string task;  ///< empty: for all tasks
  std::string method;
  std::vector<candidate_score> candidates;
  std::string missing;  ///< what is not finished; empty: the choice is made

  const json& settings() const {
    return std::find_if(candidates.begin(), candidates.end(),
                        [](const candidate_score& each) { return each.chosen; })
        ->settings;
  }
  /// Whether another candidate has the mean of the choice.
  bool tied() const {
    std::size_t best = 0;
    for (const auto& one : candidates)
      for (const auto& other : candidates) best += one.chosen && one.mean == other.mean ? 1 : 0;
    return best > 1;
  }
  /// Whether the choice is the first or last value of a list with an order.
  bool at_an_end() const {
    return candidates.size() > 1 && (candidates.front().chosen || candidates.back().chosen);
  }
};

/// Reads the tuning runs in `out`, and chooses for each tuned method the candidate with the best
/// mean. The first of equal candidates is chosen. If a run is missing or has failed, nothing is
/// chosen for this method, because a choice among fewer runs would not be equal effort.
inline std::vector<tuned_method> choose(const experiment_plan& plan,
                                        const std::filesystem::path& out) {
  std::vector<tuned_method> all;
  if (!plan.tuning) return all;
  const auto& how = *plan.tuning;
  std::vector<std::vector<const task*>> groups;
  if (how.each_task)
    for (const auto& each : plan.tasks) groups.push_back({&each});
  else {
    groups.emplace_back();
    for (const auto& each : plan.tasks) groups.back().push_back(&each);
  }
  for (const auto& group : groups)
    for (const auto& method : plan.methods) {
      if (!method.tuned()) continue;
      tuned_method result{how.each_task ? group.front()->name : "", method.name, {}, {}};
      std::size_t best = 0;
      for (std::size_t i = 0; i < method.candidates(); ++i) {
        candidate_score candidate{method.candidate(i), {}, {}, false};
        for (const auto seed : how.seeds) {
          double sum = 0;
          for (const auto* where : group) {
            const auto folder = out / "tuning" / where->name / method.name /
                                ("candidate" + std::to_string(i + 1)) /
                                ("seed" + std::to_string(seed));
            double value = std::nan("");
            if (const auto record = read_record(folder); record.status == run_status::finished) {
              if (record.identity.at("settings") != candidate.settings)
                throw std::runtime_error(folder.string() + " has the settings " +
                                         record.identity.at("settings").dump() + ", not " +
                                         candidate.settings.dump() +
                                         ": the candidates have changed; use another --out");
              value = value_of(read_result(folder), how.measure);
            }
            if (!std::isfinite(value) && result.missing.empty()) result.missing = folder.string();
            sum += value;
          }
          candidate.values.push_back(sum / static_cast<double>(group.size()));
        }
        candidate.mean = statistics::mean(candidate.values);
        result.candidates.push_back(std::move(candidate));
        const double difference = result.candidates[i].mean - result.candidates[best].mean;
        if (how.higher_is_better ? difference > 0 : difference < 0) best = i;
      }
      result.candidates[best].chosen = result.missing.empty();
      all.push_back(std::move(result));
    }
  return all;
}

/// The settings of a method on a task in the comparison. Throws std::runtime_error if the tuning
/// has not decided yet.
inline json chosen_settings(const std::vector<tuned_method>& tuned, const task& where,
                            const method& how) {
  if (!how.tuned()) return how.candidate(0);
  for (const auto& each : tuned)
    if (each.method == how.name && (each.task.empty() || each.task == where.name)) {
      if (!each.missing.empty())
        throw std::runtime_error("the settings of " + how.name + " are not tuned yet (" +
                                 each.missing +
                                 " is missing or failed): run `retain-compare tune` first");
      return each.settings();
    }
  throw std::logic_error("no tuning of " + how.name);
}

}  // namespace compare
