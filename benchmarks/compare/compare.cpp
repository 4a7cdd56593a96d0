// SPDX-License-Identifier: MIT
// retain-compare: runs an experiment, tunes its methods with equal effort, and reports.
#include <cstdio>
#include <exception>
#include <functional>
#include <string>

#include <CLI/CLI.hpp>

#include "command_export.hpp"
#include "command_report.hpp"
#include "command_run.hpp"

int main(int argc, char** argv) {
  CLI::App app{"Compares methods of retention: one experiment file, many seeds, honest intervals.\n"
               "Every subcommand has its own --help. docs/compare.md describes the files.",
               "retain-compare"};
  app.require_subcommand(1);
  app.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    const auto used = failed->get_subcommands();
    const std::string which =
        used.empty() ? "retain-compare" : "retain-compare " + used.front()->get_name();
    return which + ": " + error.what() + " (all options: " + which + " --help)\n";
  });
  std::function<int()> chosen;
  compare::add_run(app, chosen);
  compare::add_tune(app, chosen);
  compare::add_report(app, chosen);
  compare::add_show(app, chosen);
  compare::add_export(app, chosen);
  compare::add_list(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    return chosen();
  } catch (const compare::file_error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "retain-compare: %s\n", error.what());
    return 1;
  }
}
