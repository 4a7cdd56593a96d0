// SPDX-License-Identifier: MIT
// A target as an ordinary test: the seeds, every file of a folder of inputs that once failed, and
// so many mutations, the same each time.
//
//     fuzz_TARGET FOLDER ROUNDS
#include "fuzz.hpp"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>

std::string fuzz::change(std::string bytes, std::size_t most, std::mt19937& dice) {
  const auto place = [&](std::size_t size) { return size == 0 ? 0 : dice() % size; };
  for (auto times = 1 + dice() % 3; times > 0; --times) {
    const std::size_t at = place(bytes.size() + 1),
                      length = place(std::min<std::size_t>(bytes.size() - at, 32) + 1);
    switch (bytes.empty() ? 0 : dice() % 6) {
      case 0: bytes.insert(at, 1 + dice() % 8, static_cast<char>(dice())); break;
      case 1: bytes.erase(at, length); break;
      case 2: bytes.insert(place(bytes.size()), bytes.substr(at, length)); break;
      case 3: bytes[place(bytes.size())] = static_cast<char>(dice()); break;
      case 4:
        bytes[place(bytes.size())] =
            static_cast<char>(bytes[place(bytes.size())] ^ (1 << dice() % 8));
        break;
      default:
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), length,
                    dice() % 2 ? '\xff' : '9');
        break;
    }
  }
  if (bytes.size() > most) bytes.resize(most);
  return bytes;
}

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: %s FOLDER ROUNDS\n", arguments[0]);
    return 2;
  }
  std::string last;
  try {
    auto pool = fuzz::seeds();
    for (const auto& seed : pool) fuzz::check(last = seed);
    std::size_t kept = 0;
    for (const auto& entry : std::filesystem::directory_iterator(arguments[1])) {
      std::ifstream file(entry.path(), std::ios::binary);
      fuzz::check(last = std::string(std::istreambuf_iterator<char>(file), {}));
      ++kept;
    }
    std::mt19937 dice(1);
    const long rounds = std::atol(arguments[2]);
    for (long round = 0; round < rounds; ++round) {
      last = fuzz::mutate(pool[dice() % pool.size()], 1 << 15, dice);
      fuzz::check(last);
      if (dice() % 8 != 0) continue;
      if (pool.size() < 64)
        pool.push_back(last);
      else
        pool[fuzz::seeds().size() + dice() % 32] = last;
    }
    std::printf("%zu seeds, %zu kept inputs and %ld mutations\n", fuzz::seeds().size(), kept,
                rounds);
  } catch (const std::exception& error) {
    std::fprintf(stderr,
                 "an input of %zu bytes is refused with an exception that is not promised: %s\n",
                 last.size(), error.what());
    return 1;
  }
  return 0;
}
