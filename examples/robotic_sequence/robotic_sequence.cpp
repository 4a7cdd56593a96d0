// SPDX-License-Identifier: MIT
// The program `robotic_sequence`: fine-tunes a policy that was trained on the last stages of a
// robot arm's task, with and without knowledge retention.
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
  // Adam's moments of inactive units decay to denormal numbers, which are slow on processors. They
  // are set to 0.
  at::globalContext().setFlushDenormal(true);
  return run_program(argc, argv, "robotic_sequence",
                     "Fine-tunes a policy on a robot arm's whole task, with and without knowledge "
                     "retention. The policy was trained on the last two stages of the task.\n"
                     "To see the world, run `robotic_sequence play --scripted`.",
                     [&](CLI::App& app, std::function<int()>& chosen) {
                       robotic_sequence::add_pretrain(app, chosen);
                       robotic_sequence::add_finetune(app, chosen,
                                                      {argv + std::min(argc, 2), argv + argc});
                       robotic_sequence::add_evaluate(app, chosen);
                       robotic_sequence::add_play(app, chosen, robotic_sequence::saved_player);
                       robotic_sequence::add_experiments(app, chosen);
                     });
}
