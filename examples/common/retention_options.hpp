// SPDX-License-Identifier: MIT
// Checks of --retain and of the options of its terms.
#pragma once

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "retention_terms.hpp"

/// A validator for --retain. It accepts the texts that `retention_named<Settings>` accepts.
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

/// Prints a note to stderr for each given option that has no effect because the run does not use
/// the term of this option. An option belongs to a term if it starts with the term's name (for
/// example --ewc-strength). `others` lists further options with their terms. Unused options are not
/// an error, because a sweep passes the same options to all of its runs.
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
    std::fprintf(stderr, "note: %s: no effect with --retain %s\n", unused.c_str(),
                 chosen_terms(terms).c_str());
}
