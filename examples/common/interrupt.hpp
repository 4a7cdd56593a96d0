// SPDX-License-Identifier: MIT
// Ctrl-C asks a long run to stop at the next safe point; a second one ends the process at once.
#pragma once

#include <unistd.h>
#include <csignal>

namespace interrupt {

inline volatile std::sig_atomic_t flag = 0;

inline bool requested() { return flag != 0; }

/// What a shell reports for a program that Ctrl-C ended.
inline constexpr int exit_code = 130;

/// SIGTERM counts as Ctrl-C, so that a batch system and a parent process stop a run as cleanly as
/// its user.
inline void install() {
  struct sigaction action{};
  action.sa_handler = [](int) {
    if (requested()) _exit(exit_code);
    flag = 1;
  };
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // a read from the game goes on; the loop looks at the flag
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace interrupt
