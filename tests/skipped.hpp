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

/// The end of main: passes on how many tests failed, and says for ctest what was skipped. Only where none failed: to ctest a test that prints such a line
/// is skipped, whatever its exit code.
inline int report_skipped(int failed) {
  if (failed == 0)
    for (const auto& reason : skipped_because()) std::printf("SKIPPED: %s\n", reason.c_str());
  return failed;
}
