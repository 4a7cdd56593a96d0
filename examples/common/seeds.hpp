// SPDX-License-Identifier: MIT
// Seeds as people write them on a command line.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

/// "1-3,7" as 1 2 3 7; each once.
inline std::vector<unsigned long> seed_list(const std::vector<std::string>& words,
                                            const std::string& option = "--seeds") {
  std::vector<unsigned long> seeds;
  for (const auto& word : words) {
    const auto dash = word.find('-');
    const auto digits = [&](const std::string& text) {
      if (text.empty() || text.size() > 9 ||
          text.find_first_not_of("0123456789") != std::string::npos)
        throw std::runtime_error(option + ": \"" + word +
                                 "\" is neither a seed nor a range such as 1-10");
      return std::stoul(text);
    };
    const auto first = digits(word.substr(0, dash)),
               last = dash == std::string::npos ? first : digits(word.substr(dash + 1));
    for (auto seed = first; seed <= last; ++seed)
      if (std::find(seeds.begin(), seeds.end(), seed) == seeds.end()) seeds.push_back(seed);
  }
  if (seeds.empty()) throw std::runtime_error(option + " names no seed");
  return seeds;
}
