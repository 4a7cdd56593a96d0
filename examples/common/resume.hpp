// SPDX-License-Identifier: MIT
// How a stopped run finds its own options again.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "files.hpp"

/// The command line of the run in `folder`, from its config.json, read again with what else was said at its end: of an option given twice the
/// last holds. `declare(CLI::App*, Command&)` adds the options; a Command has `arguments`, `resume` and `out`. The working directory
/// becomes the run's, which its paths are relative to.
template <class Command, class Declare>
Command resumed_command(const std::string& folder, const std::vector<std::string>& said, Declare declare) {
  const auto place = std::filesystem::absolute(folder).lexically_normal();
  const auto config = read_json(place / "config.json");
  auto words = config.at("arguments").template get<std::vector<std::string>>();
  for (std::size_t i = 0; i < said.size(); ++i) {
    if (said[i] == "--resume")
      ++i;
    else if (!said[i].starts_with("--resume="))
      words.push_back(said[i]);
  }
  Command restored;
  CLI::App parser;
  declare(&parser, restored);
  parser.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 reads a vector from its end
  restored.arguments = words;
  restored.resume = restored.out = place.string();
  std::filesystem::current_path(config.at("working_directory").template get<std::string>());
  return restored;
}
