// SPDX-License-Identifier: MIT
// Reads run folders: the contract's, those of the runner, and those of today's programs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../../examples/common/columns.hpp"
#include "record.hpp"
#include "translate.hpp"

namespace compare {

struct point {
  double step, value;
};
using curve = std::vector<point>;

struct run_result {
  std::filesystem::path folder;
  std::string kind = "run", experiment, task, preset, method;
  json settings = json::object();
  std::int64_t seed = 0;
  double step = std::nan(""), seconds = std::nan(""), steps_per_second = std::nan("");
  std::map<std::string, double> values;  ///< evaluation.json: at the end
  std::map<std::string, curve> curves;   ///< metrics.csv: during training
  json versions = json::object();
  std::vector<std::string> command;
  run_status status = run_status::finished;
  std::string ended;
};

/// The mean over the steps: the area under the curve (trapezoids) over its length. NaN for an
/// empty curve.
inline double area(const curve& points) {
  if (points.empty()) return std::nan("");
  if (points.size() == 1) return points.front().value;
  double sum = 0;
  for (std::size_t i = 1; i < points.size(); ++i)
    sum += (points[i].step - points[i - 1].step) * (points[i].value + points[i - 1].value) / 2;
  return sum / (points.back().step - points.front().step);
}

/// A number of a run: NAME or NAME:end is the evaluation's value at the end, or the last of the
/// curve if the evaluation has none; NAME:mean, lowest, highest and last are of the curve. NaN if
/// the run does not have it.
inline double value_of(const run_result& run, const std::string& reference) {
  const auto colon = reference.rfind(':');
  const auto name = reference.substr(0, colon);
  const auto how = colon == std::string::npos ? "end" : reference.substr(colon + 1);
  const auto found = run.curves.find(name);
  static const curve none;
  const auto& points = found == run.curves.end() ? none : found->second;
  if (how == "end")
    if (const auto value = run.values.find(name); value != run.values.end()) return value->second;
  if (how == "mean") return area(points);
  if (points.empty()) return std::nan("");
  if (how == "end" || how == "last") return points.back().value;
  const auto less = [](const point& a, const point& b) { return a.value < b.value; };
  return how == "lowest" ? std::min_element(points.begin(), points.end(), less)->value
                         : std::max_element(points.begin(), points.end(), less)->value;
}

/// metrics.csv: a column for the step ("step" or "global_step") and one for each measure, or the
/// three columns step, measure, value. Empty cells are left out. Throws std::runtime_error if there
/// is no column of steps, or if steps fall.
inline std::map<std::string, curve> read_curves(const std::filesystem::path& path) {
  std::map<std::string, curve> curves;
  const auto columns = read_columns(path);
  if (columns.empty()) return curves;
  auto steps = columns.find("step");
  if (steps == columns.end()) steps = columns.find("global_step");
  if (steps == columns.end()) throw std::runtime_error(path.string() + " has no column 'step'");
  const auto add = [&](const std::string& name, double step, double value) {
    if (!std::isfinite(step) || !std::isfinite(value)) return;
    auto& points = curves[name];
    if (!points.empty() && step <= points.back().step)
      throw std::runtime_error(path.string() + ": the steps of " + name +
                               " do not rise: the file is damaged or of two runs");
    points.push_back({step, value});
  };
  if (columns.size() == 3 && columns.contains("measure") && columns.contains("value")) {
    std::ifstream file(path);
    std::string line, cell;
    std::getline(file, line);
    std::vector<std::string> names;
    std::istringstream header(line);
    while (std::getline(header, cell, ',')) names.push_back(cell);
    const auto place =
        static_cast<std::size_t>(std::find(names.begin(), names.end(), "measure") - names.begin());
    for (std::size_t row = 0; std::getline(file, line); ++row) {
      std::istringstream cells(line);
      for (std::size_t i = 0; i <= place; ++i)
        if (!std::getline(cells, cell, ',')) cell.clear();
      add(cell, steps->second[row], columns.at("value")[row]);
    }
    return curves;
  }
  for (const auto& [name, values] : columns)
    if (name != steps->first)
      for (std::size_t i = 0; i < values.size(); ++i) add(name, steps->second[i], values[i]);
  return curves;
}

/// Means of several measures, for worlds with several parts: the known stages of the robot.
inline void add_known_stages(run_result& run) {
  const std::vector<std::string> known{"success/unplug", "success/push-wall"};
  if (run.values.contains("success/known") || !run.values.contains(known[0]) ||
      !run.values.contains(known[1]))
    return;
  run.values["success/known"] = (run.values[known[0]] + run.values[known[1]]) / 2;
  const auto one = run.curves.find(known[0]), other = run.curves.find(known[1]);
  if (one == run.curves.end() || other == run.curves.end()) return;
  curve both;
  for (std::size_t i = 0; i < std::min(one->second.size(), other->second.size()); ++i)
    if (one->second[i].step == other->second[i].step)
      both.push_back({one->second[i].step, (one->second[i].value + other->second[i].value) / 2});
  run.curves["success/known"] = both;
}

/// Reads a run folder. Throws std::runtime_error with the file and what is wrong.
inline run_result read_result(const std::filesystem::path& folder) {
  run_result run;
  run.folder = folder;
  const auto wrong = [&](const std::string& what) -> std::runtime_error {
    return std::runtime_error(folder.string() + ": " + what);
  };
  const auto record = read_record(folder);
  const bool recorded = record.status != run_status::untouched;
  const auto identify = [&](const json& from) {
    for (auto [key, into] : {std::pair{"task", &run.task},
                             {"preset", &run.preset},
                             {"method", &run.method},
                             {"kind", &run.kind},
                             {"experiment", &run.experiment}})
      if (from.contains(key) && from.at(key).is_string()) *into = from.at(key).get<std::string>();
    if (from.contains("seed")) run.seed = from.at("seed").get<std::int64_t>();
    if (from.contains("settings")) run.settings = from.at("settings");
  };
  try {
    const auto evaluation = folder / "evaluation.json", config = folder / "config.json";
    const bool evaluated = std::filesystem::exists(evaluation);
    if (std::filesystem::exists(config)) {
      const auto file = read_ordered(config);
      if (file.contains("versions")) run.versions = file.at("versions");
      if (file.contains("command"))
        run.command = file.at("command").get<std::vector<std::string>>();
      if (file.contains("task") && file.contains("method")) identify(file);
    }
    run.status = recorded ? record.status : evaluated ? run_status::finished : run_status::running;
    if (evaluated) {
      const auto file = read_ordered(evaluation);
      if (file.contains("values")) {
        identify(file);
        run.step = file.value("step", std::nan(""));
        run.seconds = file.value("seconds", std::nan(""));
        for (const auto& [name, value] : file.at("values").items())
          run.values[name] = value.get<double>();
      } else if (auto known = translate(file); known.known) {
        run.task = known.task;
        run.preset = known.preset;
        run.method = known.method;
        run.seed = known.seed;
        run.step = known.step;
        run.steps_per_second = known.steps_per_second;
        run.values = std::move(known.values);
      } else {
        throw wrong("evaluation.json has no \"values\" (docs/compare.md describes the file)");
      }
    }
    if (recorded) {  // the names of the experiment count
      identify(record.identity);
      run.ended = record.ended;
      run.command = record.command;
      if (!std::isfinite(run.seconds)) run.seconds = record.seconds;
    }
    if (run.kind != "teacher" && (run.task.empty() || run.method.empty()))
      throw wrong("config.json needs \"task\", \"method\" and \"seed\"");
  } catch (const json::exception& error) {
    throw wrong(std::string("a file of the run is damaged: ") + error.what());
  }
  if (std::filesystem::exists(folder / "metrics.csv"))
    run.curves = read_curves(folder / "metrics.csv");
  if (!std::isfinite(run.steps_per_second) && run.seconds > 0)
    run.steps_per_second = run.step / run.seconds;
  add_known_stages(run);
  return run;
}

/// Reads every run under the folders, of `kind` ("run" or "tune"), in an order that does not depend
/// on the file system. Throws std::runtime_error if a seed of a method is there twice.
inline std::vector<run_result> read_results(const std::vector<std::filesystem::path>& folders,
                                            const std::string& kind = "run") {
  std::set<std::filesystem::path> found;
  const auto is_run = [](const std::filesystem::path& folder) {
    return std::filesystem::exists(folder / record_name) ||
           std::filesystem::exists(folder / "evaluation.json");
  };
  for (const auto& given : folders) {
    if (!std::filesystem::is_directory(given))
      throw std::runtime_error("there is no folder " + given.string());
    const auto top = std::filesystem::canonical(given);
    if (is_run(top)) found.insert(top);
    if (std::filesystem::exists(top / record_name)) continue;
    for (auto entry = std::filesystem::recursive_directory_iterator(top);
         entry != std::filesystem::recursive_directory_iterator(); ++entry) {
      if (!entry->is_directory() || !is_run(entry->path())) continue;
      found.insert(entry->path());
      // what lies within a recorded run or teacher is its own affair
      if (std::filesystem::exists(entry->path() / record_name)) entry.disable_recursion_pending();
    }
  }
  std::vector<run_result> runs;
  std::map<std::tuple<std::string, std::string, std::string, std::string, std::int64_t>,
           std::filesystem::path>
      seen;
  for (const auto& folder : found) {
    // A teacher's files have no form that is known here.
    if (const auto record = read_record(folder);
        record.status != run_status::untouched && record.identity.value("kind", "run") != kind)
      continue;
    auto run = read_result(folder);
    if (run.kind != kind) continue;
    const auto [other, first] =
        seen.emplace(std::tuple{run.task, run.preset, run.method,
                                kind == "tune" ? run.settings.dump() : std::string(), run.seed},
                     folder);
    if (!first)
      throw std::runtime_error("two runs of " + run.method + " on " + run.task + ", seed " +
                               std::to_string(run.seed) + ": " + other->second.string() + " and " +
                               folder.string() + ". A report counts each seed once");
    runs.push_back(std::move(run));
  }
  return runs;
}

}  // namespace compare
