// SPDX-License-Identifier: MIT
// The subcommands that start other programs. They need no network and compile without LibTorch.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace nethack {

/// Adds demo, sweep and report. The selected subcommand stores its action in `chosen`; the action
/// returns the exit code.
void add_experiments(CLI::App& app, std::function<int()>& chosen);

}  // namespace nethack
