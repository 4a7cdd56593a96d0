// SPDX-License-Identifier: MIT
// The program `montezuma`: fine-tunes a policy that was trained on the later rooms, with and
// without knowledge retention.
#include <algorithm>
#include <functional>

#include <CLI/CLI.hpp>

#include "../common/program.hpp"
#include "command_clone.hpp"
#include "command_evaluate.hpp"
#include "command_finetune.hpp"
#include "command_make_states.hpp"
#include "command_play.hpp"
#include "command_pretrain.hpp"
#include "experiments.hpp"

int main(int argc, char** argv) {
  return run_program(
      argc, argv, "montezuma",
      "Fine-tunes a policy on a platform world, or on Montezuma's Revenge itself, with and "
      "without knowledge retention. The policy was trained from room 7.\n"
      "To see the world, run `montezuma play --random`.",
      [&](CLI::App& app, std::function<int()>& chosen) {
        montezuma::add_pretrain(app, chosen);
        montezuma::add_clone(app, chosen);
        montezuma::add_finetune(app, chosen, {argv + std::min(argc, 2), argv + argc});
        montezuma::add_evaluate(app, chosen);
        montezuma::add_play(app, chosen);
        montezuma::add_make_states(app, chosen);
        montezuma::add_experiments(app, chosen);
      });
}
