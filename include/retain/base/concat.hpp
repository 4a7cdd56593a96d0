// SPDX-License-Identifier: MIT
// Text out of parts; needs no LibTorch.
#pragma once

#include <charconv>
#include <locale>
#include <sstream>
#include <string>

namespace retain::detail {

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  // files are written with this: a user's locale must not group their digits
  out.imbue(std::locale::classic());
  (out << ... << parts);
  return out.str();
}

/// The shortest text that reads back as the same number.
inline std::string exact_text(double number) {
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number);
  return {buffer, end.ptr};
}

}  // namespace retain::detail
