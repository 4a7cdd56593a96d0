// SPDX-License-Identifier: MIT
// The program `toy`: two small problems in which fine-tuning forgets. Results are exact where
// possible.
#include <functional>

#include <CLI/CLI.hpp>

#include "../common/program.hpp"
#include "command_apple.hpp"
#include "command_two_state.hpp"

int main(int argc, char** argv) {
  return run_program(argc, argv, "toy",
                     "Two toy problems in which fine-tuning forgets: a two-state MDP, solved "
                     "exactly, and AppleRetrieval, trained with REINFORCE.",
                     [&](CLI::App& app, std::function<int()>& chosen) {
                       toy::add_two_state(app, chosen);
                       toy::add_apple(app, chosen);
                     });
}
