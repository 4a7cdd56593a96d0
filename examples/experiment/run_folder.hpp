// SPDX-License-Identifier: MIT
// The run folder: what a training program writes, and what retain-compare reads. A program in
// another language writes the same three files; docs/compare.md describes them. Needs no LibTorch.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "../common/files.hpp"
#include "../common/run_log.hpp"

namespace experiment {

/// What was run. Two runs with an equal description and different seeds are repetitions.
struct run_description {
  std::string task, preset, method;
  nlohmann::json settings = nlohmann::json::object();  ///< for example {"ewc": {"strength": 30}}
  std::int64_t seed = 0;
  std::vector<std::string> command = {};               ///< the whole command line
  nlohmann::json versions = nlohmann::json::object();  ///< of what influences the result

  nlohmann::json to_json(const std::string& status) const {
    return {{"task", task}, {"preset", preset},   {"method", method},     {"settings", settings},
            {"seed", seed}, {"command", command}, {"versions", versions}, {"status", status}};
  }
};

/// Writes config.json, metrics.csv and evaluation.json into one folder.
class run_folder {
 public:
  /// Writes config.json and opens metrics.csv, whose columns are "step" and `measures`.
  /// `resumed_at`: the step of the checkpoint from which the run goes on, or 0. Later rows are
  /// removed, because the run makes these steps again. Removes an earlier evaluation.json, because
  /// this file says that the run has finished. Throws std::runtime_error if the run goes on and
  /// metrics.csv is missing or has other columns.
  run_folder(std::filesystem::path folder, run_description what, std::vector<std::string> measures,
             std::int64_t resumed_at = 0)
      : folder_(std::move(folder)),
        what_(std::move(what)),
        metrics_(prepared(), columns(std::move(measures)), resumed_at) {
    write_json(folder_ / "config.json", what_.to_json("running"));
  }

  /// Whether the run in `folder` has reached its end.
  static bool finished(const std::filesystem::path& folder) {
    return std::filesystem::exists(folder / "evaluation.json");
  }

  /// Adds a row to metrics.csv. A measure without a value is an empty cell.
  void log(std::int64_t step, const std::map<std::string, double>& values) {
    metrics_.add(step, values);
  }

  /// Writes evaluation.json: the values at the end, measured more exactly than during training.
  /// `seconds`: how long the training took. Throws std::runtime_error if a value is not finite,
  /// since JSON has no such number.
  void finish(std::int64_t step, const std::map<std::string, double>& values, double seconds) {
    for (const auto& [measure, value] : values)
      if (!std::isfinite(value))
        throw std::runtime_error(folder_.string() + ": the value of " + measure +
                                 " is not finite; leave it out, or let the run fail");
    auto file = what_.to_json("finished");
    file["step"] = step;
    file["values"] = values;
    file["seconds"] = seconds;
    write_json(folder_ / "evaluation.json", file);
  }

 private:
  std::filesystem::path prepared() const {
    std::filesystem::create_directories(folder_);
    std::filesystem::remove(folder_ / "evaluation.json");
    return folder_ / "metrics.csv";
  }
  static std::vector<std::string> columns(std::vector<std::string> measures) {
    measures.insert(measures.begin(), "step");
    return measures;
  }

  std::filesystem::path folder_;
  run_description what_;
  run_log metrics_;
};

}  // namespace experiment
