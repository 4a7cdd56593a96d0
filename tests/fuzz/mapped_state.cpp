// SPDX-License-Identifier: MIT
// A state file that is mapped into memory, as file_memory reads it.
#include "state_bytes.hpp"

#include <retain/files/file_mapping.hpp>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <numeric>

#include <unistd.h>

namespace {

/// A file that is gone with the program, however it ends: it has no name, but the one that Linux
/// gives to what is open.
class nameless_file {
 public:
  nameless_file() : file_(std::tmpfile()) {
    fuzz::require(file_ != nullptr, "there is room for a temporary file");
    path_ = "/proc/self/fd/" + std::to_string(fileno(file_));
  }
  ~nameless_file() { std::fclose(file_); }
  nameless_file(const nameless_file&) = delete;
  nameless_file& operator=(const nameless_file&) = delete;

  const std::string& hold(std::string_view bytes) {
    const auto size = static_cast<off_t>(bytes.size());
    fuzz::require(ftruncate(fileno(file_), size) == 0 &&
                      pwrite(fileno(file_), bytes.data(), bytes.size(), 0) == size,
                  "a temporary file can be written");
    return path_;
  }

 private:
  std::FILE* file_;
  std::string path_;
};

}  // namespace

std::vector<std::string> fuzz::seeds() { return state_seeds(); }

std::string fuzz::mutate(const std::string& bytes, std::size_t most, std::mt19937& dice) {
  return mutated_state(bytes, most, dice);
}

void fuzz::check(std::string_view bytes) {
  static nameless_file file;
  const detail::file_mapping mapped(file.hold(bytes));
  require(mapped.size() == bytes.size(), "all of a file is mapped");
  const auto trusted = header_of(mapped, false), verified = header_of(mapped, true);
  require(!verified || same(trusted, verified),
          "what is verified is accepted without, and the same");
  if (!trusted) return;
  std::uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  check_header(*trusted, bytes.size(), header_size);
  std::string all =
      std::string(bytes.substr(0, sizeof header_size + static_cast<std::size_t>(header_size)));
  auto tensors = trusted->tensors;
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  for (const auto& tensor : tensors)
    all += mapped.view(tensor.begin, static_cast<std::size_t>(tensor.end - tensor.begin));
  require(all == bytes, "header and tensors are the file");
}
