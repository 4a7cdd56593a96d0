// SPDX-License-Identifier: MIT
// Child processes in groups of their own, signals that are seen only between two steps, and a
// guard that ends the children if the runner is killed.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace compare {

namespace detail {
inline volatile std::sig_atomic_t stop_signal = 0, stop_count = 0;
}

/// While it lives, SIGINT, SIGTERM, SIGHUP and SIGCHLD arrive only within `wait`. So no signal is
/// lost between a test and a wait, and no system call elsewhere is interrupted.
class signals {
 public:
  signals() {
    detail::stop_signal = 0;
    detail::stop_count = 0;
    struct sigaction stop{}, wake{}, ignore{};
    stop.sa_handler = [](int number) {
      detail::stop_signal = number;
      detail::stop_count = detail::stop_count + 1;
    };
    wake.sa_handler = [](int) {};
    ignore.sa_handler = SIG_IGN;
    for (auto* each : {&stop, &wake, &ignore}) sigemptyset(&each->sa_mask);
    sigset_t blocked;
    sigemptyset(&blocked);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      sigaddset(&blocked, numbers[i]);
      sigaction(numbers[i], numbers[i] == SIGCHLD ? &wake : &stop, &old_actions_[i]);
    }
    sigaction(SIGPIPE, &ignore, &old_pipe_);  // the terminal may go away
    sigprocmask(SIG_BLOCK, &blocked, &before_);
  }
  ~signals() {
    for (std::size_t i = 0; i < numbers.size(); ++i)
      sigaction(numbers[i], &old_actions_[i], nullptr);
    sigaction(SIGPIPE, &old_pipe_, nullptr);
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  signals(const signals&) = delete;
  signals& operator=(const signals&) = delete;

  /// Returns when a signal comes, or after `milliseconds`.
  void wait(long milliseconds) const {
    const timespec time{milliseconds / 1000, (milliseconds % 1000) * 1'000'000};
    ppoll(nullptr, 0, &time, &before_);
  }
  /// The last signal that asks to stop; 0 if there was none.
  static int asked() { return detail::stop_signal; }
  static int times() { return detail::stop_count; }
  /// What a child restores before exec.
  const sigset_t& mask_before() const { return before_; }

 private:
  static constexpr std::array<int, 4> numbers{SIGINT, SIGTERM, SIGHUP, SIGCHLD};
  std::array<struct sigaction, 4> old_actions_{};
  struct sigaction old_pipe_{};
  sigset_t before_{};
};

/// A process that outlives the runner by moments. If the runner ends without a word, by kill -9,
/// the guard asks the children to save and stop, and after `grace` seconds kills what is left.
class guard {
 public:
  explicit guard(int grace) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("cannot create a pipe");
    pid_ = fork();
    if (pid_ < 0) throw std::runtime_error("cannot start a process");
    if (pid_ == 0) {
      close(ends[1]);
      watch(ends[0], grace);
    }
    close(ends[0]);
    pipe_ = ends[1];
  }
  ~guard() {
    close(pipe_);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  guard(const guard&) = delete;
  guard& operator=(const guard&) = delete;

  void started(pid_t group) { tell(group); }
  void ended(pid_t group) { tell(-group); }

 private:
  void tell(pid_t number) const {
    // Shorter than PIPE_BUF, so it is written whole or not at all.
    while (write(pipe_, &number, sizeof number) < 0 && errno == EINTR) {
    }
  }

  [[noreturn]] static void watch(int pipe, int grace) {
    setsid();  // Ctrl-C is for the runner
    prctl(PR_SET_NAME, "compare-guard");
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) std::signal(number, SIG_IGN);
    // Whoever reads the runner's output waits for all who hold it.
    const int nothing = open("/dev/null", O_RDWR);
    for (const int each : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(nothing, each);
    std::vector<pid_t> groups;
    pid_t number = 0;
    for (;;) {
      const auto n = read(pipe, &number, sizeof number);
      if (n < 0 && errno == EINTR) continue;
      if (n != static_cast<ssize_t>(sizeof number)) break;
      if (number > 0)
        groups.push_back(number);
      else
        std::erase(groups, -number);
    }
    for (const auto group : groups) kill(group, SIGTERM);
    for (int tenths = 0; tenths < 10 * grace && !groups.empty(); ++tenths) {
      std::erase_if(groups, [](pid_t group) { return kill(-group, 0) != 0 && errno == ESRCH; });
      if (!groups.empty()) usleep(100'000);
    }
    for (const auto group : groups) kill(-group, SIGKILL);
    _exit(0);
  }

  pid_t pid_ = -1;
  int pipe_ = -1;
};

/// Starts `command` as the leader of a new process group. Its output is appended to `log`.
/// `keep_open` is a descriptor that it inherits. `announce(pid)` is called before the program
/// begins; if the runner is killed before that, the program never begins. Returns the process's id.
template <class Announce>
pid_t start_process(std::vector<std::string> command, const std::filesystem::path& log,
                    int keep_open, const signals& blocked, Announce announce) {
  // All allocations are made before fork, because only system calls are allowed between fork and
  // exec.
  std::vector<char*> arguments;
  for (auto& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::vector<std::string> settings;
  for (char** variable = environ; *variable != nullptr; ++variable)
    settings.emplace_back(*variable);
  // One core for each run, if the user has not said otherwise: several runs are faster than one on
  // several threads.
  for (const std::string usual :
       {"OMP_NUM_THREADS=1", "OMP_WAIT_POLICY=passive", "RETAIN_PROGRESS_SECONDS=5"}) {
    const auto name = usual.substr(0, usual.find('=') + 1);
    if (std::none_of(settings.begin(), settings.end(),
                     [&](const std::string& each) { return each.starts_with(name); }))
      settings.push_back(usual);
  }
  std::vector<char*> environment;
  for (auto& each : settings) environment.push_back(each.data());
  environment.push_back(nullptr);

  const int output = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (output < 0) throw std::runtime_error("cannot write " + log.string());
  std::array<int, 2> go{};
  if (pipe2(go.data(), O_CLOEXEC) != 0) {
    close(output);
    throw std::runtime_error("cannot create a pipe");
  }
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);  // Ctrl-C reaches only the runner, which passes it on once
    close(go[1]);
    char byte = 0;
    if (read(go[0], &byte, 1) != 1) _exit(127);  // the runner is gone
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    const int nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, STDIN_FILENO);
    if (keep_open >= 0) fcntl(keep_open, F_SETFD, 0);
    std::signal(SIGPIPE, SIG_DFL);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) std::signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &blocked.mask_before(), nullptr);
    execve(arguments[0], arguments.data(), environment.data());
    static constexpr std::string_view message = "retain-compare: the program cannot be executed\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, message.data(), message.size());
    _exit(127);
  }
  close(go[0]);
  close(output);
  if (child < 0) {
    close(go[1]);
    throw std::runtime_error("cannot start a child process");
  }
  setpgid(child, child);  // in both processes, since either may run first
  announce(child);
  [[maybe_unused]] const auto begun = write(go[1], "", 1);
  close(go[1]);
  return child;
}

}  // namespace compare
