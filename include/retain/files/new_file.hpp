// SPDX-License-Identifier: MIT
// Writes files atomically: under a temporary name in the same folder, then renamed. Does not need
// LibTorch.
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace retain::detail {

/// Returns "a folder", "a pipe" and so on. Returns an empty text for a regular file or a missing
/// file.
inline std::string what_else_is(const std::string& path) {
  std::error_code error;
  switch (std::filesystem::status(path, error).type()) {
    case std::filesystem::file_type::directory: return "a folder";
    case std::filesystem::file_type::fifo: return "a pipe";
    case std::filesystem::file_type::socket: return "a socket";
    case std::filesystem::file_type::block:
    case std::filesystem::file_type::character: return "a device";
    default: return {};
  }
}

/// Throws io_error if `path` is a folder, a device, a pipe or a socket, because a rename would
/// replace a device or a pipe like an old file.
inline void refuse_what_is_no_file(const std::string& path) {
  if (const auto other = what_else_is(path); !other.empty())
    throw io_error(
        concat("cannot write '", path, "': it is ", other, ", not a file; choose another path"));
}

/// Returns the path of the file that a write to `path` replaces. Follows symbolic links; the links
/// themselves stay. Throws io_error if the target is not a file, or if a link cannot be read.
inline std::string place_of(const std::string& path) {
  refuse_what_is_no_file(path);
  std::filesystem::path place = path;
  std::error_code error;
  for (int links = 0; std::filesystem::is_symlink(std::filesystem::symlink_status(place, error));
       ++links) {
    if (links == 40)
      throw io_error(concat("cannot write '", path, "': its symbolic links form a cycle"));
    const auto next = std::filesystem::read_symlink(place, error);
    if (error)
      throw io_error(concat("cannot write '", path, "': the link '", place.string(),
                            "' cannot be read: ", error.message()));
    place = place.parent_path() / next;
  }
  return place.string();
}

/// Returns the process id, or 0 on systems without fork.
inline long this_process() {
#if defined(__unix__) || defined(__APPLE__)
  return static_cast<long>(::getpid());
#else
  return 0;
#endif
}

/// Returns a unique name in the folder of `path`. Other threads, processes and machines may write
/// the same file at the same time. A forked process has the same random number and count, but
/// another process id.
inline std::string temporary_name(const std::string& path) {
  static const unsigned program = std::random_device{}();
  static std::atomic<unsigned> count{0};
  return concat(path, '.', this_process(), '.', program, '.', count++, ".tmp");
}

/// A temporary file in the folder of `path`. The destructor removes it unless take_place() renamed
/// it. Every function throws io_error on failure and leaves the file at `path` unchanged. After a
/// fork, only the process that created the object may write, rename or remove the file.
class new_file {
 public:
  /// `suffix` is part of the temporary name. It distinguishes several temporary files for the same
  /// `path`.
  explicit new_file(const std::string& path, const std::string& suffix = {})
      : path_(path), place_(place_of(path)) {
    for (int attempt = 0; attempt < 100 && !file_; ++attempt) {
      name_ = temporary_name(place_ + suffix);
      file_.reset(std::fopen(name_.c_str(), "w+bx"));  // x: fail if the file exists
      if (!file_ && errno != EEXIST) break;
    }
    if (!file_) fail("create");
    // Without a buffer, because both processes would write its contents after a fork.
    std::setvbuf(file_.get(), nullptr, _IONBF, 0);
  }
  new_file(new_file&& other) noexcept
      : path_(std::move(other.path_)),
        place_(std::move(other.place_)),
        name_(std::exchange(other.name_, {})),
        file_(std::move(other.file_)),
        owner_(other.owner_) {}
  new_file& operator=(new_file&&) = delete;
  ~new_file() {
    if (name_.empty()) return;
    file_.reset();
    if (owner_ == this_process()) std::remove(name_.c_str());
  }

  void put(const void* data, std::size_t size) {
    refuse_a_copy();
    if (size != 0 && std::fwrite(data, 1, size, file_.get()) != size) fail("write");
  }
  void put(std::string_view text) { put(text.data(), text.size()); }
  /// Overwrites bytes at an earlier position.
  void put_at(long position, std::string_view text) {
    if (std::fseek(file_.get(), position, SEEK_SET) != 0) fail("write");
    put(text);
  }
  /// Reads the next bytes into `block`, up to its size. Returns their number, 0 at the end.
  std::size_t get(std::vector<char>& block) {
    const std::size_t got = std::fread(block.data(), 1, block.size(), file_.get());
    if (got == 0 && std::ferror(file_.get())) fail("read");
    return got;
  }
  void rewind() {
    if (std::fflush(file_.get()) != 0 || std::fseek(file_.get(), 0, SEEK_SET) != 0) fail("write");
  }
  void to_end() {
    if (std::fseek(file_.get(), 0, SEEK_END) != 0) fail("write");
  }

  /// Flushes the file to the disk and renames it to `path` atomically. No put() may follow.
  void take_place() {
    refuse_a_copy();
    if (std::fflush(file_.get()) != 0) fail("write");
#if defined(__unix__) || defined(__APPLE__)
    if (::fsync(::fileno(file_.get())) != 0) fail("write");
#endif
    if (std::fclose(file_.release()) != 0) fail("write");
    refuse_what_is_no_file(place_);
    if (std::rename(name_.c_str(), place_.c_str()) != 0) fail("rename");
    name_.clear();
  }

 private:
  void refuse_a_copy() const {
    if (owner_ != this_process())
      throw io_error(concat("cannot write '", path_,
                            "': another process started this file before a fork; complete the file "
                            "there, or start a new file in this process"));
  }
  [[noreturn]] void fail(const char* what) const {
    throw io_error(concat("cannot ", what, " '", name_, "': ", std::strerror(errno), "; '", path_,
                          "' is unchanged"));
  }
  struct closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::string path_, place_, name_;
  std::unique_ptr<std::FILE, closer> file_;
  long owner_ = this_process();
};

}  // namespace retain::detail
