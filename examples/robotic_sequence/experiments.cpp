// SPDX-License-Identifier: MIT
#include "experiments.hpp"

#include "command_sweep.hpp"

void robotic_sequence::add_experiments(CLI::App& app, std::function<int()>& chosen) {
  add_sweep(app, chosen);
  add_report(app, chosen, report_of);
}
