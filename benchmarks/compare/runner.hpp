// SPDX-License-Identifier: MIT
// Runs units as processes: finds what is finished, continues what was stopped, keeps what failed.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "folder_lock.hpp"
#include "live.hpp"
#include "plan.hpp"
#include "process.hpp"
#include "record.hpp"

namespace compare {

struct runner_options {
  std::size_t jobs = 1;
  int grace = 60;    ///< seconds that a run has to save itself
  int attempts = 3;  ///< starts of a run that is killed from outside, in one call
  bool retry_failed = false;
};

/// Exit codes of `retain-compare run` and `tune`. A signal gives 128 + its number.
inline constexpr int all_finished = 0, some_failed = 3;

/// Throws std::runtime_error if the record in the unit's folder is of another run.
inline void check_same_run(const unit& wanted, const run_record& record) {
  if (record.status == run_status::untouched) return;
  for (const auto& [key, value] : wanted.identity.items())
    if (key != "experiment" && (!record.identity.contains(key) || record.identity.at(key) != value))
      throw std::runtime_error(
          wanted.folder.string() + " holds a run with " + key + " = " +
          (record.identity.contains(key) ? record.identity.at(key).dump() : "nothing") + ", not " +
          value.dump() + ": use another folder with --out, or remove this one");
}

/// Whether a whole JSON file, or a file of another kind that is not empty, is there.
inline bool product_is_there(const std::filesystem::path& product) {
  std::error_code missing;
  if (!std::filesystem::is_regular_file(product, missing)) return false;
  if (product.extension() != ".json") return std::filesystem::file_size(product, missing) > 0;
  std::ifstream file(product);
  return json::accept(file);
}

/// The first file that a finished run must have and this one has not; empty if all are there.
inline std::string missing_of(const unit& what) {
  if (!product_is_there(what.product)) return what.product.filename().string();
  if (what.identity.at("kind") != "teacher" &&
      !std::filesystem::exists(what.folder / "metrics.csv"))
    return "metrics.csv";
  return {};
}

/// Removes what a process left that was killed while it wrote a file: NAME.PID.NUMBER.COUNT.tmp.
/// To be called only with the folder's lock, when no process writes there.
inline void remove_half_files(const std::filesystem::path& folder) {
  static const std::regex half(R"(.+\.[0-9]+\.[0-9]+\.[0-9]+\.tmp)");
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (std::regex_match(entry.path().filename().string(), half)) found.push_back(entry.path());
  for (const auto& path : found) std::filesystem::remove(path);
}

class runner {
 public:
  runner(std::vector<unit> units, runner_options options, live_view& view)
      : units_(std::move(units)), states_(units_.size()), options_(options), view_(view) {}

  /// Returns the exit code.
  int run() {
    for (std::size_t i = 0; i < units_.size(); ++i) look(i);
    guard children(options_.grace);
    const signals blocked;
    guard_ = &children;
    signals_ = &blocked;
    try {
      for (;;) {
        reap();
        const auto asked = signals::asked();
        if (asked != 0 && !stopping_) stop_all(asked == SIGHUP ? SIGTERM : asked);
        if (stopping_ && (signals::times() > 1 || clock::now() > deadline_)) kill_all();
        if (!stopping_) start_what_can();
        if (!left()) break;
        show();
        blocked.wait(busy() ? 200 : 500);
      }
    } catch (...) {  // a full disk, for example: nothing is left running without a runner
      view_.clear();
      kill_all();
      while (running() > 0) {
        blocked.wait(100);
        for (auto& each : states_)
          if (each.stage == phase::running && waitpid(each.pid, nullptr, WNOHANG) == each.pid)
            each.stage = phase::stopped;
      }
      throw;
    }
    view_.clear();
    return signals::asked() != 0 ? 128 + signals::asked() : summary();
  }

 private:
  using clock = std::chrono::steady_clock;
  enum class phase { waiting, running, stopped, finished, failed };
  struct progress_of {
    phase stage = phase::waiting;
    run_record record;
    folder_lock lock;
    pid_t pid = -1;
    int tries = 0;
    bool elsewhere = false;  // another process has the folder
    clock::time_point start, look_again;
    double seconds_before = 0, first_step = 0;
  };

  /// What is known without the lock.
  void look(std::size_t i) {
    auto& state = states_[i];
    state.record = read_record(units_[i].folder);
    check_same_run(units_[i], state.record);
    settle(i);
    if (state.stage == phase::finished) ++found_finished_;
  }

  /// Decides whether there is anything to do.
  void settle(std::size_t i) {
    auto& state = states_[i];
    if (state.record.status == run_status::finished && missing_of(units_[i]).empty())
      state.stage = phase::finished;
    if (state.record.status == run_status::failed && !options_.retry_failed)
      state.stage = phase::failed;
  }

  bool blocked_by_failure(std::size_t i) const {
    const auto& after = units_[i].after;
    return std::any_of(after.begin(), after.end(), [&](std::size_t needed) {
      return states_[needed].stage == phase::failed || blocked_by_failure(needed);
    });
  }

  void start_what_can() {
    for (std::size_t i = 0; i < units_.size() && running() < options_.jobs; ++i) {
      auto& state = states_[i];
      if (state.stage != phase::waiting || clock::now() < state.look_again) continue;
      const auto& after = units_[i].after;
      if (std::all_of(after.begin(), after.end(),
                      [&](std::size_t needed) { return states_[needed].stage == phase::finished; }))
        start(i);
    }
  }

  void start(std::size_t i) {
    auto& state = states_[i];
    const auto& what = units_[i];
    state.elsewhere = !state.lock.take(what.folder);
    if (state.elsewhere) {
      state.look_again = clock::now() + std::chrono::milliseconds(500);
      return;
    }
    remove_half_files(what.folder);
    // Another runner may have been here since the last look.
    state.record = read_record(what.folder);
    check_same_run(what, state.record);
    if (state.tries == 0) settle(i);
    if (state.stage != phase::waiting) return state.lock.release();
    // The runner of this run was killed, but not the run: its last act is to write the product.
    if ((state.record.status == run_status::running ||
         state.record.status == run_status::stopped) &&
        missing_of(what).empty()) {
      state.record.status = run_status::finished;
      state.record.ended = "after its runner";
      write_record(what.folder, state.record);
      state.stage = phase::finished;
      return state.lock.release();
    }
    ++state.tries;
    ++state.record.attempts;
    state.record.identity = what.identity;
    state.record.command = what.command;
    state.record.status = run_status::running;
    state.record.ended.clear();
    state.record.host = host_name();
    state.seconds_before = state.record.seconds;
    const auto log = what.folder / "log.txt";
    {
      std::ofstream begin(log, std::ios::app);
      const std::time_t now = std::time(nullptr);
      begin << "# " << std::put_time(std::gmtime(&now), "%F %T UTC") << ", attempt "
            << state.record.attempts << ":";
      for (const auto& word : what.command) begin << ' ' << word;
      begin << "\n";
    }
    // Before the start: a run that is killed in its first moment is known to have begun.
    write_record(what.folder, state.record);
    state.pid = start_process(what.command, log, state.lock.descriptor(), *signals_,
                              [&](pid_t child) { guard_->started(child); });
    state.stage = phase::running;
    state.start = clock::now();
    state.first_step = last_step(what.folder);
    state.record.pid = state.pid;
    write_record(what.folder, state.record);
  }

  void reap() {
    for (std::size_t i = 0; i < states_.size(); ++i) {
      auto& state = states_[i];
      if (state.stage != phase::running) continue;
      siginfo_t ended{};
      if (waitid(P_PID, static_cast<id_t>(state.pid), &ended, WEXITED | WNOHANG | WNOWAIT) != 0 ||
          ended.si_pid != state.pid)
        continue;
      kill(-state.pid, SIGKILL);  // what the run has left behind; before its number is free again
      int status = 0;
      while (waitpid(state.pid, &status, 0) < 0 && errno == EINTR) {
      }
      end(i, status);
    }
  }

  void end(std::size_t i, int status) {
    auto& state = states_[i];
    const auto& what = units_[i];
    guard_->ended(state.pid);
    const double seconds = std::chrono::duration<double>(clock::now() - state.start).count();
    state.record.seconds = state.seconds_before + seconds;
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    const int signal = WIFSIGNALED(status)        ? WTERMSIG(status)
                       : code > 128 && code < 160 ? code - 128
                                                  : 0;
    state.record.ended = WIFEXITED(status) ? "exit code " + std::to_string(code)
                                           : "signal " + std::to_string(signal);
    // A run that somebody stops, or for which the memory was too small, may succeed another time.
    const bool killed =
        signal == SIGKILL || signal == SIGTERM || signal == SIGINT || signal == SIGHUP;
    const bool moved = !state.lock.still_at(what.folder);
    const auto missing = moved ? std::string() : missing_of(what);
    if (code == 0 && !moved && missing.empty()) {
      state.stage = phase::finished;
    } else if (stopping_) {
      state.stage = phase::stopped;
    } else if (killed && state.tries < options_.attempts) {
      state.stage = phase::waiting;
    } else {
      state.stage = phase::failed;
      if (!missing.empty() && code == 0) state.record.ended += " without " + missing;
      if (moved)
        state.record.ended = "its folder was removed while it ran; remove what is left of it";
    }
    state.record.status = state.stage == phase::finished ? run_status::finished
                          : state.stage == phase::failed ? run_status::failed
                                                         : run_status::stopped;
    std::filesystem::create_directories(what.folder);  // somebody may have removed it
    remove_half_files(what.folder);
    write_record(what.folder, state.record);
    state.lock.release();
    if (state.stage == phase::finished) {
      view_.say(what.name + " finished in " + clock_text(state.record.seconds));
    } else if (state.stage == phase::failed) {
      view_.say(what.name + " failed (" + state.record.ended +
                "): " + last_line(what.folder / "log.txt"));
    } else if (state.stage == phase::waiting) {
      view_.say(what.name + " was killed (" + state.record.ended + ") and is started again");
    }
  }

  void stop_all(int signal) {
    stopping_ = true;
    deadline_ = clock::now() + std::chrono::seconds(options_.grace);
    view_.say("stopping: waiting until the " + std::to_string(running()) +
              " that run have saved (Ctrl-C again to end at once)");
    for (const auto& each : states_)
      if (each.stage == phase::running) kill(each.pid, signal);
  }

  void kill_all() {
    for (const auto& each : states_)
      if (each.stage == phase::running) kill(-each.pid, SIGKILL);
  }

  std::size_t count(phase stage) const {
    return static_cast<std::size_t>(
        std::count_if(states_.begin(), states_.end(),
                      [&](const progress_of& each) { return each.stage == stage; }));
  }
  std::size_t running() const { return count(phase::running); }
  bool busy() const { return running() > 0; }

  /// Whether anything runs or will run.
  bool left() const {
    if (running() > 0) return true;
    if (stopping_) return false;
    for (std::size_t i = 0; i < states_.size(); ++i)
      if (states_[i].stage == phase::waiting && !blocked_by_failure(i)) return true;
    return false;
  }

  void show() {
    if (!view_.due()) return;
    live_state now;
    now.total = units_.size();
    now.finished = count(phase::finished);
    now.failed = count(phase::failed);
    struct time_of_kind {
      double seconds = 0, units = 0, rest = 0;
    };
    std::map<std::string, time_of_kind> times;  // teachers and runs take different times
    for (std::size_t i = 0; i < units_.size(); ++i) {
      const auto& state = states_[i];
      auto& kind = times[units_[i].identity.at("kind").get<std::string>()];
      if (state.stage == phase::finished) {
        kind.seconds += state.record.seconds;
        kind.units += 1;
      }
      if (state.stage == phase::waiting && !blocked_by_failure(i)) kind.rest += 1;
      now.elsewhere += state.stage == phase::waiting && state.elsewhere ? 1 : 0;
      if (state.stage != phase::running) continue;
      live_run line;
      line.name = units_[i].name;
      line.seconds = std::chrono::duration<double>(clock::now() - state.start).count();
      line.step = last_step(units_[i].folder);
      line.steps = static_cast<double>(units_[i].steps);
      if (line.seconds > 0) line.rate = std::max(0.0, line.step - state.first_step) / line.seconds;
      line.note = last_line(units_[i].folder / "log.txt");
      if (line.note.starts_with("# ")) line.note.clear();  // the runner's own line
      const double part = line.steps > 0 ? std::min(1.0, line.step / line.steps) : 0;
      kind.rest += 1 - part;
      kind.seconds += part > 0 ? state.seconds_before + line.seconds : 0;
      kind.units += part;
      now.runs.push_back(std::move(line));
    }
    now.left = 0;
    for (const auto& [name, kind] : times)
      if (kind.rest > 0) now.left += kind.rest * kind.seconds / kind.units;  // NaN: unknown
    now.left /= static_cast<double>(std::max<std::size_t>(1, options_.jobs));
    view_.show(now);
  }

  int summary() {
    std::size_t blocked = 0;
    for (std::size_t i = 0; i < units_.size(); ++i)
      blocked += states_[i].stage == phase::waiting && blocked_by_failure(i) ? 1 : 0;
    const auto failed = count(phase::failed);
    view_.say(
        std::to_string(count(phase::finished)) + " of " + std::to_string(units_.size()) +
        " finished (" + std::to_string(found_finished_) + " before)" +
        (failed > 0 ? ", " + std::to_string(failed) + " failed" : "") +
        (blocked > 0 ? ", " + std::to_string(blocked) + " not started because of these" : ""));
    for (std::size_t i = 0; i < units_.size(); ++i)
      if (states_[i].stage == phase::failed)
        view_.say("failed: " + (units_[i].folder / "log.txt").string() + " (" +
                  states_[i].record.ended + "); --retry-failed starts it again");
    return failed > 0 ? some_failed : all_finished;
  }

  std::vector<unit> units_;
  std::vector<progress_of> states_;
  runner_options options_;
  live_view& view_;
  guard* guard_ = nullptr;
  const signals* signals_ = nullptr;
  bool stopping_ = false;
  clock::time_point deadline_;
  std::size_t found_finished_ = 0;
};

}  // namespace compare
