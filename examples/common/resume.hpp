// SPDX-License-Identifier: MIT
// Restores the options of a stopped run and checks that they do not change.
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

/// Returns the value of an option: the given value, or the default. If the option is given several
/// times, returns the last value, or all values if the option takes all.
inline std::string value_of(const CLI::Option& option) {
  const auto& given = option.results();
  if (given.empty()) return option.get_default_str();
  if (option.get_multi_option_policy() != CLI::MultiOptionPolicy::TakeAll) return given.back();
  std::string all;
  for (const auto& each : given) all += (all.empty() ? "" : " ") + each;
  return all;
}

/// Checks that two command lines of the run in `folder` have the same options. Throws
/// std::runtime_error with the first option that differs and is not in `may_change`. `began_in` is
/// the working directory of the first command line. If it is given, two different paths to the same
/// file count as equal.
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
    throw std::runtime_error("the run in " + folder + " was started with " + name + " " +
                             (was.empty() ? "(not given)" : was) + " and cannot continue with " +
                             (is.empty() ? "(not given)" : is) +
                             ". Only these options may change: " + allowed);
  }
}

/// Checks that the settings `now` are equal to the settings `before`, with which the content of
/// `folder` was made. `what` names this content in the error, for example "a sweep". Throws
/// std::runtime_error with the first setting that differs and is not in `may_change`.
inline void check_same_settings(const std::filesystem::path& folder, const std::string& what,
                                const nlohmann::json& before, const nlohmann::json& now,
                                const std::vector<std::string>& may_change = {}) {
  for (const auto& [name, is] : now.items()) {
    const auto was = before.value(name, nlohmann::json());
    if (was == is || std::find(may_change.begin(), may_change.end(), name) != may_change.end())
      continue;
    throw std::runtime_error(folder.string() + " holds " + what + " with " + name + " = " +
                             was.dump() + ", not " + is.dump() +
                             ": use the same value, or another folder with --out");
  }
}

/// Removes an option and its values from a command line.
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

/// Parses a command line into `command`. The words are reversed, because CLI11 expects a vector in
/// reverse order.
template <class Command, class Declare>
void parse_words(CLI::App& parser, Command& command, const std::vector<std::string>& words,
                 Declare declare) {
  declare(&parser, command);
  parser.parse(std::vector<std::string>(words.rbegin(), words.rend()));
}

/// Returns the command of the run in `folder`. It parses the command line from the run's
/// config.json, followed by the new options in `said`. `declare(CLI::App*, Command&)` adds the
/// options. A Command has `arguments`, `resume` and `out`. The function also changes the working
/// directory to the one in which the run was started, because the run's paths are relative to it.
/// Throws std::runtime_error if `said` changes an option that is not in `may_change`, for example
/// the seed, the teacher or the retention.
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
  // For an option that takes all values, the new values replace the old ones.
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

/// For --resume-if-possible, with which the user repeats the whole command. Throws
/// std::runtime_error if the run in `folder` was started with another value of an option that is
/// not in `may_change`.
template <class Command, class Declare>
void check_same_run(const std::string& folder, const std::vector<std::string>& said,
                    Declare declare, std::vector<std::string> may_change) {
  Command original, repeated;
  CLI::App before, now;
  const auto config = read_json(std::filesystem::path(folder) / "config.json");
  parse_words(before, original, config.at("arguments").template get<std::vector<std::string>>(),
              declare);
  parse_words(now, repeated, said, declare);
  may_change.insert(may_change.end(), {"--out", "--resume"});  // these options selected the run
  check_same_options(before, now, folder, may_change,
                     config.at("working_directory").template get<std::string>());
}
