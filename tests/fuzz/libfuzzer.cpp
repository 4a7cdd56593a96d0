// SPDX-License-Identifier: MIT
// The targets as libFuzzer calls them. With RETAIN_FUZZ_SEEDS=FOLDER a program writes its seeds
// there and ends.
#include "fuzz.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

std::string fuzz::change(std::string bytes, std::size_t most, std::mt19937&) {
  const std::size_t size = std::min(bytes.size(), most);
  if (most == 0) return {};
  bytes.resize(most);
  bytes.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(bytes.data()), size, most));
  return bytes;
}

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* folder = std::getenv("RETAIN_FUZZ_SEEDS");
  if (folder == nullptr) return 0;
  const auto all = fuzz::seeds();
  for (std::size_t i = 0; i < all.size(); ++i)
    std::ofstream(std::string(folder) + "/seed-" + std::to_string(i), std::ios::binary) << all[i];
  std::exit(0);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::check({reinterpret_cast<const char*>(data), size});
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  std::mt19937 dice(seed);
  const std::string next = fuzz::mutate({reinterpret_cast<const char*>(data), size}, most, dice);
  const std::size_t taken = std::min(next.size(), most);
  std::memcpy(data, next.data(), taken);
  return taken;
}
