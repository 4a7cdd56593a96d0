// SPDX-License-Identifier: MIT
// Tests, or parts of them, that cannot run here.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

inline std::vector<std::string>& skipped_because() {
  static std::vector<std::string> reasons;
  return reasons;
}

/// To be called where a test leaves out what cannot run here.
inline void skip_test(const std::string& reason) {
  auto& reasons = skipped_because();
  if (std::find(reasons.begin(), reasons.end(), reason) == reasons.end()) reasons.push_back(reason);
}

/// What ctest is told of them. Nothing where a test failed: to ctest one that prints such a line is
/// skipped, whatever its exit code.
inline std::string skipped_lines(int failed, const std::vector<std::string>& reasons) {
  std::string lines;
  if (failed == 0)
    for (const auto& reason : reasons) lines += "SKIPPED: " + reason + "\n";
  return lines;
}

/// The end of main: says what was skipped, and passes on how many tests failed.
inline int report_skipped(int failed) {
  std::fputs(skipped_lines(failed, skipped_because()).c_str(), stdout);
  return failed;
}
