// SPDX-License-Identifier: MIT
// --retain and the options of its terms.
#pragma once

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "retention_terms.hpp"

/// A check of what `retention_named<Settings>` takes.
template <class Settings>
CLI::Validator retention_check() {
  return {[](const std::string& text) {
            try {
              retention_named<Settings>(text);
              return std::string();
            } catch (const std::exception& error) {
              return std::string(error.what());
            }
          },
          ""};
}

/// Says on stderr which options were given that do nothing, as the run has none of the terms that
/// read them: those that begin as the term's name does (--ewc-strength), and those of `others`,
/// each with its terms. They are not refused, as a sweep hands the same options to all of its runs.
inline void note_unused_options(
    const CLI::App& command, const std::vector<std::pair<std::string, bool>>& terms,
    const std::vector<std::pair<std::string, std::vector<std::string>>>& others = {}) {
  const auto used = [&](const std::string& name) {
    return std::find(terms.begin(), terms.end(), std::pair(name, true)) != terms.end();
  };
  std::string unused;
  for (const auto* option : command.get_options()) {
    const auto name = option->get_name();
    if (option->count() == 0) continue;
    bool does_nothing = std::any_of(terms.begin(), terms.end(), [&](const auto& term) {
      return !term.second && name.starts_with("--" + term.first + "-");
    });
    for (const auto& [other, readers] : others)
      does_nothing =
          does_nothing || (name == other && std::none_of(readers.begin(), readers.end(), used));
    if (does_nothing) unused.append(unused.empty() ? "" : ", ").append(name);
  }
  if (!unused.empty())
    std::fprintf(stderr, "note: %s: of no effect with --retain %s\n", unused.c_str(),
                 chosen_terms(terms).c_str());
}
