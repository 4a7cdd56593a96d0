// SPDX-License-Identifier: MIT
// Parses seeds from a command line.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

/// Parses seeds and ranges, for example "1-3" and "7" as 1 2 3 7. Each seed occurs once in the
/// result. Throws std::runtime_error if a word is not a seed or a range, or if there is no seed.
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
  if (seeds.empty())
    throw std::runtime_error(option + " contains no seed: give seeds or ranges such as 1-10");
  return seeds;
}
