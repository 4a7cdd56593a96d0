// SPDX-License-Identifier: MIT
// The CSV files of a run folder, which a resumed run goes on writing.
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

/// Rows by step, the step in the first column. Each row is on the disk when the next begins.
class run_log {
 public:
  /// `resumed_at`: what a killed run wrote after its last checkpoint is dropped, for it is going to
  /// be played again.
  run_log(std::filesystem::path path, std::vector<std::string> names, std::int64_t resumed_at = 0)
      : path_(std::move(path)), names_(std::move(names)) {
    std::string text = header();
    if (resumed_at > 0) {
      std::ifstream before(path_);
      if (!before)
        throw std::runtime_error(path_.string() +
                                 " is gone, and with it what the run wrote so far: bring it back, "
                                 "or remove the folder to begin anew");
      std::string line;
      std::getline(before, line);
      if (before && line + "\n" != text)
        throw std::runtime_error(
            path_.string() +
            " has other columns than this run writes: it is of another run or version");
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

  /// Of the last row; -1 without one.
  std::int64_t last_step() const { return last_step_; }

  void add(std::int64_t step, const std::vector<std::string>& cells) {
    last_step_ = step;
    file_ << step;
    for (const auto& cell : cells) file_ << ',' << cell;
    file_ << '\n';
    file_.flush();
  }

  /// Values by column name; a column without one stays empty.
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
