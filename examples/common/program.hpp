// SPDX-License-Identifier: MIT
// Runs an example's program: subcommands, option errors, Ctrl-C and exit codes.
#pragma once

#include "interrupt.hpp"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <cstdio>
#include <exception>
#include <functional>
#include <string>

#include <CLI/CLI.hpp>

/// Runs the subcommand that the arguments select. `declare(app, chosen)` adds the subcommands. The
/// selected subcommand sets `chosen`, a function that returns the exit code. If the options are
/// wrong, the error message names the subcommand's --help. If the subcommand throws, the program
/// prints one line to stderr and returns 1.
template <class Declare>
int run_program(int argc, char** argv, const std::string& name, const std::string& description,
                Declare declare) {
  CLI::App app{description + "\nEvery subcommand has its own --help.", name};
  app.require_subcommand(1);
  app.failure_message([&name](const CLI::App* failed, const CLI::Error& error) {
    const auto used = failed->get_subcommands();
    const std::string which = used.empty() ? name : name + " " + used.front()->get_name();
    // One line, because a sweep prints the last line of a failed run.
    return which + ": " + error.what() + " (all options: " + which + " --help)\n";
  });
  std::function<int()> chosen;
  declare(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }

  interrupt::install();
  // Each run uses one core. Several parallel runs are faster than one run on several threads,
  // because OpenMP threads wait for each other.
  at::set_num_threads(1);
  at::set_num_interop_threads(1);
  try {
    return chosen();
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what_without_backtrace());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what());
  }
  return interrupt::requested() ? interrupt::exit_code : 1;
}
