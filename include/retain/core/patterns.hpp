// SPDX-License-Identifier: MIT
// Checks that every name pattern of an option matches something. A pattern with a spelling mistake
// would otherwise have no effect, and nothing would say so.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retain::detail {

/// Returns the smallest number of characters to insert, delete or replace in `name` so that the
/// pattern matches it.
inline std::size_t pattern_distance(std::string_view pattern, std::string_view name) {
  std::vector<std::size_t> row(name.size() + 1);
  for (std::size_t n = 0; n < row.size(); ++n) row[n] = n;
  for (const char c : pattern) {
    std::size_t before = row[0];  // of the shorter pattern and the shorter name
    if (c != '*') ++row[0];
    for (std::size_t n = 1; n < row.size(); ++n) {
      const std::size_t above = row[n];
      row[n] = c == '*' ? std::min(above, row[n - 1])
                        : std::min({above + 1, row[n - 1] + 1,
                                    before + (c == '?' || c == name[n - 1] ? 0U : 1U)});
      before = above;
    }
  }
  return row.back();
}

/// Returns the names that are nearest to a pattern, at most four, as a text. The distance of a name
/// is the smallest one of the name and of the names of the modules that contain it, as in `covers`.
inline std::string nearest_names(std::string_view pattern, const std::vector<std::string>& names) {
  constexpr std::size_t most = 4;
  std::vector<std::pair<std::size_t, const std::string*>> sorted;
  for (const auto& name : names) {
    std::size_t least = pattern_distance(pattern, name);
    for (auto end = name.find('.'); end != std::string::npos; end = name.find('.', end + 1))
      least = std::min(least, pattern_distance(pattern, std::string_view(name).substr(0, end)));
    sorted.emplace_back(least, &name);
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string text;
  for (std::size_t i = 0; i < std::min(most, sorted.size()); ++i)
    text += concat(i ? ", '" : "'", *sorted[i].second, "'");
  return text;
}

/// Throws config_error for a pattern that matches none of the names. `who` is the start of the
/// error text, `what` is what the pattern is called there, and `kind` is what the names are.
inline void check_patterns(const char* who, const char* what,
                           const std::vector<std::string>& patterns,
                           const std::vector<std::string>& names, const char* kind = "parameter") {
  for (const auto& pattern : patterns) {
    if (std::any_of(names.begin(), names.end(),
                    [&](const auto& name) { return covers(pattern, name); }))
      continue;
    throw config_error(
        concat(who, ": the ", what, " '", pattern, "' matches no ", kind,
               names.empty() ? std::string(": there are no names to match")
                             : concat(": correct or remove it; the nearest of the ", names.size(),
                                      " names are ", nearest_names(pattern, names))));
  }
}

/// The same check against the names of `list` and of `also`, for example of a model's parameters
/// and of the importances that belong to them.
///
///     check_patterns("ewc", "exclude pattern", options.exclude, parameters(model), importance);
inline void check_patterns(const char* who, const char* what,
                           const std::vector<std::string>& patterns, const parameter_list& list,
                           const parameter_list& also = {}) {
  if (patterns.empty()) return;
  std::vector<std::string> names;
  for (const auto* part : {&list, &also})
    for (const auto& entry : *part)
      if (std::find(names.begin(), names.end(), entry.name) == names.end())
        names.push_back(entry.name);
  check_patterns(who, what, patterns, names);
}

}  // namespace retain::detail
