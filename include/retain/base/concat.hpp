// SPDX-License-Identifier: MIT
// Builds a text from its parts. This header does not need LibTorch.
#pragma once

#include <charconv>
#include <locale>
#include <sstream>
#include <string>

namespace retain::detail {

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  // Files are written with this function. A user's locale must not add separators to the digits.
  out.imbue(std::locale::classic());
  (out << ... << parts);
  return out.str();
}

/// Returns the shortest text that parses to the same number.
inline std::string exact_text(double number) {
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number);
  return {buffer, end.ptr};
}

}  // namespace retain::detail
