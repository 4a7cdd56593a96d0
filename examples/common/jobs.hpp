// SPDX-License-Identifier: MIT
// Runs commands as child processes, so many at a time, in an order that their dependencies allow,
// with the progress of all of them on one line.
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
  /// program and arguments; asked for at the start when `make_command` is set
  std::vector<std::string> command;
  std::filesystem::path product;        ///< the file whose presence says that the job is finished
  std::filesystem::path log;            ///< stdout and stderr of the child
  std::vector<std::string> after = {};  ///< names of jobs whose products this one reads
  /// for arguments that depend on the time left
  std::function<std::vector<std::string>()> make_command = {};
};

struct jobs_result {
  std::size_t finished = 0, skipped = 0;
  bool interrupted = false;
  std::string failed;   ///< name of the first job that failed; no new one is started after it
  std::string message;  ///< the last line that it wrote
  bool ok() const { return !interrupted && failed.empty(); }
};

/// This program's own path, to start it again with another subcommand.
inline std::string this_program() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

class job_runner {
 public:
  /// `alike`: the jobs take about as long as one another, so what is left can be told from what is
  /// done.
  job_runner(std::vector<job> jobs, std::size_t at_a_time, bool alike = false)
      : jobs_(std::move(jobs)),
        states_(jobs_.size()),
        slots_(std::max<std::size_t>(1, at_a_time)),
        alike_(alike),
        terminal_(isatty(STDERR_FILENO) != 0) {
    for (const auto& each : jobs_)
      for (const auto& name : each.after)
        if (index(name) == jobs_.size())
          throw std::logic_error("job " + each.name + " waits for an unknown job " + name);
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
    std::string partial, line;  // what came since the last newline; the last whole line
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

    // Everything that allocates is done before fork: between fork and exec only system calls are
    // allowed.
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
    // A core for each child, but only when the children fill the machine anyway: pinned in part of
    // it, two programs would choose the same cores.
    const bool pin = slots_ > 1 && cores_.size() == slots_;
    cpu_set_t core;
    CPU_ZERO(&core);
    if (pin) CPU_SET(cores_[child.slot], &core);

    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe for a child process");
    const pid_t parent = getpid();
    child.pid = fork();
    if (child.pid < 0) throw std::runtime_error("could not start a child process");
    if (child.pid == 0) {
      setpgid(0, 0);  // Ctrl-C reaches the parent only, which passes it on once
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
      for (const auto& other : states_)  // what the others did is saved; their time is the user's
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
      line.resize(size.ws_col - 1u);  // a wrapped line cannot be rewritten in place
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
