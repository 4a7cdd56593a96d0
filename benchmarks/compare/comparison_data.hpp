// SPDX-License-Identifier: MIT
// Runs by task and method, and the numbers that a report shows of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../../examples/common/table.hpp"
#include "aggregate.hpp"
#include "read_experiment.hpp"
#include "results.hpp"
#include "tuning.hpp"

namespace compare {

/// A value of each seed, in the order of the seeds.
using by_seed = std::map<std::int64_t, double>;

inline std::vector<double> values_of(const by_seed& seeds) {
  std::vector<double> values;
  for (const auto& [seed, value] : seeds) values.push_back(value);
  return values;
}

/// How an experiment wants its runs to be shown.
struct report_view {
  std::string experiment;
  std::vector<measure_style> measures;
  std::string main, plain, scratch;
  std::vector<std::string> methods, tasks;  ///< in the order of the file

  const measure_style& style_of(const std::string& reference) const {
    const auto name = reference.substr(0, reference.rfind(':'));
    return *std::find_if(measures.begin(), measures.end(),
                         [&](const measure_style& each) { return each.name == name; });
  }
  /// "success in room 7, over training"
  std::string label_of(const std::string& reference) const {
    const auto colon = reference.rfind(':');
    const auto how = colon == std::string::npos ? "end" : reference.substr(colon + 1);
    return style_of(reference).label + (how == "mean"   ? ", over training"
                                        : how == "last" ? ", last"
                                                        : ", " + how);
  }
};

struct task_data {
  std::string title, task, preset;
  report_view view;
  std::vector<std::string> methods;  ///< that have runs, in the order of the tables
  std::map<std::string, std::vector<const run_result*>> runs;

  by_seed values(const std::string& method, const std::string& reference) const {
    by_seed all;
    if (const auto found = runs.find(method); found != runs.end())
      for (const auto* run : found->second)
        if (const double value = value_of(*run, reference); std::isfinite(value))
          all[run->seed] = value;
    return all;
  }
};

struct tuning_data {
  std::string experiment;
  experiment_plan plan;
  std::vector<tuned_method> tuned;
};

struct report_data {
  std::vector<run_result> runs;
  std::vector<task_data> tasks;
  std::vector<tuning_data> tunings;
  std::vector<std::string> warnings;
};

/// The curve at `step`, by linear interpolation; NaN outside.
inline double value_at(const curve& points, double step) {
  if (points.empty() || step < points.front().step || step > points.back().step)
    return std::nan("");
  const auto above = std::lower_bound(points.begin(), points.end(), step,
                                      [](const point& p, double s) { return p.step < s; });
  if (above->step == step || above == points.begin()) return above->value;
  const auto below = above - 1;
  return below->value +
         (step - below->step) / (above->step - below->step) * (above->value - below->value);
}

/// The steps that all curves have measured, or can be interpolated at; at most 400.
inline std::vector<double> common_steps(const std::vector<const curve*>& curves) {
  double first = -1e300, last = 1e300;
  std::set<double> all;
  for (const auto* each : curves) {
    if (each->empty()) continue;
    first = std::max(first, each->front().step);
    last = std::min(last, each->back().step);
    for (const auto& p : *each) all.insert(p.step);
  }
  std::vector<double> inside;
  for (const double step : all)
    if (step >= first && step <= last) inside.push_back(step);
  const std::size_t stride = inside.size() / 400 + 1;
  std::vector<double> steps;
  for (std::size_t i = 0; i < inside.size(); i += stride) steps.push_back(inside[i]);
  if (!inside.empty() && steps.back() != inside.back()) steps.push_back(inside.back());
  return steps;
}

/// What is lost and gained, of one run. `sign` is −1 where lower is better.
struct transfer {
  double forgetting;  ///< the best value during training − the value at the end
  double backward;    ///< the value at the end − the value at the start, before training
};
inline transfer transfer_of(const run_result& run, const measure_style& what) {
  const double sign = what.higher_is_better ? 1 : -1;
  const auto found = run.curves.find(what.name);
  if (found == run.curves.end() || found->second.empty()) return {std::nan(""), std::nan("")};
  double best = -1e300;
  for (const auto& p : found->second) best = std::max(best, sign * p.value);
  // The start and the end are of one series, so that both are equally exact.
  const double start = sign * found->second.front().value, end = sign * found->second.back().value;
  return {best - end, end - start};
}

namespace detail {

inline std::optional<std::filesystem::path> experiment_above(std::filesystem::path folder) {
  for (; folder.has_relative_path(); folder = folder.parent_path())
    if (std::filesystem::exists(folder / "experiment.json")) return folder / "experiment.json";
  return {};
}

/// A view of runs without an experiment: everything that the evaluations measure.
inline report_view view_of(const std::vector<run_result>& runs) {
  report_view view;
  std::set<std::string> names, methods;
  for (const auto& run : runs) {
    for (const auto& [name, value] : run.values) names.insert(name);
    methods.insert(run.method);
  }
  for (const auto& name : names) {
    measure_style style;
    style.name = style.label = name;
    if (name.starts_with("far") || name.ends_with("/far")) style.side = "FAR";
    if (name.starts_with("start") || name.ends_with("close")) style.side = "CLOSE";
    style.higher_is_better =
        name.find("kl") == std::string::npos && name.find("loss") == std::string::npos;
    view.measures.push_back(style);
  }
  if (!view.measures.empty()) view.main = view.measures.front().name;
  if (methods.contains("none")) view.plain = "none";
  if (methods.contains("scratch")) view.scratch = "scratch";
  return view;
}

}  // namespace detail

/// Reads everything under the folders. Throws std::runtime_error if there is no finished run.
inline report_data read_report(const std::vector<std::filesystem::path>& folders) {
  report_data data;
  data.runs = read_results(folders);
  std::map<std::filesystem::path, report_view> views;
  const auto usual = detail::view_of(data.runs);
  std::map<std::string, std::size_t> left_out;
  std::map<std::string, task_data*> tasks;
  std::set<std::string> presets;
  data.tasks.reserve(data.runs.size());  // pointers to tasks stay valid
  for (const auto& run : data.runs) {
    if (run.status != run_status::finished) {
      ++left_out[run.status == run_status::failed ? "failed" : "not finished"];
      continue;
    }
    const auto file = detail::experiment_above(run.folder);
    if (file && !views.contains(*file)) {
      const auto plan = read_experiment(*file);
      report_view view{plan.name, plan.measures, plan.main_measure, plan.plain, plan.scratch, {},
                       {}};
      for (const auto& each : plan.methods) view.methods.push_back(each.name);
      for (const auto& each : plan.tasks) view.tasks.push_back(each.name);
      views[*file] = view;
      if (plan.tuning) data.tunings.push_back({plan.name, plan, choose(plan, file->parent_path())});
    }
    const auto& view = file ? views.at(*file) : usual;
    const auto key = view.experiment + "/" + run.task + "/" + run.preset;
    auto& task = tasks[key];
    if (task == nullptr) {
      data.tasks.push_back({"", run.task, run.preset, view, {}, {}});
      task = &data.tasks.back();
    }
    task->runs[run.method].push_back(&run);
    const double last = run.curves.empty() ? run.step : [&] {
      double step = 0;
      for (const auto& [name, points] : run.curves) step = std::max(step, points.back().step);
      return step;
    }();
    if (last < run.step)
      data.warnings.push_back(run.folder.string() + ": metrics.csv ends at step " + decimals(last) +
                              ", before the end of the run at " + decimals(run.step) +
                              ": rows are missing");
  }
  if (data.tasks.empty())
    throw std::runtime_error(
        "there is no finished run under the given folders (a run has an evaluation.json)");
  for (const auto& [what, count] : left_out)
    data.warnings.push_back(
        std::to_string(count) +
        (count == 1 ? " run is left out, which " : " runs are left out, which ") +
        (what == "failed" ? "failed"
         : count == 1     ? "is not finished"
                          : "are not finished") +
        ". If these are not a random part of all runs, the rest looks "
        "different from what all would have shown");
  const auto rank = [](const task_data& task) {
    const auto& order = task.view.tasks;
    return std::pair(task.view.experiment,
                     std::find(order.begin(), order.end(), task.task) - order.begin());
  };
  std::stable_sort(data.tasks.begin(), data.tasks.end(),
                   [&](const task_data& a, const task_data& b) { return rank(a) < rank(b); });
  for (auto& task : data.tasks) {
    const bool several = std::any_of(data.tasks.begin(), data.tasks.end(), [&](const auto& other) {
      return other.view.experiment != task.view.experiment;
    });
    task.title = (several && !task.view.experiment.empty() ? task.view.experiment + ": " : "") +
                 task.task +
                 (task.preset.empty() || task.preset == task.task ? "" : ", " + task.preset);
    for (const auto& name : task.view.methods)
      if (task.runs.contains(name)) task.methods.push_back(name);
    for (const auto& [name, runs] : task.runs)
      if (std::find(task.methods.begin(), task.methods.end(), name) == task.methods.end())
        task.methods.push_back(name);
    std::set<std::size_t> counts;
    std::set<double> steps;
    std::set<std::string> few;
    for (const auto& name : task.methods) {
      counts.insert(task.runs.at(name).size());
      for (const auto* run : task.runs.at(name))
        if (std::isfinite(run->step)) steps.insert(run->step);
      if (task.runs.at(name).size() < seeds_without_a_warning) few.insert(name);
    }
    if (!few.empty())
      data.warnings.push_back(
          task.title + ": " +
          (*counts.begin() < seeds_for_an_interval
               ? "fewer than " + std::to_string(seeds_for_an_interval) + " seeds (" +
                     std::to_string(*counts.begin()) + "), so there is no interval"
               : std::to_string(*counts.begin()) + " seeds are few: intervals over fewer than " +
                     std::to_string(seeds_without_a_warning) + " seeds are too narrow"));
    if (steps.size() > 1)
      data.warnings.push_back(task.title + ": the runs have different budgets, of " +
                              decimals(*steps.begin()) + " to " + decimals(*steps.rbegin()) +
                              " steps");
    if (counts.size() > 1)
      data.warnings.push_back(task.title + ": the methods have different numbers of seeds (" +
                              std::to_string(*counts.begin()) + " to " +
                              std::to_string(*counts.rbegin()) + ")");
  }
  return data;
}

}  // namespace compare
