// SPDX-License-Identifier: MIT
// Text for error messages and name patterns.
#pragma once

#include <retain/base/concat.hpp>

#include <ATen/core/Tensor.h>

#include <locale>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace retain::detail {

inline std::string shape_text(at::IntArrayRef sizes) {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  out << '[';
  for (std::size_t i = 0; i < sizes.size(); ++i) out << (i ? ", " : "") << sizes[i];
  out << ']';
  return out.str();
}

/// Returns whether the pattern matches the whole name. `*` stands for any number of characters, `?`
/// for exactly one character.
inline bool matches(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0, star = std::string_view::npos, mark = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

/// Returns whether the pattern matches the name, or the name of a module that contains it: for
/// example, "encoder" covers "encoder.0.weight".
inline bool covers(std::string_view pattern, std::string_view name) {
  for (auto end = name.find('.'); end != std::string_view::npos; end = name.find('.', end + 1))
    if (matches(pattern, name.substr(0, end))) return true;
  return matches(pattern, name);
}
inline bool covered(const std::vector<std::string>& patterns, std::string_view name) {
  for (const auto& pattern : patterns)
    if (covers(pattern, name)) return true;
  return false;
}

}  // namespace retain::detail
