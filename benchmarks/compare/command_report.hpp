// SPDX-License-Identifier: MIT
// `retain-compare report`.
#pragma once

#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "report.hpp"

namespace compare {

inline void add_report(CLI::App& app, std::function<int()>& chosen) {
  struct options {
    std::vector<std::string> folders;
    std::string out;
  };
  auto o = std::make_shared<options>();
  auto* command = app.add_subcommand(
      "report", "Tables and pictures of all runs under the folders: index.html, report.md, "
                "runs.csv, tables.tex");
  command->add_option("folders", o->folders, "Folders of experiments, or of single runs")
      ->required();
  command->add_option("--out", o->out, "Output folder; the default is report/ in the first folder");
  command->callback([&chosen, o] {
    chosen = [o] {
      const std::vector<std::filesystem::path> folders(o->folders.begin(), o->folders.end());
      const auto out = o->out.empty() ? folders.front() / "report" : std::filesystem::path(o->out);
      std::cout << write_report(folders, out) << "in " << out.string() << "\n";
      return 0;
    };
  });
}

}  // namespace compare
