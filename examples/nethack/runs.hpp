// SPDX-License-Identifier: MIT
// Reads the evaluations of many runs, and defines the measurements of each.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "../common/comparison.hpp"
#include "../common/methods.hpp"
#include "../common/statistics.hpp"
#include "results.hpp"

namespace nethack {

/// One policy's evaluation; `method` is empty for a reference (random, player, clone).
struct evaluated {
  std::string name, method, recipe;
  std::filesystem::path folder;
  long seed = 0, steps = 0;
  int training_turns = 0, evaluation_turns = 0;  ///< caps of a game
  double steps_per_second = std::nan("");
  results_by_start results;
  std::map<std::string, double> monitor;  ///< kl/close, kl/far, agreement/close, …

  std::string group() const {
    return recipe + " recipe, training games of " + std::to_string(training_turns) + " turns";
  }
};

inline evaluated read_evaluation(const std::filesystem::path& path) {
  const auto file = read_json(path);
  evaluated run;
  try {
    run.folder = path.parent_path();
    run.name = file.at("name").get<std::string>();
    run.results = results_from_json(file.at("starts"));
    run.evaluation_turns = file.value("turns", 0);
    const auto monitor = file.value("monitor", nlohmann::json::object());
    for (const auto& [which, value] : monitor.items())
      if (value.is_number()) run.monitor[which] = value.get<double>();
    if (file.contains("training")) {
      const auto& training = file.at("training");
      run.method = training.at("method").get<std::string>();
      run.recipe = training.at("recipe").get<std::string>();
      run.seed = training.at("seed").get<long>();
      run.steps = training.at("steps").get<long>();
      run.training_turns = training.at("turns").get<int>();
      run.steps_per_second = training.value("steps_per_second", std::nan(""));
    }
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(path.string() +
                             " is not an evaluation of this program: " + error.what());
  }
  return run;
}

namespace detail {

/// Checks that the runs of one report fit together: one reference of each name, and games of one
/// length, because all are compared on equal games. Throws with both folders.
inline void check_comparable(const std::vector<evaluated>& runs) {
  for (const auto& run : runs) {
    const auto& first = runs.front();
    if (run.evaluation_turns != first.evaluation_turns)
      throw std::runtime_error(
          first.folder.string() + " was evaluated on games of " +
          std::to_string(first.evaluation_turns) + " turns, " + run.folder.string() +
          " on games of " + std::to_string(run.evaluation_turns) + ": report on them separately");
    for (const auto& other : runs)
      if (&run < &other && run.method.empty() && other.method.empty() && run.name == other.name)
        throw std::runtime_error("two evaluations of '" + run.name + "': " + run.folder.string() +
                                 " and " + other.folder.string() +
                                 "; a report compares with only one: name only folders that belong "
                                 "together, or give each a --name");
  }
}

}  // namespace detail

/// Reads every evaluation.json in the folders. The order does not depend on the file system. Throws
/// if two runs have one group, method and seed, if two references have one name, or if the games
/// have different lengths.
inline std::vector<evaluated> read_evaluations(const std::vector<std::filesystem::path>& folders) {
  std::vector<evaluated> runs;
  for (const auto& folder : folders) {
    if (!std::filesystem::is_directory(folder))
      throw std::runtime_error("no folder " + folder.string());
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
      if (entry.path().filename() == "evaluation.json") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const auto& file : files) runs.push_back(read_evaluation(file));
  }
  if (runs.empty())
    throw std::runtime_error("no evaluation.json under the given folders: `nethack sweep` and "
                             "`nethack demo` write them");
  const auto rank = [](const evaluated& run) {
    const std::array<std::string, 3> references{"random", "player", "clone"};
    if (run.method.empty())
      return std::find(references.begin(), references.end(), run.name) - references.begin() - 100;
    return method_rank(run.method);
  };
  std::stable_sort(runs.begin(), runs.end(), [&](const auto& a, const auto& b) {
    return std::make_tuple(a.group(), rank(a), a.method, a.seed) <
           std::make_tuple(b.group(), rank(b), b.method, b.seed);
  });
  detail::check_comparable(runs);
  check_one_run_a_seed(runs);
  return runs;
}

inline const std::vector<game_result>& games_from(const evaluated& run, const std::string& start) {
  static const std::vector<game_result> none;
  const auto found = run.results.find(start);
  return found == run.results.end() ? none : found->second;
}

inline double monitored(const evaluated& run, const std::string& which) {
  const auto found = run.monitor.find(which);
  return found == run.monitor.end() ? std::nan("") : found->second;
}

/// The measurements of one policy, one number each.
struct measure {
  const char* name;
  int digits;
  bool interval;  ///< whether the table shows an interval over seeds
  double (*of)(const evaluated&);
};
inline const std::vector<measure>& measures() {
  static const std::vector<measure> all{
      {"score, new game", 0, true,
       [](const evaluated& run) { return statistics::mean(scores(games_from(run, "new"))); }},
      {"gained after turn 1000", 0, true,
       [](const evaluated& run) { return statistics::mean(late_gains(games_from(run, "new"))); }},
      {"from depth 3", 0, true,
       [](const evaluated& run) { return statistics::mean(scores(games_from(run, "depth3"))); }},
      {"from depth 4", 0, true,
       [](const evaluated& run) { return statistics::mean(scores(games_from(run, "depth4"))); }},
      {"depth", 1, false,
       [](const evaluated& run) {
         return statistics::mean(
             column(games_from(run, "new"), [](const game_result& game) { return game.depth; }));
       }},
      {"stuck %", 0, false,
       [](const evaluated& run) { return 100 * ending_share(games_from(run, "new"), "stuck"); }},
      {"KL CLOSE", 2, false, [](const evaluated& run) { return monitored(run, "kl/close"); }},
      {"KL FAR", 2, false, [](const evaluated& run) { return monitored(run, "kl/far"); }},
      {"agree CLOSE", 2, false,
       [](const evaluated& run) { return monitored(run, "agreement/close"); }},
      {"agree FAR", 2, false,
       [](const evaluated& run) { return monitored(run, "agreement/far"); }}};
  return all;
}

/// One value per run; skips runs without a value.
inline std::vector<double> values_over(const std::vector<const evaluated*>& runs,
                                       const measure& what) {
  std::vector<double> values;
  for (const auto* run : runs)
    if (const double value = what.of(*run); std::isfinite(value)) values.push_back(value);
  return values;
}

/// Runs of one recipe and one length of training games, by method in the order of the tables.
struct run_group {
  std::string title;
  std::vector<std::pair<std::string, std::vector<const evaluated*>>> methods;
};

inline std::vector<run_group> group_runs(const std::vector<evaluated>& runs) {
  std::vector<run_group> groups;
  for (const auto& run : runs) {  // sorted by group and method
    if (run.method.empty()) continue;
    if (groups.empty() || groups.back().title != run.group()) groups.push_back({run.group(), {}});
    auto& methods = groups.back().methods;
    if (methods.empty() || methods.back().first != run.method) methods.push_back({run.method, {}});
    methods.back().second.push_back(&run);
  }
  return groups;
}

inline const evaluated* find_reference(const std::vector<evaluated>& runs,
                                       const std::string& name) {
  for (const auto& run : runs)
    if (run.method.empty() && run.name == name) return &run;
  return nullptr;
}

}  // namespace nethack
