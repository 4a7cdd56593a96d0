// SPDX-License-Identifier: MIT
// Many runs in one folder: lists, runs, resumes and reports them.
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

/// The output of --dry-run: prints each command and whether its product exists. Returns the exit
/// code 0.
inline int list_jobs(const std::vector<job>& jobs) {
  for (const auto& each : jobs) {
    std::cout << (std::filesystem::exists(each.product) ? "finished " : "to do    ");
    for (const auto& word : each.command) std::cout << ' ' << word;
    std::cout << '\n';
  }
  return 0;
}

/// Checks that all runs in `folder` use the same `options`, so that they are comparable. The first
/// call writes the options to sweep.json. Later calls throw std::runtime_error with the first
/// option that differs.
inline void check_same_sweep(const std::filesystem::path& folder, const nlohmann::json& options,
                             const std::string& what = "a sweep") {
  const auto file = folder / "sweep.json";
  if (!std::filesystem::exists(file)) return write_json(file, options);
  check_same_settings(folder, what, read_json(file), options);
}

/// Checks the options that a sweep passes to each run. Throws std::runtime_error if the run's
/// command does not accept them, or if they contain an option in `own`, which the sweep itself sets
/// for every run.
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
      throw std::runtime_error("--finetune: the sweep sets " + name +
                               " for each run: remove it from --finetune");
}

/// Runs the jobs that are not finished, `at_a_time` in parallel. Then calls `report(runs, out)`,
/// which summarizes the runs in folder/runs as Markdown and writes it to folder/report. Throws
/// std::runtime_error with the path of the log if a job fails.
template <class Report>
int run_sweep(const std::vector<job>& jobs, const std::filesystem::path& folder, int at_a_time,
              Report report) {
  const auto result = job_runner(jobs, static_cast<std::size_t>(at_a_time), true).run();
  if (result.interrupted) {
    std::fprintf(stderr,
                 "stopped. Finished runs are kept. To continue, run the same command again\n");
    return interrupt::exit_code;
  }
  if (!result.failed.empty())
    throw std::runtime_error("the step " + result.failed + " failed: " + result.message +
                             "\nThe complete output is in " +
                             (folder / "logs" / (result.failed + ".log")).string() +
                             ". Fix the problem, then run the same command again");
  const auto out = folder / "report";
  std::cout << report(std::vector<std::filesystem::path>{folder / "runs"}, out) << "in "
            << out.string() << "\n";
  return 0;
}

/// Adds the subcommand `report FOLDER...`, which calls `report(folders, out)`.
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
  command->add_option("--out", o->out, "Output folder; the default is report/ in the first folder");
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
