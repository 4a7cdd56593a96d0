// SPDX-License-Identifier: MIT
// The first Ctrl-C makes a long run stop at the next safe point. The second Ctrl-C ends the
// process immediately.
#pragma once

#include <unistd.h>
#include <csignal>

namespace interrupt {

inline volatile std::sig_atomic_t flag = 0;

inline bool requested() { return flag != 0; }

/// The exit code that a shell reports for a program that Ctrl-C ended.
inline constexpr int exit_code = 130;

/// Installs the handlers for SIGINT and SIGTERM. SIGTERM has the same effect as Ctrl-C, so that
/// batch systems and parent processes can also stop a run cleanly.
inline void install() {
  struct sigaction action{};
  action.sa_handler = [](int) {
    if (requested()) _exit(exit_code);
    flag = 1;
  };
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // system calls are restarted; the training loop checks the flag
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace interrupt
