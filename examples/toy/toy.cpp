// SPDX-License-Identifier: MIT
// The program `toy`: the two smallest problems in which fine-tuning forgets, exact where they can be.
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <cstdio>
#include <exception>
#include <functional>
#include <string>

#include <CLI/CLI.hpp>

#include "../common/interrupt.hpp"
#include "command_apple.hpp"
#include "command_two_state.hpp"

int main(int argc, char** argv) {
  CLI::App app{
      "The two toy problems of fine-tuning that forgets: a two-state MDP, solved exactly, and AppleRetrieval, with REINFORCE.\n"
      "Every subcommand explains itself with --help.",
      "toy"};
  app.require_subcommand(1);
  app.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    const auto used = failed->get_subcommands();
    const std::string which = used.empty() ? "toy" : "toy " + used.front()->get_name();
    return which + ": " + error.what() + "\nAll options: " + which + " --help\n";
  });
  std::function<int()> chosen;
  toy::add_two_state(app, chosen);
  toy::add_apple(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }

  interrupt::install();
  at::set_num_threads(1);  // the threads are this program's own: a run each
  try {
    return chosen();
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "toy: %s\n", error.what_without_backtrace());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "toy: %s\n", error.what());
  }
  return interrupt::requested() ? interrupt::exit_code : 1;
}
