// SPDX-License-Identifier: MIT
// The value of --retain: "none", or terms joined by +.
#pragma once

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

/// Sets the flags of the terms that `text` names, and clears the flags of all other terms. Throws
/// std::runtime_error if `text` is neither "none" nor a list of term names joined by +.
inline void choose_terms(const std::string& text,
                         const std::vector<std::pair<std::string, bool*>>& terms) {
  for (const auto& [name, chosen] : terms) *chosen = false;
  if (text == "none") return;
  std::istringstream said(text + "+");  // so that an empty name after the last + is also checked
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
    throw std::runtime_error("there is no retention method '" + name + "'. Use none, " + known +
                             "or several terms joined by +, for example bc+" + terms.back().first);
  }
}

/// Returns the names of the chosen terms in the order of `terms`, joined by +. So each combination
/// has only one name.
inline std::string chosen_terms(const std::vector<std::pair<std::string, bool>>& terms) {
  std::string names;
  for (const auto& [name, chosen] : terms)
    if (chosen) names.append(names.empty() ? "" : "+").append(name);
  return names.empty() ? "none" : names;
}

/// Returns default settings with the terms that `text` chooses. Throws the same errors as
/// `Settings::choose`.
template <class Settings>
Settings retention_named(const std::string& text) {
  Settings settings;
  settings.choose(text);
  return settings;
}
