// SPDX-License-Identifier: MIT
// One process of the unmodified game: started, sent keys, read, saved, replaced.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "actions.hpp"
#include "playground.hpp"
#include "terminal.hpp"

namespace nethack {

struct game_options {
  std::string package = default_package;
  /// The preloaded library; empty: $RETAIN_NETHACK_TRANSPORT, or else the one this program was built with.
  std::string transport;
  /// A game that has not answered for so long is taken for hung and killed.
  int hang_timeout_ms = 5000;
};

/// What came of a key: the game waits for the next one, has ended by itself, or was lost (it crashed,
/// was killed from outside, or hung and was killed here).
enum class answer : std::uint8_t { waiting, ended, lost };

class game {
 public:
  explicit game(game_options options = {})
      : options_(std::move(options)), transport_(find_transport(options_.transport)), playground_(options_.package) {}
  ~game() { stop(); }
  game(const game&) = delete;
  game& operator=(const game&) = delete;

  /// Starts a new game; `receive()` then waits for its first screen.
  void start(std::uint64_t seed) {
    stop();
    playground_.clear();
    spawn(seed);
  }

  /// Starts from a file that `save_to` wrote. Whether the game could read it shows on its first screens.
  void start_from(const std::filesystem::path& saved, std::uint64_t seed) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(saved, error))
      throw std::runtime_error("no saved game: " + saved.string());
    stop();
    playground_.clear();
    const auto target = playground_.save_folder() / saved_name;
    std::filesystem::copy_file(saved, target, std::filesystem::copy_options::overwrite_existing, error);
    if (error) throw std::runtime_error("cannot read the saved game " + saved.string() + ": " + error.message());
    std::filesystem::permissions(target, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    spawn(seed);
  }

  void stop() {
    if (process_ > 0) {
      kill(process_, SIGKILL);
      int ignored;
      while (waitpid(process_, &ignored, 0) < 0 && errno == EINTR) {
      }
    }
    process_ = -1;
    if (link_ >= 0) close(link_);
    link_ = -1;
  }

  bool running() const { return process_ > 0; }
  pid_t process() const { return process_; }

  /// Sends one key without waiting. A game that is gone shows in the next `receive()`.
  void send(key code) {
    if (link_ < 0) return;
    while (::send(link_, &code, 1, MSG_NOSIGNAL) < 0 && errno == EINTR) {
    }
  }

  /// Waits until the game wants a key and brings the screen up to date.
  answer receive() {
    if (link_ < 0) return answer::lost;
    for (;;) {
      const ssize_t got = recv(link_, buffer_.data(), buffer_.size(), 0);
      if (got > 0) {
        const auto count = static_cast<std::size_t>(got);
        const bool complete = buffer_[count - 1] == end_of_frame;
        screen_.feed(buffer_.data(), complete ? count - 1 : count);
        if (complete) return answer::waiting;
        continue;
      }
      if (got < 0 && errno == EINTR) continue;
      const bool hung = got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
      return hung ? give_up() : reap();
    }
  }

  const terminal& screen() const { return screen_; }
  terminal& screen() { return screen_; }

  /// Saves a game that waits for a command and ends it; false if it did not write one.
  bool save_to(const std::filesystem::path& file) {
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
    std::filesystem::copy_file(written, file, std::filesystem::copy_options::overwrite_existing);
    return true;
  }

  /// The score the game itself entered in its log of ended games; none while it runs or if it was lost.
  std::optional<long> final_score() const {
    std::ifstream log(playground_.path() / "xlogfile");
    std::string line;
    if (running() || !std::getline(log, line)) return std::nullopt;
    const std::size_t field = line.find("\tpoints=");  // version=3.6.6<tab>points=12<tab>deathdnum=0...
    if (field == std::string::npos) return std::nullopt;
    return std::strtol(line.c_str() + field + 8, nullptr, 10);
  }

  const std::filesystem::path& folder() const { return playground_.path(); }
  long hangs() const { return hangs_; }
  long crashes() const { return crashes_; }

 private:
  static constexpr std::uint8_t end_of_frame = 0xff;
  /// The game names it by the user's number, which the transport fixes, and the hero's name.
  static constexpr const char* saved_name = "1000Agent";
  static constexpr const char* game_settings =
      "NETHACKOPTIONS=windowtype:tty,color,!legacy,!news,!splash_screen,!cmdassist,"
      "disclose:-i -a -v -g -c -o,!mail,!bones,mention_walls,!sparkle,pickup_burden:unencumbered,"
      "pickup_types:$?!/,autopickup,runmode:teleport,showexp,showscore,time,!tombstone,!toptenwin,"
      "!timed_delay,suppress_alert:3.6.6,role:mon,race:hum,gender:mal,align:neu,name:Agent";

  static std::string find_transport(std::string chosen) {
    if (chosen.empty())
      if (const char* from_environment = std::getenv("RETAIN_NETHACK_TRANSPORT")) chosen = from_environment;
#ifdef RETAIN_NETHACK_TRANSPORT
    if (chosen.empty()) chosen = RETAIN_NETHACK_TRANSPORT;
#endif
    // Absolute, as the game starts in a folder of its own; and a missing library would be ignored there.
    std::error_code error;
    const auto path = std::filesystem::absolute(chosen, error);
    if (chosen.empty() || !std::filesystem::exists(path, error))
      throw std::runtime_error("the NetHack transport library is missing: '" + chosen +
                               "'; build it, or name it in RETAIN_NETHACK_TRANSPORT");
    return path.string();
  }

  void spawn(std::uint64_t seed) {
    screen_.reset();
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      throw std::runtime_error(std::string("cannot make a socket for a game: ") + std::strerror(errno));

    const std::string folder = playground_.path().string(), program = playground_.program().string();
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

    // posix_spawn rather than fork: a learner's process is large, and copying its page table is slow.
    // A session of its own keeps a Ctrl-C meant for the learner away from the game.
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    const int error = posix_spawn(&process_, program.c_str(), &actions, &attributes, arguments, environment.data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    if (error != 0) {
      close(ends[0]);
      process_ = -1;
      throw std::runtime_error(std::string("cannot start the game ") + program + ": " + std::strerror(error));
    }
    link_ = ends[0];
    const timeval timeout{options_.hang_timeout_ms / 1000, options_.hang_timeout_ms % 1000 * 1000};
    setsockopt(link_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  }

  answer give_up() {
    ++hangs_;
    stop();
    return answer::lost;
  }

  answer reap() {
    // The link closes as the process ends, so this does not wait for long.
    int state = 0;
    while (waitpid(process_, &state, 0) < 0 && errno == EINTR) {
    }
    process_ = -1;
    stop();
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return answer::ended;
    ++crashes_;
    return answer::lost;
  }

  game_options options_;
  std::string transport_;
  playground playground_;
  terminal screen_;
  pid_t process_ = -1;
  int link_ = -1;
  long hangs_ = 0, crashes_ = 0;
  std::array<std::uint8_t, 16384> buffer_{};
};

}  // namespace nethack
