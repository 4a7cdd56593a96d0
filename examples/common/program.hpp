// SPDX-License-Identifier: MIT
// The frame of an example's program: subcommands, mistakes, Ctrl-C, exit codes.
#pragma once

#include "interrupt.hpp"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <cstdio>
#include <exception>
#include <functional>
#include <string>

#include <CLI/CLI.hpp>

/// Runs the subcommand that the arguments choose. `declare(app, chosen)` adds the subcommands; one
/// that is used sets `chosen`, whose answer is the exit code. A mistake in the options names the
/// subcommand's help; an exception is one line on stderr and exit code 1.
template <class Declare>
int run_program(int argc, char** argv, const std::string& name, const std::string& description,
                Declare declare) {
  CLI::App app{description + "\nEvery subcommand explains itself with --help.", name};
  app.require_subcommand(1);
  app.failure_message([&name](const CLI::App* failed, const CLI::Error& error) {
    const auto used = failed->get_subcommands();
    const std::string which = used.empty() ? name : name + " " + used.front()->get_name();
    // one line, which a sweep repeats
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
  // One core a run: several runs side by side beat one run on several threads, whose OpenMP loops
  // wait on each other.
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
