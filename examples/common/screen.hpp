// SPDX-License-Identifier: MIT
// Pictures made of text, one after the other: in place on a terminal, below each other elsewhere.
#pragma once

#include <iostream>
#include <string>

#include <termios.h>
#include <unistd.h>

/// Has the terminal to itself while it lives; afterwards the terminal is as it was.
class text_screen {
 public:
  /// `reads_keys`: single keys are read from the terminal as they are pressed, and not shown.
  explicit text_screen(bool reads_keys = false) : terminal_(isatty(STDOUT_FILENO) != 0) {
    if (terminal_) std::cout << "\033[?1049h\033[?25l\033[2J";  // another screen, no cursor
    if (!reads_keys || isatty(STDIN_FILENO) == 0 || tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    restored_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
  }
  text_screen(const text_screen&) = delete;
  text_screen& operator=(const text_screen&) = delete;
  ~text_screen() {
    if (restored_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    if (terminal_) std::cout << "\033[?25h\033[?1049l" << std::flush;
  }

  /// Whether a picture may have colours.
  bool terminal() const { return terminal_; }

  /// A picture of whole lines, and a line under it.
  void show(const std::string& picture, const std::string& line) const {
    if (terminal_)
      std::cout << "\033[H" << picture << line << "\033[K\033[J" << std::flush;
    else
      std::cout << picture << line << "\n\n";
  }

 private:
  bool terminal_, restored_ = false;
  termios before_{};
};
