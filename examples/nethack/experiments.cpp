// SPDX-License-Identifier: MIT
#include "experiments.hpp"

#include "command_demo.hpp"
#include "command_sweep.hpp"

void nethack::add_experiments(CLI::App& app, std::function<int()>& chosen) {
  add_demo(app, chosen);
  add_sweep(app, chosen);
  add_report(app, chosen);
}
