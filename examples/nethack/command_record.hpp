// SPDX-License-Identifier: MIT
// `nethack record`: records games of the scripted player as demonstrations.
#pragma once

#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include <CLI/CLI.hpp>

#include "../common/interrupt.hpp"
#include "../common/option_checks.hpp"
#include "../common/progress.hpp"
#include "../common/table.hpp"
#include "record.hpp"
#include "source_options.hpp"

namespace nethack {

struct record_command {
  std::string out = "demonstrations.bin";
  record_options recording;
};

inline int run_record(record_command command) {
  command.recording.out = command.out;
  command.recording.keep_stopped = false;  // an existing file is a complete recording
  if (command.recording.games > 0) command.recording.steps = 0;
  const auto total = static_cast<double>(command.recording.games > 0 ? command.recording.games
                                                                     : command.recording.steps);
  const bool by_games = command.recording.games > 0;
  progress shown("record", total, by_games ? "games" : "steps");
  const auto report = record(command.recording, [&](const recording_progress& now) {
    shown.update(static_cast<double>(by_games ? now.games : now.steps),
                 std::to_string(now.games) + " games, mean score " + decimals(now.mean_score));
    return !interrupt::requested();
  });
  if (report.stopped)
    throw std::runtime_error("stopped before the recording was complete; no file was written");
  shown.finish(static_cast<double>(by_games ? report.games : report.steps));

  const auto& score = report.score;
  std::cout << command.out << ": " << report.steps << " steps of " << report.games << " games, "
            << decimals(static_cast<double>(report.bytes) / 1e6, 1) << " MB ("
            << decimals(report.bytes_per_step()) << " bytes a step), "
            << short_number(report.steps_per_second()) << " steps/s\n"
            << "score: mean " << decimals(score.mean) << " ± " << decimals(score.standard_error)
            << ", median " << decimals(score.median)
            << ", quantiles 10 / 25 / 75 / 90 %: " << decimals(score.low_decile) << " / "
            << decimals(score.low_quartile) << " / " << decimals(score.high_quartile) << " / "
            << decimals(score.high_decile) << "\n"
            << "depth: mean " << decimals(report.depth.mean, 1) << "; turns: mean "
            << decimals(report.turns.mean) << "; stuck: " << report.stuck << " games\n";
  return 0;
}

inline void add_record(CLI::App& app, std::function<int()>& chosen) {
  auto options = std::make_shared<record_command>();
  auto& recording = options->recording;
  auto* command = app.add_subcommand(
      "record",
      "A scripted player plays NetHack; its observations and keys are recorded as demonstrations");
  command->add_option("--out", options->out, "File for the demonstrations")->capture_default_str();
  command->add_option("--steps", recording.steps, "Steps to record")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--games", recording.games, "Whole games to record, instead of steps")
      ->check(positive_number);
  command
      ->add_option("--seed", recording.seed, "Seed of the games; another seed records other games")
      ->check(CLI::Range(std::uint64_t{0}, (std::uint64_t{1} << 28) - 1))
      ->capture_default_str();
  add_source_options(command, recording.environment.source);
  command->add_option("--turns", recording.turn_cap, "Cap of a game, in game turns")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--noise", recording.noise,
                   "Share of moves replaced at random, labeled with the player's own choice")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  command->callback([&chosen, options] { chosen = [options] { return run_record(*options); }; });
}

}  // namespace nethack
