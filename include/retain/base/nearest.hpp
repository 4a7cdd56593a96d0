// SPDX-License-Identifier: MIT
// Finds the name that a wrong name probably means, for error messages.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string_view>
#include <vector>

namespace retain::detail {

/// Returns the number of characters to insert, delete or replace that turn one name into the other
/// (the Levenshtein distance).
inline std::size_t edits_between(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({diagonal + 1, row[j] + 1, replaced});
    }
  }
  return row.back();
}

/// Returns whether one of two names is the other with a prefix that ends at a dot, for example
/// "module.layers.0.weight" and "layers.0.weight".
inline bool differ_by_prefix(std::string_view a, std::string_view b) {
  const auto longer = std::max(a.size(), b.size()), shorter = std::min(a.size(), b.size());
  const auto name = a.size() > b.size() ? a : b, rest = a.size() > b.size() ? b : a;
  return longer > shorter && name.substr(longer - shorter) == rest &&
         name[longer - shorter - 1] == '.';
}

/// Returns the position of the name that is most like `name`, or names.size() if none is alike: a
/// name with the same end after a prefix, or with the fewest edits, at most half of its characters.
inline std::size_t nearest_name(std::string_view name, const std::vector<std::string_view>& names) {
  std::size_t best = names.size(), fewest = std::max<std::size_t>(name.size() / 2, 1) + 1;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (differ_by_prefix(name, names[i])) return i;
    const auto edits = edits_between(name, names[i]);
    if (edits < fewest) {
      fewest = edits;
      best = i;
    }
  }
  return best;
}

}  // namespace retain::detail
