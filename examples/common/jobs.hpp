// SPDX-License-Identifier: MIT
// Runs commands as child processes. A fixed number of commands runs in parallel, in an order that
// their dependencies allow. One line shows the progress of all commands.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interrupt.hpp"
#include "progress.hpp"

struct job {
  std::string name;
  /// program and arguments; not used if `make_command` is set
  std::vector<std::string> command;
  std::filesystem::path product;        ///< the job is finished if this file exists
  std::filesystem::path log;            ///< stdout and stderr of the child
  std::vector<std::string> after = {};  ///< names of the jobs whose products this job reads
  /// Returns the command when the job starts. Use it if arguments depend on the remaining time.
  std::function<std::vector<std::string>()> make_command = {};
};

struct jobs_result {
  std::size_t finished = 0, skipped = 0;
  bool interrupted = false;
  std::string failed;   ///< name of the first job that failed; after this no new job is started
  std::string message;  ///< the last line that the failed job wrote
  bool ok() const { return !interrupted && failed.empty(); }
};

/// The path of this program, used to start it with another subcommand.
inline std::string this_program() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

class job_runner {
 public:
  /// `alike`: all jobs take about the same time, so the remaining time can be estimated.
  job_runner(std::vector<job> jobs, std::size_t at_a_time, bool alike = false)
      : jobs_(std::move(jobs)),
        states_(jobs_.size()),
        slots_(std::max<std::size_t>(1, at_a_time)),
        alike_(alike),
        terminal_(isatty(STDERR_FILENO) != 0) {
    for (const auto& each : jobs_)
      for (const auto& name : each.after)
        if (index(name) == jobs_.size())
          throw std::logic_error("job " + each.name + " depends on the job " + name +
                                 ", which is not in the list");
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
      for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &allowed)) cores_.push_back(cpu);
  }

  jobs_result run() {
    std::size_t waiting = 0;
    for (std::size_t i = 0; i < jobs_.size(); ++i) {
      if (!std::filesystem::exists(jobs_[i].product)) {
        ++waiting;
        continue;
      }
      states_[i].stage = phase::done;
      ++result_.skipped;
    }
    if (result_.skipped > 0)
      std::fprintf(stderr, "%zu of %zu steps were finished before and are kept\n", result_.skipped,
                   jobs_.size());
    to_do_ = waiting;
    start_ = clock::now();
    for (;;) {
      if (interrupt::requested() && !result_.interrupted) stop_all();
      if (!result_.interrupted && result_.failed.empty()) start_what_can();
      if (running() == 0) break;
      read_children();
      show();
    }
    clear_line();
    return result_;
  }

 private:
  using clock = std::chrono::steady_clock;
  enum class phase { waiting, running, done, failed };
  struct state {
    phase stage = phase::waiting;
    pid_t pid = -1;
    int pipe = -1;
    std::size_t slot = 0;
    std::string partial, line;  // text since the last newline; the last complete line
    std::ofstream log;
    clock::time_point start;
  };

  std::size_t index(const std::string& name) const {
    const auto found = std::find_if(jobs_.begin(), jobs_.end(),
                                    [&](const job& each) { return each.name == name; });
    return static_cast<std::size_t>(found - jobs_.begin());
  }

  std::size_t running() const {
    return static_cast<std::size_t>(std::count_if(
        states_.begin(), states_.end(), [](const state& s) { return s.stage == phase::running; }));
  }

  void start_what_can() {
    for (std::size_t i = 0; i < jobs_.size() && running() < slots_; ++i) {
      if (states_[i].stage != phase::waiting) continue;
      const auto& after = jobs_[i].after;
      if (std::all_of(after.begin(), after.end(),
                      [&](const auto& name) { return states_[index(name)].stage == phase::done; }))
        start(i);
    }
  }

  std::size_t free_slot() const {
    for (std::size_t slot = 0;; ++slot)
      if (std::none_of(states_.begin(), states_.end(),
                       [&](const state& s) { return s.stage == phase::running && s.slot == slot; }))
        return slot;
  }

  void start(std::size_t i) {
    auto command = jobs_[i].make_command ? jobs_[i].make_command() : jobs_[i].command;
    auto& child = states_[i];
    child.slot = free_slot();
    if (jobs_[i].log.has_parent_path())
      std::filesystem::create_directories(jobs_[i].log.parent_path());
    child.log.open(jobs_[i].log, std::ios::app);
    for (const auto& word : command) child.log << word << ' ';
    child.log << std::endl;

    // All allocations are made before fork, because only system calls are allowed between fork and
    // exec.
    std::vector<char*> arguments;
    for (auto& word : command) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    std::vector<std::string> settings{"OMP_NUM_THREADS=1", "OMP_WAIT_POLICY=passive",
                                      "RETAIN_PROGRESS_SECONDS=1"};
    for (char** variable = environ; *variable != nullptr; ++variable) {
      const std::string text = *variable;
      if (!text.starts_with("OMP_NUM_THREADS=") && !text.starts_with("OMP_WAIT_POLICY=") &&
          !text.starts_with("RETAIN_PROGRESS_SECONDS="))
        settings.push_back(text);
    }
    std::vector<char*> environment;
    for (auto& setting : settings) environment.push_back(setting.data());
    environment.push_back(nullptr);
    // Pins each child to a core, but only if the children use all cores. Otherwise, two programs
    // on the same machine could choose the same cores.
    const bool pin = slots_ > 1 && cores_.size() == slots_;
    cpu_set_t core;
    CPU_ZERO(&core);
    if (pin) CPU_SET(cores_[child.slot], &core);

    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0)
      throw std::runtime_error("cannot create a pipe for a child process");
    const pid_t parent = getpid();
    child.pid = fork();
    if (child.pid < 0) throw std::runtime_error("cannot start a child process");
    if (child.pid == 0) {
      setpgid(0, 0);  // Ctrl-C reaches only the parent, which forwards it once
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(127);  // the parent died before the line above
      if (pin) sched_setaffinity(0, sizeof core, &core);
      dup2(ends[1], STDOUT_FILENO);
      dup2(ends[1], STDERR_FILENO);
      const int nothing = open("/dev/null", O_RDONLY);
      dup2(nothing, STDIN_FILENO);
      execve(arguments[0], arguments.data(), environment.data());
      _exit(127);
    }
    close(ends[1]);
    child.pipe = ends[0];
    child.stage = phase::running;
    child.start = clock::now();
  }

  void stop_all() {
    result_.interrupted = true;
    clear_line();
    std::fprintf(stderr,
                 "stopping: waiting for the running steps to save (Ctrl-C again to end at once)\n");
    for (const auto& child : states_)
      if (child.stage == phase::running) kill(child.pid, SIGINT);
  }

  void read_children() {
    std::vector<pollfd> waits;
    std::vector<std::size_t> who;
    for (std::size_t i = 0; i < states_.size(); ++i)
      if (states_[i].stage == phase::running) {
        waits.push_back({states_[i].pipe, POLLIN, 0});
        who.push_back(i);
      }
    if (poll(waits.data(), waits.size(), 200) <= 0) return;
    for (std::size_t j = 0; j < waits.size(); ++j)
      if (waits[j].revents != 0) read_child(who[j]);
  }

  void read_child(std::size_t i) {
    auto& child = states_[i];
    std::array<char, 4096> text;
    const ssize_t n = read(child.pipe, text.data(), text.size());
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) return finish(i);
    for (const char c : std::string_view(text.data(), static_cast<std::size_t>(n))) {
      if (c != '\n' && c != '\r') {
        child.partial += c;
        continue;
      }
      if (child.partial.find_first_not_of(' ') != std::string::npos) child.line = child.partial;
      child.log << child.partial << '\n';
      child.partial.clear();
    }
    child.log.flush();
  }

  void finish(std::size_t i) {
    auto& child = states_[i];
    close(child.pipe);
    if (!child.partial.empty()) child.line = child.partial;
    child.log << child.partial << std::endl;
    int status = 0;
    while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
    }
    const bool good =
        WIFEXITED(status) && WEXITSTATUS(status) == 0 && std::filesystem::exists(jobs_[i].product);
    child.stage = good ? phase::done : phase::failed;
    child.log.close();
    clear_line();
    if (good) {
      ++result_.finished;
      const double seconds = std::chrono::duration<double>(clock::now() - child.start).count();
      std::fprintf(stderr, "%-22s done in %s\n", jobs_[i].name.c_str(),
                   clock_text(seconds).c_str());
    } else if (!result_.interrupted && result_.failed.empty()) {
      result_.failed = jobs_[i].name;
      result_.message = child.line;
      for (const auto& other : states_)  // stops the other jobs; they save their state first
        if (other.stage == phase::running) kill(other.pid, SIGINT);
    }
  }

  void show() {
    const auto now = clock::now();
    if (std::chrono::duration<double>(now - shown_).count() < (terminal_ ? 0.5 : 10.0)) return;
    shown_ = now;
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    std::string line = std::to_string(result_.finished + result_.skipped) + "/" +
                       std::to_string(jobs_.size()) + " " + clock_text(elapsed);
    if (alike_ && result_.finished >= 2 * slots_)
      line += ", " +
              clock_text(elapsed / static_cast<double>(result_.finished) *
                         static_cast<double>(to_do_ - result_.finished)) +
              " left";
    for (std::size_t i = 0; i < states_.size(); ++i)
      if (states_[i].stage == phase::running)
        line += " | " +
                (states_[i].line.empty() ? jobs_[i].name : jobs_[i].name + ": " + states_[i].line);
    if (!terminal_) {
      std::fprintf(stderr, "%s\n", line.c_str());
      return;
    }
    winsize size{};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 &&
        line.size() >= size.ws_col)
      line.resize(size.ws_col - 1u);  // a line that wraps cannot be overwritten in place
    std::fprintf(stderr, "\r%s\033[K", line.c_str());
    std::fflush(stderr);
  }

  void clear_line() {
    if (terminal_) std::fprintf(stderr, "\r\033[K");
  }

  std::vector<job> jobs_;
  std::vector<state> states_;
  std::vector<int> cores_;
  std::size_t slots_, to_do_ = 0;
  bool alike_, terminal_;
  jobs_result result_;
  clock::time_point start_, shown_;
};
