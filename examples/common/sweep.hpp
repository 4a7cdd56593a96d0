// SPDX-License-Identifier: MIT
// Many runs in one folder: listed, run, gone on with, reported.
#pragma once

#include "files.hpp"
#include "interrupt.hpp"
#include "jobs.hpp"
#include "resume.hpp"

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

/// What --dry-run prints: each command, and whether what it makes is there.
inline int list_jobs(const std::vector<job>& jobs) {
  for (const auto& each : jobs) {
    std::cout << (std::filesystem::exists(each.product) ? "finished " : "to do    ");
    for (const auto& word : each.command) std::cout << ' ' << word;
    std::cout << '\n';
  }
  return 0;
}

/// What makes runs comparable has to be the same in a whole folder, where sweep.json keeps it.
/// Throws with the first option that differs.
inline void check_same_sweep(const std::filesystem::path& folder, const nlohmann::json& options,
                             const std::string& what = "a sweep") {
  const auto file = folder / "sweep.json";
  if (!std::filesystem::exists(file)) return write_json(file, options);
  check_same_settings(folder, what, read_json(file), options);
}

/// What a sweep hands on to each of its runs: throws for words that the run's command does not
/// take, and for an option of `own`, which the sweep itself says of every run.
template <class Command, class Declare>
void check_extra_options(const std::vector<std::string>& extra, Declare declare,
                         const std::vector<std::string>& own) {
  Command command;
  CLI::App parser;
  try {
    parse_words(parser, command, extra, declare);
  } catch (const CLI::ParseError& error) {
    throw std::runtime_error(std::string("--finetune: ") + error.what());
  }
  for (const auto& name : own)
    if (parser.get_option(name)->count() > 0)
      throw std::runtime_error("--finetune: " + name + " is said by the sweep, of each run");
}

/// Runs what is not finished, so many at a time; then `report(runs, out)` says in Markdown what the
/// runs in folder/runs say together, and writes it into folder/report. Throws with the log's place
/// when a step fails.
template <class Report>
int run_sweep(const std::vector<job>& jobs, const std::filesystem::path& folder, int at_a_time,
              Report report) {
  const auto result = job_runner(jobs, static_cast<std::size_t>(at_a_time), true).run();
  if (result.interrupted) {
    std::fprintf(stderr, "stopped. What is finished is kept; to go on: the same command\n");
    return interrupt::exit_code;
  }
  if (!result.failed.empty())
    throw std::runtime_error("the step " + result.failed + " failed: " + result.message +
                             "\nIts whole output is in " +
                             (folder / "logs" / (result.failed + ".log")).string() +
                             "; after mending, go on with the same command");
  const auto out = folder / "report";
  std::cout << report(std::vector<std::filesystem::path>{folder / "runs"}, out) << "in "
            << out.string() << "\n";
  return 0;
}

/// The subcommand `report FOLDER...`, with the same function.
template <class Report>
void add_report(CLI::App& app, std::function<int()>& chosen, Report report) {
  struct options {
    std::vector<std::string> folders;
    std::string out;
  };
  auto o = std::make_shared<options>();
  auto* command =
      app.add_subcommand("report", "Tables, CSV and pictures from the folders of finished runs");
  command->add_option("folders", o->folders, "Folders of sweeps or single runs")->required();
  command->add_option("--out", o->out, "Where to write; the first folder's report/ when not given");
  command->callback([&chosen, o, report] {
    chosen = [o, report] {
      const std::filesystem::path first(o->folders.front());
      const auto out =
          !o->out.empty()
              ? std::filesystem::path(o->out)
              : (std::filesystem::is_regular_file(first) ? first.parent_path() : first) / "report";
      std::cout << report(std::vector<std::filesystem::path>{o->folders.begin(), o->folders.end()},
                          out)
                << "in " << out.string() << "\n";
      return 0;
    };
  });
}
