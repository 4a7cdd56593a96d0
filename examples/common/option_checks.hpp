// SPDX-License-Identifier: MIT
// Checks of numeric options. The error messages of CLI11's PositiveNumber and NonNegativeNumber
// contain the largest double with 309 digits, so they are not used.
#pragma once

#include <cmath>
#include <cstdlib>
#include <string>

#include <CLI/CLI.hpp>

/// Returns a validator for a finite number. The error message says which values are allowed.
template <class Fits>
CLI::Validator number_check(const std::string& what, Fits fits, const std::string& description) {
  return {[=](std::string& text) {
            char* end = nullptr;
            const double value = std::strtod(text.c_str(), &end);
            if (end != text.c_str() && *end == '\0' && std::isfinite(value) && fits(value))
              return std::string();
            return std::string("must be a number ")
                .append(what)
                .append(", not '")
                .append(text)
                .append("'");
          },
          description};
}

inline const CLI::Validator positive_number =
    number_check("above 0", [](double value) { return value > 0; }, "POSITIVE");
inline const CLI::Validator non_negative_number =
    number_check("of 0 or more", [](double value) { return value >= 0; }, "NONNEGATIVE");
