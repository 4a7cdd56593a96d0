// SPDX-License-Identifier: MIT
// How a stopped run finds its own options again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "files.hpp"

/// What an option says: as given, or by itself. Of one given twice the last holds, or all where all
/// are taken.
inline std::string value_of(const CLI::Option& option) {
  const auto& given = option.results();
  if (given.empty()) return option.get_default_str();
  if (option.get_multi_option_policy() != CLI::MultiOptionPolicy::TakeAll) return given.back();
  std::string all;
  for (const auto& each : given) all += (all.empty() ? "" : " ") + each;
  return all;
}

/// Throws with the first option in which two command lines of the run in `folder` differ and that
/// is not among `may_change`. With `began_in`, the working directory of the first, a file that is
/// named in another way is the same.
inline void check_same_options(const CLI::App& before, const CLI::App& now,
                               const std::string& folder,
                               const std::vector<std::string>& may_change,
                               const std::filesystem::path& began_in = {}) {
  for (const auto* option : now.get_options()) {
    const auto name = option->get_name();
    const auto was = value_of(*before.get_option(name)), is = value_of(*option);
    if (was == is || std::find(may_change.begin(), may_change.end(), name) != may_change.end())
      continue;
    std::error_code neither_is_there;
    if (!began_in.empty() && std::filesystem::equivalent(began_in / was, is, neither_is_there))
      continue;
    std::string allowed;
    for (const auto& each : may_change) allowed += (allowed.empty() ? "" : ", ") + each;
    throw std::runtime_error("the run in " + folder + " has " + name + " " +
                             (was.empty() ? "not given" : was) + ", and cannot go on with " +
                             (is.empty() ? "it left out" : is) + "; what may change: " + allowed);
  }
}

/// Throws with the first setting of `now` that is another in `before`, and not among `may_change`:
/// `folder` holds a `what` that was begun with `before`.
inline void check_same_settings(const std::filesystem::path& folder, const std::string& what,
                                const nlohmann::json& before, const nlohmann::json& now,
                                const std::vector<std::string>& may_change = {}) {
  for (const auto& [name, is] : now.items()) {
    const auto was = before.value(name, nlohmann::json());
    if (was == is || std::find(may_change.begin(), may_change.end(), name) != may_change.end())
      continue;
    throw std::runtime_error(folder.string() + " holds " + what + " with " + name + " = " +
                             was.dump() + ", not " + is.dump() +
                             ": give the same, or another --out");
  }
}

/// Takes an option and its values out of a command line.
inline void forget_option(std::vector<std::string>& words, const std::string& name) {
  for (auto word = words.begin(); word != words.end();) {
    if (*word == name || word->starts_with(name + "="))
      word = words.erase(word, std::find_if(word + 1, words.end(), [](const std::string& next) {
                           return next.starts_with("--");
                         }));
    else
      ++word;
  }
}

/// Reads a command line into `command`. CLI11 reads a vector from its end.
template <class Command, class Declare>
void parse_words(CLI::App& parser, Command& command, const std::vector<std::string>& words,
                 Declare declare) {
  declare(&parser, command);
  parser.parse(std::vector<std::string>(words.rbegin(), words.rend()));
}

/// The command line of the run in `folder`, from its config.json, read again with what else was
/// said at its end. `declare(CLI::App*, Command&)` adds the options; a Command has `arguments`,
/// `resume` and `out`. The working directory becomes the run's, which its paths are relative to.
/// Throws when an option would change that is not among `may_change`: a run's seed, teacher and
/// retention are what it is.
template <class Command, class Declare>
Command resumed_command(const std::string& folder, const std::vector<std::string>& said,
                        Declare declare, const std::vector<std::string>& may_change) {
  const auto place = std::filesystem::absolute(folder).lexically_normal();
  const auto config = read_json(place / "config.json");
  auto words = config.at("arguments").template get<std::vector<std::string>>();
  Command original, restored, added;
  CLI::App before, now, only_new;
  parse_words(before, original, words, declare);
  auto more = said;
  forget_option(more, "--resume");
  parse_words(only_new, added, more, declare);
  // of which all values count: those said anew are all of them
  for (const auto* option : only_new.get_options())
    if (option->count() > 0 && option->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll)
      forget_option(words, option->get_name());
  words.insert(words.end(), more.begin(), more.end());
  parse_words(now, restored, words, declare);
  check_same_options(before, now, folder, may_change);
  restored.arguments = words;
  restored.resume = restored.out = place.string();
  std::filesystem::current_path(config.at("working_directory").template get<std::string>());
  return restored;
}

/// For --resume-if-possible, which says the whole command again: throws where the run in `folder`
/// was begun otherwise, in an option that is not among `may_change`.
template <class Command, class Declare>
void check_same_run(const std::string& folder, const std::vector<std::string>& said,
                    Declare declare, std::vector<std::string> may_change) {
  Command original, repeated;
  CLI::App before, now;
  const auto config = read_json(std::filesystem::path(folder) / "config.json");
  parse_words(before, original, config.at("arguments").template get<std::vector<std::string>>(),
              declare);
  parse_words(now, repeated, said, declare);
  may_change.insert(may_change.end(), {"--out", "--resume"});  // which led here
  check_same_options(before, now, folder, may_change,
                     config.at("working_directory").template get<std::string>());
}
