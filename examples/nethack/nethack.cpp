// SPDX-License-Identifier: MIT
// The program `nethack`: fine-tunes a cloned policy on the real game, with and without knowledge
// retention.
#include <algorithm>
#include <functional>
#include <vector>

#include <CLI/CLI.hpp>

#include "../common/program.hpp"
#include "command_evaluate.hpp"
#include "command_finetune.hpp"
#include "command_play.hpp"
#include "command_pretrain.hpp"
#include "command_record.hpp"
#include "experiments.hpp"

int main(int argc, char** argv) {
  return run_program(
      argc, argv, "nethack",
      "Fine-tunes a cloned policy on the real NetHack, with and without knowledge retention.\n"
      "Start with `nethack demo`.",
      [&](CLI::App& app, std::function<int()>& chosen) {
        nethack::add_experiments(app, chosen);
        nethack::add_record(app, chosen);
        nethack::add_pretrain(app, chosen);
        nethack::add_finetune(app, chosen, {argv + std::min(argc, 2), argv + argc});
        nethack::add_evaluate(app, chosen);
        nethack::add_save_states(app, chosen);
        nethack::add_play(app, chosen);
      });
}
