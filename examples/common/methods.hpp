// SPDX-License-Identifier: MIT
// The compared methods, with the names that every program, table and legend uses.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "gnuplot.hpp"

/// A method and its color. `method_styles` is also the order of all tables and legends.
struct method_style {
  const char* method;
  const char* color;
};
inline constexpr std::array<method_style, 10> method_styles{{{"scratch", gnuplot::gray},
                                                             {"none", gnuplot::vermilion},
                                                             {"l2", gnuplot::orange},
                                                             {"ewc", gnuplot::blue},
                                                             {"ewc-cw", gnuplot::indigo},
                                                             {"bc", gnuplot::green},
                                                             {"em", gnuplot::wine},
                                                             {"bc+em", gnuplot::olive},
                                                             {"ks", gnuplot::purple},
                                                             {"bc+ks", gnuplot::sky}}};

/// The index of a method in `method_styles`. An unknown method has the index after the last one.
inline std::ptrdiff_t method_rank(std::string_view method) {
  return std::find_if(method_styles.begin(), method_styles.end(),
                      [&](const auto& style) { return style.method == method; }) -
         method_styles.begin();
}

inline const char* color_of(std::string_view method) {
  for (const auto& style : method_styles)
    if (method == style.method) return style.color;
  return gnuplot::black;
}

/// The name of a method in legends: "plain" for "none", "scratch", and "+ " with the name for all
/// other methods.
inline std::string legend_of(std::string_view method) {
  if (method == "none") return "plain";
  if (method == "scratch") return "scratch";
  return "+ " + std::string(method);
}
