// SPDX-License-Identifier: MIT
// The program `montezuma`: fine-tuning a policy that knows the later rooms, with and without knowledge retention.
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>

#include <CLI/CLI.hpp>

#include "../common/interrupt.hpp"
#include "command_clone.hpp"
#include "command_evaluate.hpp"
#include "command_finetune.hpp"
#include "command_make_states.hpp"
#include "command_play.hpp"
#include "command_pretrain.hpp"
#include "experiments.hpp"

int main(int argc, char** argv) {
  CLI::App app{
      "Fine-tunes a policy that knows a platform world, or Montezuma's Revenge itself, from room 7 on, with and without knowledge retention.\n"
      "Look at the world with `montezuma play --random`; every subcommand explains itself with --help.",
      "montezuma"};
  app.require_subcommand(1);
  app.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    const auto used = failed->get_subcommands();
    const std::string which = used.empty() ? "montezuma" : "montezuma " + used.front()->get_name();
    return which + ": " + error.what() + "\nAll options: " + which + " --help\n";
  });
  std::function<int()> chosen;
  montezuma::add_pretrain(app, chosen);
  montezuma::add_clone(app, chosen);
  montezuma::add_finetune(app, chosen, {argv + std::min(argc, 2), argv + argc});
  montezuma::add_evaluate(app, chosen);
  montezuma::add_play(app, chosen);
  montezuma::add_make_states(app, chosen);
  montezuma::add_experiments(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }

  interrupt::install();
  // One core a run: several runs side by side beat one run on several threads, whose OpenMP loops wait on each other.
  at::set_num_threads(1);
  at::set_num_interop_threads(1);
  try {
    return chosen();
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "montezuma: %s\n", error.what_without_backtrace());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "montezuma: %s\n", error.what());
  }
  return interrupt::requested() ? interrupt::exit_code : 1;
}
