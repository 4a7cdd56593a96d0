// SPDX-License-Identifier: MIT
// The program `robotic_sequence`: fine-tuning a policy that knows the last stages of a robot arm's task, with and without knowledge retention.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>

#include <CLI/CLI.hpp>

#include "../common/interrupt.hpp"
#include "../common/memory.hpp"
#include "command_evaluate.hpp"
#include "command_finetune.hpp"
#include "command_play.hpp"
#include "command_pretrain.hpp"
#include "experiments.hpp"

int main(int argc, char** argv) {
  training::keep_freed_memory();
  CLI::App app{
      "Fine-tunes a policy that knows the last two stages of a robot arm's task on the whole of it, with and without knowledge retention.\n"
      "Look at the world with `robotic_sequence play --scripted`; every subcommand explains itself with --help.",
      "robotic_sequence"};
  app.require_subcommand(1);
  app.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    const auto used = failed->get_subcommands();
    const std::string which = used.empty() ? "robotic_sequence" : "robotic_sequence " + used.front()->get_name();
    return which + ": " + error.what() + "\nAll options: " + which + " --help\n";
  });
  std::function<int()> chosen;
  robotic_sequence::add_pretrain(app, chosen);
  robotic_sequence::add_finetune(app, chosen, {argv + std::min(argc, 2), argv + argc});
  robotic_sequence::add_evaluate(app, chosen);
  robotic_sequence::add_play(app, chosen, robotic_sequence::saved_player);
  robotic_sequence::add_experiments(app, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }

  interrupt::install();
  // One core a run: several runs side by side beat one run on several threads. The moments of units that went silent decay into numbers
  // that processors are slow with: they count as 0.
  at::globalContext().setFlushDenormal(true);
  at::set_num_threads(1);
  at::set_num_interop_threads(1);
  try {
    return chosen();
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "robotic_sequence: %s\n", error.what_without_backtrace());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "robotic_sequence: %s\n", error.what());
  }
  return interrupt::requested() ? interrupt::exit_code : 1;
}
