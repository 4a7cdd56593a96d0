// SPDX-License-Identifier: MIT
// `retain-compare export` and `show`.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "live.hpp"
#include "report.hpp"
#include "tensorboard.hpp"

namespace compare {

/// A curve in `width` characters of eight heights, each the mean of the points that fall in it.
inline std::string sparkline(const curve& points, std::size_t width = 40) {
  constexpr std::array<const char*, 8> bars{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  if (points.empty()) return {};
  double low = points.front().value, high = low;
  for (const auto& p : points) {
    low = std::min(low, p.value);
    high = std::max(high, p.value);
  }
  std::string text;
  width = std::min(width, points.size());
  for (std::size_t i = 0; i < width; ++i) {
    double sum = 0;
    const std::size_t begin = i * points.size() / width, end = (i + 1) * points.size() / width;
    for (std::size_t j = begin; j < end; ++j) sum += points[j].value;
    const double part =
        high > low ? (sum / static_cast<double>(end - begin) - low) / (high - low) : 0;
    text += bars[static_cast<std::size_t>(std::lround(7 * part))];
  }
  return text;
}

/// What is known of one run, at most 100 columns wide.
inline std::string describe(const run_result& run) {
  std::string text = run.folder.string() + "\n";
  const auto line = [&](const std::string& name, const std::string& value) {
    if (!value.empty()) text += fitted(name, 12) + value + "\n";
  };
  line("task", run.task + (run.preset.empty() || run.preset == run.task ? "" : ", " + run.preset));
  line("method", run.method);
  line("settings", settings_text(run.settings));
  line("seed", std::to_string(run.seed));
  line("status", name_of(run.status) + (run.ended.empty() ? "" : " (" + run.ended + ")"));
  if (std::isfinite(run.step)) line("steps", decimals(run.step));
  if (std::isfinite(run.steps_per_second)) line("steps/s", decimals(run.steps_per_second));
  if (std::isfinite(run.seconds)) line("time", clock_text(run.seconds));
  if (!run.versions.empty()) line("versions", run.versions.dump());
  std::string command;
  for (const auto& word : run.command) command += (command.empty() ? "" : " ") + word;
  line("command", command);
  if (!run.values.empty()) {
    text_table values({"at the end", "value"});
    for (const auto& [name, value] : run.values) values.add({name, decimals(value, 4)});
    text += "\n" + values.markdown();
  }
  if (!run.curves.empty()) text += "\nin training (first, lowest, highest, last):\n";
  for (const auto& [name, points] : run.curves)
    text += fitted(name, 26) + " " + fitted(sparkline(points, 32), 33) +
            decimals(points.front().value, 2) + "  " +
            decimals(value_of(run, name + ":lowest"), 2) + "  " +
            decimals(value_of(run, name + ":highest"), 2) + "  " +
            decimals(points.back().value, 2) + "\n";
  if (run.status == run_status::failed)
    text += "\nthe end of log.txt:\n" + tail_of(run.folder / "log.txt", 1500);
  return text;
}

inline void add_show(CLI::App& app, std::function<int()>& chosen) {
  auto folder = std::make_shared<std::string>();
  auto* command =
      app.add_subcommand("show", "Shows one run: what it is, its values and its curves");
  command->add_option("run", *folder, "The run's folder")->required();
  command->callback([&chosen, folder] {
    chosen = [folder] {
      if (!std::filesystem::is_directory(*folder))
        throw std::runtime_error("there is no folder " + *folder);
      std::fputs(describe(read_result(*folder)).c_str(), stdout);
      return 0;
    };
  });
}

inline void add_export(CLI::App& app, std::function<int()>& chosen) {
  struct options {
    std::vector<std::string> folders;
    std::string tensorboard, csv, latex;
  };
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand("export", "Writes runs for other programs");
  command->add_option("folders", o->folders, "Folders of experiments, or of single runs")
      ->required();
  command->add_option("--tensorboard", o->tensorboard, "Folder for event files, one for each run");
  command->add_option("--csv", o->csv, "File for every number of every run, one row each");
  command->add_option("--latex", o->latex, "File for the tables of the report");
  command->callback([&chosen, o] {
    chosen = [o] {
      if (o->tensorboard.empty() && o->csv.empty() && o->latex.empty())
        throw std::runtime_error("export: give --tensorboard FOLDER, --csv FILE or --latex FILE");
      const std::vector<std::filesystem::path> folders(o->folders.begin(), o->folders.end());
      const auto runs = read_results(folders);
      if (!o->tensorboard.empty()) write_tensorboard(runs, o->tensorboard);
      if (!o->csv.empty()) write_file(o->csv, long_csv(runs));
      if (!o->latex.empty()) write_file(o->latex, latex_of(make_report(read_report(folders))));
      return 0;
    };
  });
}

}  // namespace compare
