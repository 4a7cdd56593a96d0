// SPDX-License-Identifier: MIT
// The folders in which games run: one folder for each game, in one folder for each process. The
// process removes them at its end.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>

#include "../common/temporary_folder.hpp"

namespace nethack {

/// Where Debian's package nethack-console puts the game and its data.
inline const std::string default_package = "/usr/lib/games/nethack";

/// The folder of this process: `retain-nethack-<pid>-XXXXXX` in $TMPDIR or /tmp. It has one copy of
/// the program for all games. A copy is not setgid, so the transport can be preloaded into it.
class process_folder {
 public:
  /// Returns the folder of this process for games of `package`. It is created with the first game
  /// and removed after the last.
  static std::shared_ptr<process_folder> of(const std::string& package) {
    static std::mutex mutex;
    static std::weak_ptr<process_folder> current;
    const std::lock_guard lock(mutex);
    std::shared_ptr<process_folder> folder = current.lock();
    if (!folder || folder->package_ != package || folder->owner_ != getpid())
      current = folder = std::shared_ptr<process_folder>(new process_folder(package));
    return folder;
  }

  ~process_folder() {
    if (owner_ != getpid()) return;  // in a forked process the folder belongs to the parent
    remove_folder(path_);
    if (lock_ >= 0) close(lock_);
  }
  process_folder(const process_folder&) = delete;
  process_folder& operator=(const process_folder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path program() const { return path_ / "nethack"; }

  std::filesystem::path new_game_folder() {
    const auto folder = path_ / ("game-" + std::to_string(next_game_++));
    std::filesystem::create_directory(folder);
    for (const char* name : {"nhdat", "symbols", "hh", "license"})
      std::filesystem::create_symlink(std::filesystem::path(package_) / name, folder / name);
    std::filesystem::create_directory(folder / "save");
    return folder;
  }

  /// The parent of the folders of all processes.
  static std::filesystem::path parent() {
    const char* chosen = std::getenv("TMPDIR");
    return chosen && *chosen ? chosen : "/tmp";
  }

  /// Removes the folders of processes that were killed. A folder is in use as long as its process
  /// lives. A lock shows this too if the process is not visible (another container with the same
  /// /tmp).
  static void sweep() {
    std::error_code error;
    for (std::filesystem::directory_iterator entry(parent(), error), end; !error && entry != end;
         entry.increment(error)) {
      const std::string name = entry->path().filename().string();
      if (!name.starts_with(prefix)) continue;
      const long process = std::strtol(name.c_str() + std::strlen(prefix), nullptr, 10);
      if (process <= 0 || kill(static_cast<pid_t>(process), 0) == 0 || errno != ESRCH) continue;
      const int lock = open((entry->path() / "lock").c_str(), O_RDWR | O_CLOEXEC);
      const bool held = lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) != 0;
      if (!held) remove_folder(entry->path());
      if (lock >= 0) close(lock);
    }
  }

  /// Makes a folder that sweep() removes when this process is gone.
  static std::filesystem::path new_folder() {
    std::string name = (parent() / (prefix + std::to_string(getpid()) + "-XXXXXX")).string();
    if (!mkdtemp(name.data()))
      throw std::runtime_error("cannot make a folder for games in " + parent().string() + ": " +
                               std::strerror(errno));
    return name;
  }

 private:
  static constexpr const char* prefix = "retain-nethack-";

  explicit process_folder(const std::string& package) : package_(package), owner_(getpid()) {
    const auto original = std::filesystem::path(package) / "nethack-console";
    for (const auto& needed : {original, std::filesystem::path(package) / "nhdat"})
      if (access(needed.c_str(), R_OK) != 0)
        throw std::runtime_error("NetHack is not installed: " + needed.string() +
                                 " is missing; install it with: apt install nethack-console");
    sweep();
    path_ = new_folder();
    try {
      lock_ = open((path_ / "lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
      if (lock_ >= 0) flock(lock_, LOCK_EX | LOCK_NB);
      std::filesystem::copy_file(original, program());
      std::filesystem::permissions(program(), std::filesystem::perms::owner_all);
    } catch (...) {
      remove_folder(path_);
      if (lock_ >= 0) close(lock_);
      throw;
    }
  }

  std::string package_;
  pid_t owner_;
  std::filesystem::path path_;
  int lock_ = -1;
  std::atomic<int> next_game_{0};
};

/// The folder in which one game runs (its HACKDIR).
class playground {
 public:
  explicit playground(const std::string& package)
      : process_(process_folder::of(package)), path_(process_->new_game_folder()) {}
  ~playground() {
    if (process_) remove_folder(path_);
  }
  playground(playground&&) noexcept = default;
  playground& operator=(playground&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path program() const { return process_->program(); }
  std::filesystem::path save_folder() const { return path_ / "save"; }

  /// Resets it to the state before the first game: no level files, no saved game, empty score
  /// lists.
  void clear() {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      if (!entry.is_symlink(error) && !entry.is_directory(error))
        std::filesystem::remove(entry.path(), error);
    for (const auto& entry : std::filesystem::directory_iterator(save_folder()))
      std::filesystem::remove(entry.path(), error);
    for (const char* name : {"perm", "record", "logfile", "xlogfile"}) std::ofstream(path_ / name);
  }

 private:
  std::shared_ptr<process_folder> process_;
  std::filesystem::path path_;
};

}  // namespace nethack
