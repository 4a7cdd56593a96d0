// SPDX-License-Identifier: MIT
// The CSV files of a run folder. A resumed run appends to them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "files.hpp"

/// Writes rows with the step in the first column. Each row is flushed to the file immediately.
class run_log {
 public:
  /// `resumed_at`: the step of the checkpoint from which the run resumes. Rows after this step are
  /// removed, because the run makes these steps again. Throws std::runtime_error if the run resumes
  /// and the file is missing or has other columns.
  run_log(std::filesystem::path path, std::vector<std::string> names, std::int64_t resumed_at = 0)
      : path_(std::move(path)), names_(std::move(names)) {
    std::string text = header();
    if (resumed_at > 0) {
      std::ifstream before(path_);
      if (!before)
        throw std::runtime_error(path_.string() +
                                 " is missing, so the run has no log of its earlier steps. Restore "
                                 "the file, or remove the folder to start a new run");
      std::string line;
      std::getline(before, line);
      if (before && line + "\n" != text)
        throw std::runtime_error(
            path_.string() +
            " has other columns than this run writes: the file is from another run or version");
      while (std::getline(before, line))
        if (const auto step = std::strtoll(line.c_str(), nullptr, 10); step <= resumed_at) {
          text += line + "\n";
          last_step_ = step;
        }
    }
    write_file(path_, text);
    file_.open(path_, std::ios::app);
    if (!file_) throw std::runtime_error("cannot write " + path_.string());
  }

  /// The step of the last row; -1 if there is no row.
  std::int64_t last_step() const { return last_step_; }

  void add(std::int64_t step, const std::vector<std::string>& cells) {
    last_step_ = step;
    file_ << step;
    for (const auto& cell : cells) file_ << ',' << cell;
    file_ << '\n';
    file_.flush();
  }

  /// Adds a row from values by column name. A column without a value is empty.
  void add(std::int64_t step, const std::map<std::string, double>& values) {
    std::vector<std::string> cells;
    for (std::size_t i = 1; i < names_.size(); ++i) {
      const auto found = values.find(names_[i]);
      std::ostringstream cell;
      cell.precision(7);
      if (found != values.end()) cell << found->second;
      cells.push_back(cell.str());
    }
    add(step, cells);
  }

 private:
  std::string header() const {
    std::string line;
    for (const auto& name : names_) line += (line.empty() ? "" : ",") + name;
    return line + "\n";
  }

  std::filesystem::path path_;
  std::vector<std::string> names_;
  std::ofstream file_;
  std::int64_t last_step_ = -1;
};
