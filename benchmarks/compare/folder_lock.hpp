// SPDX-License-Identifier: MIT
// A lock on a run's folder, which the run inherits: the folder stays locked as long as any process
// of the run lives, even if the runner was killed.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>

namespace compare {

class folder_lock {
 public:
  folder_lock() = default;
  folder_lock(folder_lock&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  folder_lock& operator=(folder_lock&& other) noexcept {
    std::swap(file_, other.file_);
    return *this;
  }
  ~folder_lock() { release(); }

  /// Tries to lock the folder, which it creates. Returns false if another process has it. Throws
  /// std::runtime_error if the folder cannot be used.
  bool take(const std::filesystem::path& folder) {
    release();
    // The folder may be removed and made again between the two system calls.
    for (int tries = 0; tries < 100; ++tries) {
      std::filesystem::create_directories(folder);
      file_ = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (file_ < 0 && errno == ENOENT) continue;
      if (file_ < 0) fail(folder);
      if (flock(file_, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
          release();
          return false;
        }
        // Network file systems lock only files that are open for writing.
        if (errno != EBADF && errno != ENOLCK && errno != EOPNOTSUPP && errno != EINVAL)
          fail(folder);
        return take_file(folder);
      }
      if (still_at(folder)) return true;
      release();
    }
    throw std::runtime_error("the folder " + folder.string() + " vanishes again and again");
  }

  bool taken() const { return file_ >= 0; }

  /// Whether the locked folder is still at its place: somebody may have removed or replaced it.
  bool still_at(const std::filesystem::path& folder) const {
    struct stat opened{}, named{};
    if (fstat(file_, &opened) != 0) return false;
    if (!S_ISDIR(opened.st_mode)) return std::filesystem::exists(folder / ".lock");
    return stat(folder.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
           opened.st_dev == named.st_dev;
  }

  /// The descriptor that a child process must keep open.
  int descriptor() const { return file_; }

  /// Closes this process's part of the lock.
  void release() {
    if (file_ >= 0) close(file_);
    file_ = -1;
  }

 private:
  bool take_file(const std::filesystem::path& folder) {
    release();
    const auto path = folder / ".lock";
    file_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file_ < 0) fail(path);
    if (flock(file_, LOCK_EX | LOCK_NB) == 0) return true;
    if (errno != EWOULDBLOCK) fail(path);
    release();
    return false;
  }

  [[noreturn]] void fail(const std::filesystem::path& path) {
    const std::string reason = std::strerror(errno);
    release();
    throw std::runtime_error("cannot lock " + path.string() + ": " + reason);
  }

  int file_ = -1;
};

}  // namespace compare
