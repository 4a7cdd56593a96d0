// SPDX-License-Identifier: MIT
// One line of progress on stderr: amount done, speed and remaining time.
#pragma once

#include <unistd.h>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

/// A duration as text, for example "0:42", "12:05" or "1:02:03".
inline std::string clock_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e8) return "-:--";
  const auto all = static_cast<long>(std::lround(seconds));
  char text[32];
  if (all >= 3600)
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", all / 3600, all / 60 % 60, all % 60);
  else
    std::snprintf(text, sizeof text, "%ld:%02ld", all / 60, all % 60);
  return text;
}

/// A number as short text, for example "870", "5.8k" or "1.20M".
inline std::string short_number(double value) {
  char text[32];
  if (std::abs(value) >= 999'500)
    std::snprintf(text, sizeof text, "%.2fM", value / 1e6);
  else if (std::abs(value) >= 9'950)
    std::snprintf(text, sizeof text, "%.0fk", value / 1e3);
  else if (std::abs(value) >= 1'000)
    std::snprintf(text, sizeof text, "%.1fk", value / 1e3);
  else
    std::snprintf(text, sizeof text, "%.0f", value);
  return text;
}

/// Prints the progress of a task. On a terminal, it rewrites one line several times per second.
/// Otherwise, it prints a new line every ten seconds. The environment variable
/// RETAIN_PROGRESS_SECONDS changes this interval; a program that shows the progress of child
/// processes sets it to one.
class progress {
 public:
  progress(std::string what, double total, std::string unit)
      : what_(std::move(what)),
        unit_(std::move(unit)),
        total_(total),
        terminal_(isatty(STDERR_FILENO) != 0) {
    const char* seconds = std::getenv("RETAIN_PROGRESS_SECONDS");
    interval_ = terminal_ ? 0.2 : seconds != nullptr ? std::atof(seconds) : 10.0;
    start_ = last_ = clock::now();
  }
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;
  ~progress() {
    if (terminal_ && shown_) std::fputc('\n', stderr);
  }

  /// Sets the start of a resumed run to `done`, so that earlier work does not count for the rate.
  void start_at(double done) { first_ = done; }

  /// Prints the line if the interval has passed. The call is cheap enough for an inner loop.
  void update(double done, const std::string& note = {}) {
    const auto now = clock::now();
    if (std::chrono::duration<double>(now - last_).count() < interval_) return;
    last_ = now;
    print(done, note);
  }

  /// Prints the last line, independent of the interval.
  void finish(double done, const std::string& note = {}) {
    print(done, note);
    if (terminal_) std::fputc('\n', stderr);
    shown_ = false;
  }

  double seconds() const { return std::chrono::duration<double>(clock::now() - start_).count(); }

 private:
  using clock = std::chrono::steady_clock;

  void print(double done, const std::string& note) {
    const double elapsed = seconds();
    const double rate = elapsed > 0 ? (done - first_) / elapsed : 0;
    std::string line = what_ + "  " + short_number(done);
    if (total_ > 0 && unit_ != "%") line += " of " + short_number(total_);
    line += " " + unit_;
    if (unit_ != "%") {
      if (total_ > 0) line += " (" + std::to_string(std::lround(100 * done / total_)) + " %)";
      line += "  " + (rate < 20 ? decimal(rate) : short_number(rate)) + "/s";
    }
    line += "  " + clock_text(elapsed);
    if (total_ > 0 && done < total_)
      line += ", " + (rate > 0 ? clock_text((total_ - done) / rate) : "-:--") + " left";
    if (!note.empty()) line += "  " + note;
    if (terminal_)
      // the escape sequence clears the rest of a longer previous line
      std::fprintf(stderr, "\r%s\033[K", line.c_str());
    else
      std::fprintf(stderr, "%s\n", line.c_str());
    std::fflush(stderr);
    shown_ = true;
  }

  static std::string decimal(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", value);
    return text;
  }

  std::string what_, unit_;
  double total_ = 0, first_ = 0, interval_ = 10;
  bool terminal_ = false, shown_ = false;
  clock::time_point start_, last_;
};
