// SPDX-License-Identifier: MIT
// Reads finished runs, and defines the measurements of each run.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "../common/columns.hpp"
#include "../common/comparison.hpp"
#include "../common/files.hpp"
#include "../common/methods.hpp"
#include "../common/statistics.hpp"

namespace robotic_sequence {

/// The known stages: the last stages of every sequence. All earlier stages are new.
inline constexpr std::array<const char*, 2> far_stages{"unplug", "push-wall"};

/// The name of the whole sequence among the stages.
inline constexpr const char* whole = "all";

inline bool is_far(std::string_view stage) {
  return std::find(far_stages.begin(), far_stages.end(), stage) != far_stages.end();
}

struct finished_run {
  std::string method;  ///< as in the tables: ewc with Continual World's Fisher is ewc-cw
  std::filesystem::path folder;
  std::vector<std::string> stages;  ///< in the order of the sequence
  long seed = 0, steps = 0;
  int episodes = 0;
  double steps_per_second = std::nan("");
  /// success of the teacher by stage; empty if the run has no teacher
  std::map<std::string, double> teacher;
  /// success by stage and of the whole sequence, over many episodes after training
  std::map<std::string, double> at_end;
  std::map<std::string, std::vector<double>> curves;  ///< the columns of metrics.csv
  /// strengths and settings, if known
  nlohmann::json how;

  std::string group() const {
    std::string text;
    for (const auto& stage : stages) text += (text.empty() ? "" : ", ") + stage;
    return text + "; " + std::to_string(steps) + " steps";
  }
  std::string slug() const {
    return std::to_string(stages.size()) + "-stages-" + std::to_string(steps);
  }
};

/// Reads a run from its evaluation.json, without its curves. Throws with `where` if the file has
/// another format.
inline finished_run run_of(const nlohmann::json& file, const std::filesystem::path& where) {
  finished_run run;
  try {
    run.folder = where;
    run.method = file.at("method").get<std::string>();
    if (run.method.find("ewc") != std::string::npos &&
        file.at("fisher").get<std::string>() == "continual-world")
      run.method += "-cw";
    run.stages = file.at("stages").get<std::vector<std::string>>();
    run.seed = file.at("seed").get<long>();
    run.steps = file.at("steps").get<long>();
    run.episodes = file.at("episodes").get<int>();
    run.steps_per_second = file.value("steps_per_second", std::nan(""));
    if (const auto teacher = file.find("teacher"); teacher != file.end() && teacher->is_object())
      run.teacher = teacher->at("success").get<std::map<std::string, double>>();
    for (const auto* part : {"retention", "settings"})
      if (file.contains(part)) run.how[part] = file.at(part);
    run.at_end = file.at("success").get<std::map<std::string, double>>();
    for (const auto& stage : run.stages) static_cast<void>(file.at("success").at(stage));
    static_cast<void>(file.at("success").at(whole));
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(where.string() +
                             " is not an evaluation of this program: " + error.what());
  }
  return run;
}

/// (step, success) of the evaluations during training, of a stage or of the whole sequence. Skips
/// rows without a value.
inline std::vector<std::pair<double, double>> success_curve(const finished_run& run,
                                                            const std::string& stage) {
  std::vector<std::pair<double, double>> points;
  const auto steps = run.curves.find("global_step"), values = run.curves.find("success/" + stage);
  if (steps == run.curves.end() || values == run.curves.end()) return points;
  for (std::size_t i = 0; i < values->second.size(); ++i)
    if (std::isfinite(values->second[i])) points.emplace_back(steps->second[i], values->second[i]);
  return points;
}

inline finished_run read_run(const std::filesystem::path& path) {
  auto run = run_of(read_json(path), path);
  run.folder = path.parent_path();
  run.curves = read_columns(run.folder / "metrics.csv");
  const auto curve = success_curve(run, whole);
  if (curve.empty())
    throw std::runtime_error(run.folder.string() +
                             " has an evaluation.json, but no success/all in a metrics.csv: "
                             "restore the file, or remove the run");
  if (curve.front().first != 0 || curve.back().first != static_cast<double>(run.steps))
    throw std::runtime_error((run.folder / "metrics.csv").string() +
                             " does not reach from step 0 to " + std::to_string(run.steps) +
                             ", the end of the run: rows are missing; remove the run");
  return run;
}

/// The measurements of a run on one line: everything that a report needs.
inline std::string line_of(const finished_run& run) {
  const std::string_view cw = "-cw";
  const bool continual_world = run.method.ends_with(cw);
  nlohmann::ordered_json line{
      {"method",
       continual_world ? run.method.substr(0, run.method.size() - cw.size()) : run.method},
      {"fisher", continual_world ? "continual-world" : "gaussian"},
      {"stages", run.stages},
      {"seed", run.seed},
      {"steps", run.steps},
      {"episodes", run.episodes}};
  if (std::isfinite(run.steps_per_second)) line["steps_per_second"] = run.steps_per_second;
  if (!run.teacher.empty()) line["teacher"] = {{"success", run.teacher}};
  for (const auto& [part, values] : run.how.items()) line[part] = values;
  line["success"] = run.at_end;
  // The rows of metrics.csv that have a success, one column each; missing values are null.
  auto& training = line["training"] = nlohmann::ordered_json::object();
  std::vector<std::string> columns{"global_step"};
  for (const auto& stage : run.stages) columns.push_back("success/" + stage);
  columns.push_back(std::string("success/") + whole);
  const auto value = [&](const std::string& column, std::size_t row) {
    const auto found = run.curves.find(column);
    return found != run.curves.end() && row < found->second.size() ? found->second[row]
                                                                   : std::nan("");
  };
  const auto steps = run.curves.find("global_step");
  for (std::size_t row = 0; steps != run.curves.end() && row < steps->second.size(); ++row)
    if (std::any_of(columns.begin() + 1, columns.end(),
                    [&](const auto& column) { return std::isfinite(value(column, row)); }))
      for (const auto& column : columns) training[column].push_back(value(column, row));
  return line.dump() + "\n";
}

/// Reads the runs from a file of such lines.
inline std::vector<finished_run> read_lines(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<finished_run> runs;
  std::string text;
  for (long number = 1; std::getline(file, text); ++number) {
    const auto where = path.string() + ", line " + std::to_string(number);
    const auto line = nlohmann::json::parse(text, nullptr, false);
    if (!line.is_object())
      throw std::runtime_error(where +
                               " is not a run: `robotic_sequence report` writes such files");
    auto run = run_of(line, where);
    try {
      for (const auto& [column, values] : line.at("training").items())
        for (const auto& value : values)
          run.curves[column].push_back(value.is_null() ? std::nan("") : value.get<double>());
    } catch (const nlohmann::json::exception& error) {
      throw std::runtime_error(where + " is not a run: " + error.what());
    }
    for (const auto& [column, values] : run.curves)
      if (values.size() != run.curves["global_step"].size())
        throw std::runtime_error(where + " is not a run: '" + column + "' has " +
                                 std::to_string(values.size()) + " values for " +
                                 std::to_string(run.curves["global_step"].size()) + " steps");
    runs.push_back(std::move(run));
  }
  return runs;
}

/// Checks sorted runs: the runs of one method may differ only in the seed. Throws with both folders
/// and the difference.
inline void check_alike(const std::vector<finished_run>& runs) {
  // for each setting, the first run that has it
  std::map<std::string, std::pair<nlohmann::json, const finished_run*>> first;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const auto& run = runs[i];
    if (i > 0 && (run.group() != runs[i - 1].group() || run.method != runs[i - 1].method))
      first.clear();
    const auto settings = run.how.flatten();
    for (const auto& [setting, value] : settings.items()) {
      const auto& [expected, other] = first.try_emplace(setting, value, &run).first->second;
      if (value != expected)
        throw std::runtime_error(other->folder.string() + " and " + run.folder.string() +
                                 " are both runs of " + run.method +
                                 ", and differ: " + setting.substr(1) + " is " + expected.dump() +
                                 " and " + value.dump() + "; report on them separately");
    }
  }
}

/// Finds every evaluation.json in the folders, and reads the runs of the given files. The order
/// does not depend on the file system.
inline std::vector<finished_run> read_runs(const std::vector<std::filesystem::path>& places) {
  std::vector<finished_run> runs;
  for (const auto& place : places) {
    if (std::filesystem::is_regular_file(place)) {
      auto more = read_lines(place);
      runs.insert(runs.end(), std::make_move_iterator(more.begin()),
                  std::make_move_iterator(more.end()));
      continue;
    }
    if (!std::filesystem::is_directory(place))
      throw std::runtime_error("no folder or file " + place.string());
    for (const auto& entry : std::filesystem::recursive_directory_iterator(place))
      if (entry.path().filename() == "evaluation.json") runs.push_back(read_run(entry.path()));
  }
  if (runs.empty())
    throw std::runtime_error("no evaluation.json under the given folders: `robotic_sequence "
                             "finetune` and `robotic_sequence sweep` write them");
  const auto order = [](const finished_run& run) {
    return std::make_tuple(run.steps, run.stages.size(), run.group(), method_rank(run.method),
                           run.method, run.seed, run.folder);
  };
  std::sort(runs.begin(), runs.end(),
            [&](const auto& a, const auto& b) { return order(a) < order(b); });
  check_one_run_a_seed(runs);
  check_alike(runs);
  return runs;
}

/// AUC = 1/T ∫ p(t) dt by trapezoids. The evaluations are denser at the beginning, so a plain mean
/// would give the beginning too much weight.
inline double mean_success(const finished_run& run, const std::string& stage) {
  const auto points = success_curve(run, stage);
  if (points.empty()) return std::nan("");
  const double span = points.back().first - points.front().first;
  if (!(span > 0)) return points.back().second;
  double area = 0;
  for (std::size_t i = 1; i < points.size(); ++i)
    area += (points[i].first - points[i - 1].first) * (points[i].second + points[i - 1].second) / 2;
  return area / span;
}

inline double lowest_success(const finished_run& run, const std::string& stage) {
  double lowest = std::nan("");
  for (const auto& [step, value] : success_curve(run, stage)) lowest = std::fmin(lowest, value);
  return lowest;
}

inline double end_success(const finished_run& run, const std::string& stage) {
  const auto found = run.at_end.find(stage);
  return found == run.at_end.end() ? std::nan("") : found->second;
}

/// Runs of one sequence and one number of steps, by method in the order of the tables.
struct run_group {
  std::string title, slug;
  std::vector<std::string> stages;
  long steps = 0;
  std::vector<std::pair<std::string, std::vector<const finished_run*>>> methods;
  /// AUC_b by stage and of the whole sequence: runs from scratch, mean over seeds
  std::map<std::string, double> from_scratch;

  std::size_t new_stages() const {
    return static_cast<std::size_t>(std::count_if(
        stages.begin(), stages.end(), [](const auto& stage) { return !is_far(stage); }));
  }

  /// FT = (AUC − AUC_b) / (1 − AUC_b): 0 as from scratch, 1 without any failure. NaN if there are
  /// no runs from scratch, or if these never fail.
  double forward_transfer(const finished_run& run, const std::string& stage) const {
    const auto found = from_scratch.find(stage);
    if (found == from_scratch.end() || !(found->second < 1)) return std::nan("");
    return (mean_success(run, stage) - found->second) / (1 - found->second);
  }
};

/// One number for each run that has a value.
template <class Measure>
std::vector<double> values_over(const std::vector<const finished_run*>& runs,
                                const Measure& measure) {
  std::vector<double> values;
  for (const auto* run : runs)
    if (const double value = measure(*run); std::isfinite(value)) values.push_back(value);
  return values;
}

inline std::vector<run_group> group_runs(const std::vector<finished_run>& runs) {
  std::vector<run_group> groups;
  for (const auto& run : runs) {  // sorted by group and method
    if (groups.empty() || groups.back().title != run.group())
      groups.push_back({run.group(), run.slug(), run.stages, run.steps, {}, {}});
    auto& methods = groups.back().methods;
    if (methods.empty() || methods.back().first != run.method) methods.push_back({run.method, {}});
    methods.back().second.push_back(&run);
  }
  for (auto& group : groups)
    if (group.methods.front().first == "scratch") {
      auto measured = group.stages;
      measured.emplace_back(whole);
      for (const auto& stage : measured)
        group.from_scratch[stage] =
            statistics::mean(values_over(group.methods.front().second, [&](const auto& run) {
              return mean_success(run, stage);
            }));
    }
  return groups;
}

/// a − b in the success in the whole sequence over training, for each seed that both have.
inline std::vector<double> seed_differences(const std::vector<const finished_run*>& a,
                                            const std::vector<const finished_run*>& b) {
  std::vector<double> differences;
  for (const auto* one : a)
    for (const auto* other : b)
      if (one->seed == other->seed)
        if (const double difference = mean_success(*one, whole) - mean_success(*other, whole);
            std::isfinite(difference))
          differences.push_back(difference);
  return differences;
}

}  // namespace robotic_sequence
