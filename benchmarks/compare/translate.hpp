// SPDX-License-Identifier: MIT
// Reads the evaluations of programs that do not write the contract's keys: montezuma,
// robotic_sequence and nethack. It goes when these programs write them.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "located_json.hpp"

namespace compare {

/// What an evaluation says, under the contract's names.
struct translated {
  bool known = false;
  std::string task, preset, method;
  long seed = 0;
  double step = std::nan(""), steps_per_second = std::nan("");
  std::map<std::string, double> values;
};

namespace detail {

inline translated of_montezuma(const json& file) {
  translated run;
  const auto& teacher = file.at("teacher");
  run.task = file.at("world").at("map").get<std::string>();
  if (teacher.value("task", "coverage-gap") != "coverage-gap")
    run.task += "-" + teacher.at("task").get<std::string>();
  run.preset = file.at("preset").get<std::string>();
  for (const auto* side : {"far", "start"})
    for (const auto& [what, value] : file.at(side).items())
      run.values[std::string(side) + "/" + what] = value.get<double>();
  return run;
}

inline translated of_robotic_sequence(const json& file) {
  translated run;
  run.task = std::to_string(file.at("stages").size()) + "-stages";
  for (const auto& [stage, value] : file.at("success").items())
    run.values["success/" + stage] = value.get<double>();
  return run;
}

inline translated of_nethack(const json& file) {
  translated run;
  const auto& training = file.at("training");
  run.task = std::to_string(training.at("turns").get<long>()) + "-turns";
  run.preset = training.at("recipe").get<std::string>();
  for (const auto& [start, entry] : file.at("starts").items()) {
    double score = 0, depth = 0, stuck = 0;
    for (const auto& game : entry.at("games")) {
      score += game.at(2).get<double>();
      depth += game.at(4).get<double>();
      stuck += game.at(7).get<std::string>() == "stuck" ? 1 : 0;
    }
    const auto games = static_cast<double>(entry.at("games").size());
    if (games == 0) continue;
    run.values["score/" + start] = score / games;
    run.values["depth/" + start] = depth / games;
    run.values["stuck/" + start] = stuck / games;
  }
  if (file.contains("monitor"))
    for (const auto& [what, value] : file.at("monitor").items())
      if (value.is_number()) run.values[what] = value.get<double>();
  return run;
}

}  // namespace detail

/// Translates an evaluation; `known` is false if it has no form of today's programs.
inline translated translate(const json& file) {
  translated run;
  const bool montezuma = file.contains("far") && file.contains("start") && file.contains("world"),
             robot = file.contains("stages") && file.contains("success"),
             nethack = file.contains("starts") && file.contains("training");
  if (montezuma) run = detail::of_montezuma(file);
  if (robot) run = detail::of_robotic_sequence(file);
  if (nethack) run = detail::of_nethack(file);
  run.known = montezuma || robot || nethack;
  if (!run.known) return run;
  const auto& about = nethack ? file.at("training") : file;
  run.method = about.at("method").get<std::string>();
  run.seed = about.at("seed").get<long>();
  run.step = about.at("steps").get<double>();
  run.steps_per_second = about.value("steps_per_second", std::nan(""));
  return run;
}

}  // namespace compare
