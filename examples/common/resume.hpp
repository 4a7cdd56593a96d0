// SPDX-License-Identifier: MIT
// How a stopped run finds its own options again.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "files.hpp"

/// What an option says: as given, or by itself.
inline std::string value_of(const CLI::Option& option) { return option.results().empty() ? option.get_default_str() : option.results().back(); }

/// The command line of the run in `folder`, from its config.json, read again with what else was said at its end: of an option given twice the
/// last holds. `declare(CLI::App*, Command&)` adds the options; a Command has `arguments`, `resume` and `out`. The working directory
/// becomes the run's, which its paths are relative to. Throws when an option would change that is not among `may_change`: a run's seed, teacher and
/// retention are what it is.
template <class Command, class Declare>
Command resumed_command(const std::string& folder, const std::vector<std::string>& said, Declare declare, const std::vector<std::string>& may_change) {
  const auto place = std::filesystem::absolute(folder).lexically_normal();
  const auto config = read_json(place / "config.json");
  auto words = config.at("arguments").template get<std::vector<std::string>>();
  const auto parse = [&](CLI::App& parser, Command& command) {
    declare(&parser, command);
    parser.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 reads a vector from its end
  };
  Command original;
  CLI::App original_parser;
  parse(original_parser, original);
  for (std::size_t i = 0; i < said.size(); ++i) {
    if (said[i] == "--resume")
      ++i;
    else if (!said[i].starts_with("--resume="))
      words.push_back(said[i]);
  }
  Command restored;
  CLI::App parser;
  parse(parser, restored);
  for (const auto* option : std::as_const(parser).get_options()) {
    const auto name = option->get_name();
    const auto before = value_of(*original_parser.get_option(name)), now = value_of(*option);
    if (before == now || std::find(may_change.begin(), may_change.end(), name) != may_change.end()) continue;
    std::string allowed;
    for (const auto& each : may_change) allowed += (allowed.empty() ? "" : ", ") + each;
    throw std::runtime_error("the run in " + folder + " has " + name + " " + (before.empty() ? "not given" : before) + ", and cannot go on with " +
                             (now.empty() ? "it left out" : now) + "; what may change: " + allowed);
  }
  restored.arguments = words;
  restored.resume = restored.out = place.string();
  std::filesystem::current_path(config.at("working_directory").template get<std::string>());
  return restored;
}
