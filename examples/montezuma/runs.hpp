// SPDX-License-Identifier: MIT
// Reads finished runs, and defines the measurements of each run.
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

#include "../common/columns.hpp"
#include "../common/comparison.hpp"
#include "../common/files.hpp"
#include "../common/methods.hpp"
#include "../common/statistics.hpp"

namespace montezuma {

struct finished_run {
  std::string method, preset, map, task;
  std::filesystem::path folder;
  long seed = 0, steps = 0;
  int games = 0, far_room = 7;
  double sticky = 0, steps_per_second = std::nan(""), teacher_success = std::nan("");
  /// far/success, far/return, start/return, …: over many games, after training
  std::map<std::string, double> at_end;
  std::map<std::string, std::vector<double>> curves;  ///< the columns of metrics.csv

  bool of_clone() const { return task == "cloning-gap"; }
  std::string group() const {
    return map + " map, " + (of_clone() ? "cloning gap, " : "") + preset + " preset";
  }
  std::string slug() const { return map + (of_clone() ? "-clone-" : "-") + preset; }
};

/// A column of the evaluations during training. Skips rows without a value.
inline std::vector<double> curve(const finished_run& run, const std::string& name) {
  std::vector<double> values;
  if (const auto found = run.curves.find(name); found != run.curves.end())
    for (const double value : found->second)
      if (std::isfinite(value)) values.push_back(value);
  return values;
}

inline finished_run read_run(const std::filesystem::path& path) {
  const auto file = read_json(path);
  finished_run run;
  try {
    run.folder = path.parent_path();
    run.method = file.at("method").get<std::string>();
    run.preset = file.at("preset").get<std::string>();
    run.map = file.at("world").at("map").get<std::string>();
    run.sticky = file.at("world").at("sticky").get<double>();
    run.seed = file.at("seed").get<long>();
    run.steps = file.at("steps").get<long>();
    run.games = file.at("games").get<int>();
    run.steps_per_second = file.value("steps_per_second", std::nan(""));
    run.far_room = file.at("teacher").at("room").get<int>();
    run.teacher_success = file.at("teacher").at("success").get<double>();
    run.task = file.at("teacher").value("task", "coverage-gap");
    for (const auto* side : {"far", "start"})
      for (const auto& [what, value] : file.at(side).items())
        run.at_end[std::string(side) + "/" + what] = value.get<double>();
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(path.string() +
                             " is not an evaluation of this program: " + error.what());
  }
  run.curves = read_columns(run.folder / "metrics.csv");
  if (curve(run, "far/success").empty())
    throw std::runtime_error(run.folder.string() +
                             " has an evaluation.json, but no far/success in a metrics.csv: "
                             "restore the file, or remove the run");
  return run;
}

/// Reads every evaluation.json in the folders. The order does not depend on the file system.
inline std::vector<finished_run> read_runs(const std::vector<std::filesystem::path>& folders) {
  std::vector<finished_run> runs;
  for (const auto& folder : folders) {
    if (!std::filesystem::is_directory(folder))
      throw std::runtime_error("no folder " + folder.string());
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
      if (entry.path().filename() == "evaluation.json") runs.push_back(read_run(entry.path()));
  }
  if (runs.empty())
    throw std::runtime_error("no evaluation.json under the given folders: `montezuma finetune` and "
                             "`montezuma sweep` write them");
  std::sort(runs.begin(), runs.end(), [](const auto& a, const auto& b) {
    return std::make_tuple(a.group(), method_rank(a.method), a.method, a.seed, a.folder) <
           std::make_tuple(b.group(), method_rank(b.method), b.method, b.seed, b.folder);
  });
  check_one_run_a_seed(runs);
  for (std::size_t i = 1; i < runs.size(); ++i) {
    const auto &one = runs[i - 1], &other = runs[i];
    if (one.group() == other.group() &&
        (one.sticky != other.sticky || one.far_room != other.far_room || one.games != other.games))
      throw std::runtime_error(one.folder.string() + " and " + other.folder.string() +
                               " differ in sticky actions, in the teacher's room or in the games "
                               "at the end: report on them separately");
  }
  return runs;
}

inline double at_end(const finished_run& run, const std::string& name) {
  const auto found = run.at_end.find(name);
  return found == run.at_end.end() ? std::nan("") : found->second;
}

/// The measurements of one run, one number each. "over training" is the mean over the evaluations,
/// which have equal distances, because a run keeps its --evaluate-every.
struct measure {
  const char* name;
  int digits;
  double (*of)(const finished_run&);
};
inline const std::vector<measure>& measures() {
  static const std::vector<measure> all{
      {"FAR success: lowest", 2,
       [](const finished_run& run) {
         const auto values = curve(run, "far/success");
         return values.empty() ? std::nan("") : *std::min_element(values.begin(), values.end());
       }},
      {"over training", 2,
       [](const finished_run& run) { return statistics::mean(curve(run, "far/success")); }},
      {"end", 2, [](const finished_run& run) { return at_end(run, "far/success"); }},
      {"return from FAR, end", 2,
       [](const finished_run& run) { return at_end(run, "far/return"); }},
      {"return from room 1: over training", 2,
       [](const finished_run& run) { return statistics::mean(curve(run, "start/return")); }},
      {"end", 2, [](const finished_run& run) { return at_end(run, "start/return"); }},
      {"rooms from room 1, end", 1,
       [](const finished_run& run) { return at_end(run, "start/rooms"); }},
      {"KL, end", 2, [](const finished_run& run) {
         const auto values = curve(run, "far/kl");
         return values.empty() ? std::nan("") : values.back();
       }}};
  return all;
}
/// indices in measures()
inline constexpr std::size_t far_lowest = 0, far_mean = 1, far_end = 2, return_mean = 4,
                             return_end = 5;

inline std::vector<double> values_over(const std::vector<const finished_run*>& runs,
                                       const measure& what) {
  std::vector<double> values;
  for (const auto* run : runs)
    if (const double value = what.of(*run); std::isfinite(value)) values.push_back(value);
  return values;
}

/// Runs of one map and one preset, by method in the order of the tables.
struct run_group {
  std::string title, slug;
  std::vector<std::pair<std::string, std::vector<const finished_run*>>> methods;
};

inline std::vector<run_group> group_runs(const std::vector<finished_run>& runs) {
  std::vector<run_group> groups;
  for (const auto& run : runs) {  // sorted by group and method
    if (groups.empty() || groups.back().title != run.group())
      groups.push_back({run.group(), run.slug(), {}});
    auto& methods = groups.back().methods;
    if (methods.empty() || methods.back().first != run.method) methods.push_back({run.method, {}});
    methods.back().second.push_back(&run);
  }
  return groups;
}

/// a − b for each seed that both have.
inline std::vector<double> seed_differences(const std::vector<const finished_run*>& a,
                                            const std::vector<const finished_run*>& b,
                                            const measure& what) {
  std::vector<double> differences;
  for (const auto* one : a)
    for (const auto* other : b)
      if (one->seed == other->seed)
        if (const double difference = what.of(*one) - what.of(*other); std::isfinite(difference))
          differences.push_back(difference);
  return differences;
}

}  // namespace montezuma
