// SPDX-License-Identifier: MIT
// The program `toy`: the two smallest problems in which fine-tuning forgets, exact where they can
// be.
#include <functional>

#include <CLI/CLI.hpp>

#include "../common/program.hpp"
#include "command_apple.hpp"
#include "command_two_state.hpp"

int main(int argc, char** argv) {
  return run_program(argc, argv, "toy",
                     "The two toy problems of fine-tuning that forgets: a two-state MDP, solved "
                     "exactly, and AppleRetrieval, with REINFORCE.",
                     [&](CLI::App& app, std::function<int()>& chosen) {
                       toy::add_two_state(app, chosen);
                       toy::add_apple(app, chosen);
                     });
}
