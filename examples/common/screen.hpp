// SPDX-License-Identifier: MIT
// Shows a sequence of text pictures. On a terminal, each picture replaces the previous one.
// Otherwise, the pictures are printed one after another.
#pragma once

#include <iostream>
#include <string>

#include <termios.h>
#include <unistd.h>

/// Uses the whole terminal during its lifetime. The destructor restores the terminal.
class text_screen {
 public:
  /// `reads_keys`: the terminal delivers each key immediately and does not show it.
  explicit text_screen(bool reads_keys = false) : terminal_(isatty(STDOUT_FILENO) != 0) {
    if (terminal_) std::cout << "\033[?1049h\033[?25l\033[2J";  // alternate screen, no cursor
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

  /// Whether the output is a terminal, so that a picture may have colors.
  bool terminal() const { return terminal_; }

  /// Shows a picture that consists of complete lines, and `line` below it.
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
