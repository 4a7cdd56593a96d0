// SPDX-License-Identifier: MIT
// The Python of the tests.
#pragma once

#include <filesystem>
#include <string>

#include <gymnasium.hpp>

#include "../skipped.hpp"

/// Where .ci/run installs the packages, or else where a program looks.
inline std::string python_of_tests() {
  return std::filesystem::exists(RETAIN_TEST_PYTHON) ? RETAIN_TEST_PYTHON : "";
}

/// Starts Python. False where gymnasium is missing: the test is skipped, and the line says how to
/// install it.
inline bool has_gymnasium() {
  try {
    python::start(python_of_tests());
    python::call("gymnasium", [] { python::import("gymnasium", python::gymnasium_package); });
    return true;
  } catch (const python::error& missing) {
    skip_test(std::string(missing.what()) +
              "; for the tests: python3 -m venv build/python && build/python/bin/pip install "
              "--no-deps -r tests/python_requirements.txt");
    return false;
  }
}
