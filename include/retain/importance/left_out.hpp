// SPDX-License-Identifier: MIT
// The patterns that an estimate left out. They are saved with it, and a penalty adds them to its
// own, so that they are given once.
#pragma once

#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace retain::detail {

inline void save_left_out(state& out, const std::string& prefix,
                          const std::vector<std::string>& patterns) {
  for (std::size_t i = 0; i < patterns.size(); ++i)
    out.set(concat(prefix, "exclude.", i), patterns[i]);
}
/// Returns the saved patterns. A state of version 0.1 has none.
inline std::vector<std::string> load_left_out(const state& in, const std::string& prefix) {
  std::vector<std::string> patterns;
  for (std::string key; in.contains(key = concat(prefix, "exclude.", patterns.size()));)
    patterns.push_back(in.text(key));
  return patterns;
}

/// Returns the patterns that a penalty leaves out: its own, and those of the estimate. A pattern of
/// the estimate that matches no parameter of this model is dropped: it was checked against the
/// model of the estimate, which may have other parts.
inline std::vector<std::string> all_left_out(std::vector<std::string> own,
                                             const std::vector<std::string>& of_estimate,
                                             const parameter_list& model) {
  for (const auto& pattern : of_estimate)
    if (std::any_of(model.begin(), model.end(),
                    [&](const auto& entry) { return covers(pattern, entry.name); }))
      own.push_back(pattern);
  return own;
}

}  // namespace retain::detail
