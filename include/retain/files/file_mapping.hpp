// SPDX-License-Identifier: MIT
// Maps the bytes of a file into memory; the system loads them on access. Does not need LibTorch.
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>
#include <retain/files/new_file.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace retain::detail {

/// The bytes of a file, read-only and without reading the file in advance. The mapping ends with
/// this object. The class is a source for read_state_header.
class file_mapping {
 public:
  explicit file_mapping(const std::string& path) {
#if defined(__unix__) || defined(__APPLE__)
    if (const auto other = what_else_is(path); !other.empty())
      throw io_error(concat("cannot map '", path, "': it is ", other, ", not a file"));
    const auto fail = [&](const char* what) {
      throw io_error(concat("cannot ", what, " '", path, "': ", std::strerror(errno)));
    };
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) fail("open");
    struct stat status{};
    void* mapped = nullptr;
    const bool known = ::fstat(file, &status) == 0;
    if (known && status.st_size > 0)
      mapped =
          ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_SHARED, file, 0);
    const int reason = errno;
    ::close(file);  // the mapping stays valid
    errno = reason;
    if (!known || mapped == MAP_FAILED) fail("map");
    data_ = static_cast<const char*>(mapped);
    size_ = static_cast<std::uint64_t>(status.st_size);
#else
    throw io_error(concat(
        "cannot map '", path,
        "': files are mapped on POSIX systems only; read it with retain::state::read instead"));
#endif
  }
  ~file_mapping() {
#if defined(__unix__) || defined(__APPLE__)
    if (data_) ::munmap(const_cast<char*>(data_), size_);
#endif
  }
  file_mapping(const file_mapping&) = delete;
  file_mapping& operator=(const file_mapping&) = delete;

  /// Tells the system that access is random, so that it does not read ahead and evict pages in use.
  void expect_random_access() const {
#if defined(__unix__) || defined(__APPLE__)
    if (data_) ::posix_madvise(const_cast<char*>(data_), size_, POSIX_MADV_RANDOM);
#endif
  }

  const char* data() const { return data_; }
  std::uint64_t size() const { return size_; }
  std::string_view view(std::uint64_t offset, std::size_t count) const {
    return {data_ + offset, count};
  }

 private:
  const char* data_ = nullptr;
  std::uint64_t size_ = 0;
};

}  // namespace retain::detail
