// SPDX-License-Identifier: MIT
// What --retain says: "none", or terms joined by +.
#pragma once

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

/// Sets the flags of the terms that `text` names, and clears the others. Throws for anything but
/// "none" or names joined by +.
inline void choose_terms(const std::string& text,
                         const std::vector<std::pair<std::string, bool*>>& terms) {
  for (const auto& [name, chosen] : terms) *chosen = false;
  if (text == "none") return;
  std::istringstream said(text + "+");  // an empty name behind the last + is one too
  std::string name;
  while (std::getline(said, name, '+')) {
    const auto found = std::find_if(terms.begin(), terms.end(),
                                    [&](const auto& term) { return term.first == name; });
    if (found != terms.end()) {
      *found->second = true;
      continue;
    }
    std::string known;
    for (const auto& [each, chosen] : terms) known.append(each).append(", ");
    throw std::runtime_error("no retention '" + name + "': none, " + known +
                             "or several joined by + as in bc+" + terms.back().first);
  }
}

/// The names of the chosen ones, in their order, joined by +: one name for what can be said in
/// several ways.
inline std::string chosen_terms(const std::vector<std::pair<std::string, bool>>& terms) {
  std::string names;
  for (const auto& [name, chosen] : terms)
    if (chosen) names.append(names.empty() ? "" : "+").append(name);
  return names.empty() ? "none" : names;
}

/// The settings with what `text` chooses, and else as they are by themselves. Throws as
/// `Settings::choose`.
template <class Settings>
Settings retention_named(const std::string& text) {
  Settings settings;
  settings.choose(text);
  return settings;
}
