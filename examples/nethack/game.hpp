// SPDX-License-Identifier: MIT
// One process of the unmodified game: starts it, sends keys, reads screens, saves and replaces it.
#pragma once

#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <retain/files/new_file.hpp>

#include "actions.hpp"
#include "link.h"
#include "machine.hpp"
#include "playground.hpp"
#include "terminal.hpp"

namespace nethack {

struct game_options {
  std::string package = default_package;
  /// The preloaded library; empty: $RETAIN_NETHACK_TRANSPORT, or else the library that the program
  /// was built with.
  std::string transport;
  /// A game that has not answered for this long has hung and is killed.
  int hang_timeout_ms = 5000;
};

class game : public machine {
 public:
  explicit game(game_options options = {})
      : options_(std::move(options)),
        transport_(find_transport(options_.transport)),
        playground_(options_.package) {}
  ~game() override {
    stop();
    unmap();
  }

  /// Starts a new game. `receive()` then waits for its first screen.
  void start(std::uint64_t seed) override {
    stop();
    playground_.clear();
    spawn(seed);
  }

  /// Starts from a file that `save_to` wrote. The first screens show whether the game could read
  /// the file.
  void start_from(const std::filesystem::path& saved, std::uint64_t seed) override {
    std::error_code error;
    if (!std::filesystem::is_regular_file(saved, error))
      throw std::runtime_error("no saved game: " + saved.string());
    stop();
    playground_.clear();
    const auto target = playground_.save_folder() / saved_name;
    std::filesystem::copy_file(saved, target, std::filesystem::copy_options::overwrite_existing,
                               error);
    if (error)
      throw std::runtime_error("cannot read the saved game " + saved.string() + ": " +
                               error.message());
    std::filesystem::permissions(
        target, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    spawn(seed);
  }

  void stop() override {
    if (process_ > 0) {
      kill(process_, SIGKILL);
      int ignored;
      while (waitpid(process_, &ignored, 0) < 0 && errno == EINTR) {
      }
    }
    process_ = -1;
  }

  bool running() const override { return process_ > 0; }
  /// Whether the last game ended by itself, with or without an error. False while the game runs and
  /// if it was lost without a final message.
  bool left() const override { return left_; }
  pid_t process() const override { return process_; }

  /// Sends one key without waiting. If the game is gone, the next `receive()` reports it.
  void send(key code) override {
    if (!running()) return;
    link_->key = code;
    __atomic_fetch_add(&link_->keys, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &link_->keys, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }

  /// Waits until the game needs a key and updates the screen.
  answer receive() override {
    for (;;) {
      if (!running()) return answer::lost;
      if (!frame_there() && !await_frame()) return answer::lost;
      ++frames_seen_;
      screen_.feed(link_->frame, std::min<std::size_t>(link_->frame_size, nethack_frame_capacity));
      if (__atomic_load_n(&link_->ended, __ATOMIC_ACQUIRE)) return reap();
      if (!link_->frame_partial) return answer::waiting;
      send(0);
    }
  }

  /// Saves a game that waits for a command and ends it. Returns false if the game did not write a
  /// save.
  bool save_to(const std::filesystem::path& file) override {
    for (const char code : {'S', 'y'}) {
      send(static_cast<key>(code));
      if (receive() != answer::waiting) break;
    }
    for (int i = 0; running() && i < 10; ++i) {
      send(keys::enter);
      receive();
    }
    std::error_code error;
    const auto written = playground_.save_folder() / saved_name;
    if (running() || !std::filesystem::exists(written, error)) return false;
    if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
    std::ifstream in(written, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    if (!in) throw std::runtime_error("cannot read the saved game " + written.string());
    retain::detail::new_file saved(file.string());
    saved.put(bytes);
    saved.take_place();
    return true;
  }

  /// The score that the game itself wrote to its log of ended games. nullopt while the game runs or
  /// if it was lost.
  std::optional<long> final_score() const override {
    std::ifstream log(playground_.path() / "xlogfile");
    std::string line;
    if (running() || !std::getline(log, line)) return std::nullopt;
    // version=3.6.6<tab>points=12<tab>deathdnum=0...
    const std::size_t field = line.find("\tpoints=");
    if (field == std::string::npos) return std::nullopt;
    return std::strtol(line.c_str() + field + 8, nullptr, 10);
  }

  const std::filesystem::path& folder() const { return playground_.path(); }
  long hangs() const override { return hangs_; }
  long crashes() const override { return crashes_; }

 private:
  /// The game forms the name from the user's number, which the transport fixes, and the hero's
  /// name.
  static constexpr const char* saved_name = "1000Agent";
  static constexpr const char* game_settings =
      "NETHACKOPTIONS=windowtype:tty,color,!legacy,!news,!splash_screen,!cmdassist,"
      "disclose:-i -a -v -g -c -o,!mail,!bones,mention_walls,!sparkle,pickup_burden:unencumbered,"
      "pickup_types:$?!/,autopickup,runmode:teleport,showexp,showscore,time,!tombstone,!toptenwin,"
      "!timed_delay,suppress_alert:3.6.6,role:mon,race:hum,gender:mal,align:neu,name:Agent";

  static std::string find_transport(std::string chosen) {
    if (chosen.empty())
      if (const char* from_environment = std::getenv("RETAIN_NETHACK_TRANSPORT"))
        chosen = from_environment;
#ifdef RETAIN_NETHACK_TRANSPORT
    if (chosen.empty()) chosen = RETAIN_NETHACK_TRANSPORT;
#endif
    // An absolute path, because the game starts in its own folder, and the loader ignores a missing
    // library.
    std::error_code error;
    const auto path = std::filesystem::absolute(chosen, error);
    if (chosen.empty() || !std::filesystem::exists(path, error))
      throw std::runtime_error("the NetHack transport library is missing: '" + chosen +
                               "'; build it, or set RETAIN_NETHACK_TRANSPORT to its path");
    return path.string();
  }

  void spawn(std::uint64_t seed) {
    screen_.reset();
    left_ = false;
    const int memory = link_memory();
    const std::string folder = playground_.path().string(),
                      program = playground_.program().string();
    std::vector<std::string> variables{game_settings,
                                       "HACKDIR=" + folder,
                                       "HOME=" + folder,
                                       "TERM=ansi",
                                       "TZ=UTC",
                                       "LINES=24",
                                       "COLUMNS=80",
                                       "USER=agent",
                                       "LOGNAME=agent",
                                       "LD_PRELOAD=" + transport_,
                                       "RETAIN_NETHACK_SEED=" + std::to_string(seed),
                                       "RETAIN_NETHACK_PARENT=" + std::to_string(getpid())};
    std::vector<char*> environment;
    for (std::string& variable : variables) environment.push_back(variable.data());
    environment.push_back(nullptr);
    std::string name = "nethack";
    char* arguments[] = {name.data(), nullptr};

    // posix_spawn instead of fork: a learner's process is large, and copying its page table is
    // slow. The game gets its own session, so that a Ctrl-C for the learner does not reach the
    // game. It gets an empty signal mask, so that it receives the signal of the learner's end.
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, memory, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    const int error = posix_spawn(&process_, program.c_str(), &actions, &attributes, arguments,
                                  environment.data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(memory);
    if (error != 0) {
      process_ = -1;
      throw std::runtime_error(std::string("cannot start the game ") + program + ": " +
                               std::strerror(error));
    }
  }

  /// New shared memory for each game, so that a game that is slow to end cannot write into the next
  /// game's memory.
  int link_memory() {
    unmap();
    const int memory = memfd_create("nethack", MFD_CLOEXEC);
    void* mapped = MAP_FAILED;
    if (memory >= 0 && ftruncate(memory, sizeof(nethack_link)) == 0)
      mapped = mmap(nullptr, sizeof(nethack_link), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (mapped == MAP_FAILED) {
      const int error = errno;
      if (memory >= 0) close(memory);
      throw std::runtime_error(std::string("cannot share memory with a game: ") +
                               std::strerror(error));
    }
    link_ = static_cast<nethack_link*>(mapped);
    frames_seen_ = 0;
    return memory;
  }

  void unmap() {
    if (link_) munmap(link_, sizeof(nethack_link));
    link_ = nullptr;
  }

  bool frame_there() const {
    return __atomic_load_n(&link_->frames, __ATOMIC_SEQ_CST) != frames_seen_;
  }

  /// Sleeps until a frame arrives. A game that died without a message wakes nobody, so this checks
  /// from time to time.
  bool await_frame() {
    using clock = std::chrono::steady_clock;
    constexpr timespec slice{0, 20'000'000};
    std::optional<clock::time_point> deadline;
    __atomic_store_n(&link_->player_asleep, 1u, __ATOMIC_SEQ_CST);
    bool there;
    while (!(there = frame_there())) {
      if (syscall(SYS_futex, &link_->frames, FUTEX_WAIT, frames_seen_, &slice, nullptr, 0) == 0 ||
          errno != ETIMEDOUT)
        continue;
      if (!deadline)
        deadline = clock::now() + std::chrono::milliseconds(options_.hang_timeout_ms) -
                   std::chrono::milliseconds(20);
      int state = 0;
      if (waitpid(process_, &state, WNOHANG) == process_) {
        process_ = -1;
        ++crashes_;
        break;
      }
      if (clock::now() >= *deadline && !frame_there()) {
        ++hangs_;
        stop();
        break;
      }
    }
    __atomic_store_n(&link_->player_asleep, 0u, __ATOMIC_RELAXED);
    return there;
  }

  /// The game has reported its end. This waits for the end of the process.
  answer reap() {
    int state = 0;
    while (waitpid(process_, &state, 0) < 0 && errno == EINTR) {
    }
    process_ = -1;
    left_ = WIFEXITED(state);
    if (left_ && WEXITSTATUS(state) == 0) return answer::ended;
    ++crashes_;
    return answer::lost;
  }

  game_options options_;
  std::string transport_;
  playground playground_;
  pid_t process_ = -1;
  bool left_ = false;
  nethack_link* link_ = nullptr;
  std::uint32_t frames_seen_ = 0;
  long hangs_ = 0, crashes_ = 0;
};

}  // namespace nethack
