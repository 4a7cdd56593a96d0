// SPDX-License-Identifier: MIT
// What a fuzz target gives, and what it is given. Run by libFuzzer (libfuzzer.cpp) or by the
// ordinary tests (main.cpp). Needs no LibTorch.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace fuzz {

/// Files that are right, of every kind that there is: where mutations begin.
std::vector<std::string> seeds();

/// Reads the bytes as the program does. What is refused with the exception that the reader promises
/// is well; what is accepted must be as it should be.
void check(std::string_view bytes);

/// Other bytes, of `most` at most, whose lengths and checksums are mostly made right: a checksum is
/// no defense against who makes a file.
std::string mutate(const std::string& bytes, std::size_t most, std::mt19937& dice);

/// Changes bytes of one part without knowing what they are.
std::string change(std::string bytes, std::size_t most, std::mt19937& dice);

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: it does not hold that %s\n", what);
  std::abort();
}

}  // namespace fuzz
