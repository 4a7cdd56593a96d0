// SPDX-License-Identifier: MIT
// The subcommands that start others: they need no network, and are compiled beside those that do.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace nethack {

/// demo, sweep and report. A subcommand that is used puts what it does into `chosen`; that returns
/// the exit code.
void add_experiments(CLI::App& app, std::function<int()>& chosen);

}  // namespace nethack
