// SPDX-License-Identifier: MIT
// The live table of running processes, at most 100 columns wide.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "../../examples/common/progress.hpp"

namespace compare {

/// The last `bytes` of a file; empty if there is no file.
inline std::string tail_of(const std::filesystem::path& path, std::streamoff bytes = 4096) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return {};
  const auto size = static_cast<std::streamoff>(file.tellg());
  file.seekg(std::max<std::streamoff>(0, size - bytes));
  std::string text(static_cast<std::size_t>(std::min(size, bytes)), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

/// The last line with text in it.
inline std::string last_line(const std::filesystem::path& path) {
  const auto text = tail_of(path);
  std::string line, last;
  for (const char c : text + "\n") {
    if (c != '\n' && c != '\r') {
      line += c;
      continue;
    }
    if (line.find_first_not_of(" \t") != std::string::npos) last = line;
    line.clear();
  }
  return last;
}

/// The step of the last complete row of metrics.csv; 0 if there is none.
inline double last_step(const std::filesystem::path& folder) {
  const auto text = tail_of(folder / "metrics.csv");
  const auto end = text.rfind('\n');
  if (end == std::string::npos || end == 0) return 0;
  const auto begin = text.rfind('\n', end - 1);
  if (begin == std::string::npos) return 0;  // the header
  return std::max(0.0, std::strtod(text.c_str() + begin + 1, nullptr));
}

struct live_run {
  std::string name, note;
  double step = 0, steps = 0, rate = 0, seconds = 0;
};

struct live_state {
  std::size_t total = 0, finished = 0, failed = 0, elsewhere = 0;
  double left = std::nan("");
  std::vector<live_run> runs;
};

/// Cuts a text to `width` characters, not bytes, and fills it up with spaces.
inline std::string fitted(const std::string& text, std::size_t width) {
  std::string cut;
  std::size_t shown = 0;
  for (const char c : text) {
    const bool begins = (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    if (begins && shown == width) break;
    if (begins) ++shown;
    // a control character of a program's output would spoil the table
    cut += static_cast<unsigned char>(c) < 32 || c == 127 ? ' ' : c;
  }
  return cut + std::string(width - shown, ' ');
}

/// The lines of the table: one for all runs, and one for each that runs.
inline std::vector<std::string> live_lines(const live_state& now, double elapsed,
                                           std::size_t width) {
  width = std::clamp<std::size_t>(width, 40, 100);
  std::string head = std::to_string(now.finished) + " of " + std::to_string(now.total) +
                     " finished, " + std::to_string(now.runs.size()) + " running";
  if (now.failed > 0) head += ", " + std::to_string(now.failed) + " failed";
  if (now.elsewhere > 0) head += ", " + std::to_string(now.elsewhere) + " with another runner";
  head += "   " + clock_text(elapsed);
  if (std::isfinite(now.left)) head += ", about " + clock_text(now.left) + " left";
  std::vector<std::string> lines{fitted(head, width)};
  for (const auto& run : now.runs) {
    std::string line = fitted("  " + run.name, 36) + " ";
    if (run.steps > 0) {
      const double part = std::clamp(run.step / run.steps, 0.0, 1.0);
      std::string percent = std::to_string(std::lround(100 * part));
      line += std::string(3 - std::min<std::size_t>(3, percent.size()), ' ') + percent + " %";
      if (run.rate > 0)
        line += "  " + short_number(run.rate) + "/s, " +
                clock_text((run.steps - run.step) / run.rate) + " left";
    } else {
      line += clock_text(run.seconds);
    }
    lines.push_back(fitted(line + "  " + run.note, width));
  }
  return lines;
}

/// Rewrites the table on a terminal. Elsewhere, prints one line now and then.
class live_view {
 public:
  explicit live_view(FILE* to = stderr) : to_(to), terminal_(isatty(fileno(to)) != 0) {}

  bool due() const {
    return std::chrono::duration<double>(clock::now() - shown_).count() >= (terminal_ ? 0.5 : 10.0);
  }

  void show(const live_state& now) {
    const double elapsed = std::chrono::duration<double>(clock::now() - start_).count();
    shown_ = clock::now();
    winsize size{};
    std::size_t width = 100, height = 24;
    if (terminal_ && ioctl(fileno(to_), TIOCGWINSZ, &size) == 0 && size.ws_col > 1) {
      width = size.ws_col - 1u;  // a line that wraps cannot be overwritten in place
      height = std::max<std::size_t>(3, size.ws_row);
    }
    auto lines = live_lines(now, elapsed, width);
    if (!terminal_) {
      std::fprintf(to_, "%s\n", lines.front().c_str());
      return;
    }
    clear();
    lines.resize(std::min(lines.size(), height - 1));
    for (const auto& line : lines) std::fprintf(to_, "%s\033[K\n", line.c_str());
    std::fflush(to_);
    lines_ = lines.size();
  }

  /// Prints a line that stays.
  void say(const std::string& text) {
    clear();
    std::fprintf(to_, "%s\n", text.c_str());
    std::fflush(to_);
  }

  void clear() {
    if (lines_ > 0) std::fprintf(to_, "\033[%zuA\033[J", lines_);
    lines_ = 0;
  }

 private:
  using clock = std::chrono::steady_clock;
  FILE* to_;
  bool terminal_;
  std::size_t lines_ = 0;
  clock::time_point start_ = clock::now(), shown_;
};

}  // namespace compare
