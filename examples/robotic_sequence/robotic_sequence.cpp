// SPDX-License-Identifier: MIT
// The program `robotic_sequence`: fine-tuning a policy that knows the last stages of a robot arm's
// task, with and without knowledge retention.
#include <ATen/Context.h>

#include <algorithm>
#include <functional>

#include <CLI/CLI.hpp>

#include "../common/memory.hpp"
#include "../common/program.hpp"
#include "command_evaluate.hpp"
#include "command_finetune.hpp"
#include "command_play.hpp"
#include "command_pretrain.hpp"
#include "experiments.hpp"

int main(int argc, char** argv) {
  training::keep_freed_memory();
  // The moments of units that went silent decay into numbers that processors are slow with: they
  // count as 0.
  at::globalContext().setFlushDenormal(true);
  return run_program(argc, argv, "robotic_sequence",
                     "Fine-tunes a policy that knows the last two stages of a robot arm's task on "
                     "the whole of it, with and without knowledge retention.\n"
                     "Look at the world with `robotic_sequence play --scripted`.",
                     [&](CLI::App& app, std::function<int()>& chosen) {
                       robotic_sequence::add_pretrain(app, chosen);
                       robotic_sequence::add_finetune(app, chosen,
                                                      {argv + std::min(argc, 2), argv + argc});
                       robotic_sequence::add_evaluate(app, chosen);
                       robotic_sequence::add_play(app, chosen, robotic_sequence::saved_player);
                       robotic_sequence::add_experiments(app, chosen);
                     });
}
