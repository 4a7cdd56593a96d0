// SPDX-License-Identifier: MIT
// Records games of the scripted player as demonstrations.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/statistics.hpp"
#include "demonstrations.hpp"
#include "environment.hpp"
#include "player.hpp"

namespace nethack {

static_assert(static_cast<std::uint8_t>(ending::lost) == last_ending);

struct record_options {
  std::filesystem::path out;  ///< the file; empty: play without writing
  long games = 0;             ///< stop after this many games; 0: no limit
  long steps = 1'000'000;     ///< stop after this many steps; 0: no limit
  std::uint64_t seed = 1;     ///< game number i of this seed is always the same
  /// Share of commands replaced by a random direction, and labeled with the player's own choice. So
  /// the demonstrations also show what to do after a mistake.
  double noise = 0.05;
  int turn_cap = 2000;
  bool keep_stopped = true;  ///< complete the file if the callback stops the recording
  player_settings player;
  environment_options environment;  ///< its turn cap is replaced by `turn_cap`
};

struct recording_progress {
  long steps = 0, games = 0;
  double seconds = 0;
  double mean_score = 0;  ///< of the games that have ended
};

/// Called from time to time. If it returns false, the recording stops at the next step, with a
/// complete file if `keep_stopped` is set.
using recording_callback = std::function<bool(const recording_progress&)>;

struct distribution {
  double mean = 0, standard_error = 0, low_decile = 0, low_quartile = 0, median = 0,
         high_quartile = 0, high_decile = 0;
};

struct recording_report {
  long steps = 0, games = 0;  ///< games: the games that ended
  double seconds = 0;
  std::uint64_t bytes = 0;
  distribution score, depth, turns;
  long stuck = 0;  ///< games that ended without game time passing
  std::vector<double> scores;
  bool stopped = false;  ///< by the callback

  double steps_per_second() const { return seconds > 0 ? static_cast<double>(steps) / seconds : 0; }
  double bytes_per_step() const {
    return steps > 0 ? static_cast<double>(bytes) / static_cast<double>(steps) : 0;
  }
};

inline distribution distribution_of(const std::vector<double>& values) {
  if (values.empty()) return {};
  return {
      statistics::mean(values),          values.size() > 1 ? statistics::standard_error(values) : 0,
      statistics::quantile(values, 0.1), statistics::quantile(values, 0.25),
      statistics::quantile(values, 0.5), statistics::quantile(values, 0.75),
      statistics::quantile(values, 0.9)};
}

/// The seed of a game of a recording. The two highest bits stay free for the held-out games of
/// evaluations. Two recordings with different seeds below 2^20 share no game.
inline std::uint64_t recorded_game_seed(std::uint64_t seed, std::uint64_t game) {
  return (((seed + 1) << 32) + game) & ((std::uint64_t{1} << 62) - 1);
}

inline recording_report record(const record_options& options,
                               const recording_callback& progress = {}) {
  if (options.games <= 0 && options.steps <= 0)
    throw std::invalid_argument("record: give a number of games or of steps");
  if (!(options.noise >= 0 && options.noise < 1))
    throw std::invalid_argument("record: noise is a share, from 0 to below 1");
  environment_options world = options.environment;
  world.turn_cap = options.turn_cap;
  environment game(world);

  std::optional<demonstration_writer> file;
  if (!options.out.empty()) {
    demonstration_header header{options.seed,
                                static_cast<std::uint32_t>(options.turn_cap),
                                options.noise,
                                {},
                                options.player.description()};
    for (const action& one : small_actions) header.actions.push_back(one.code);
    file.emplace(options.out, header);
  }

  constexpr long steps_between_reports = 1000;
  using clock = std::chrono::steady_clock;
  const auto start = clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(clock::now() - start).count(); };
  recording_report report;
  std::vector<double> depths, turns;
  double score_sum = 0;
  bool go_on = true;
  const auto within_budget = [&] {
    return go_on && (options.games <= 0 || report.games < options.games) &&
           (options.steps <= 0 || report.steps < options.steps);
  };

  for (std::uint64_t number = 0; within_budget(); ++number) {
    const std::uint64_t game_seed = recorded_game_seed(options.seed, number);
    game.reset(game_seed);
    player hero(game_seed, options.player);
    std::mt19937_64 dice(game_seed ^ 0x9e3779b97f4a7c15ull);
    bool first = true;
    while (!game.done() && within_budget()) {
      const observation& seen = game.view();
      const key wanted = hero.next(seen);
      key sent = wanted;
      // Answers to questions are never replaced: a random answer would seldom be a move, and
      // prayers are rare and must not be spoiled.
      if (seen.waiting == prompt::command && wanted != keys::pray &&
          static_cast<double>(dice() >> 11) * 0x1p-53 < options.noise) {
        sent = direction_keys[dice() % direction_keys.size()];
        if (sent != wanted) hero.was_replaced_by(sent);
      }
      if (file) file->write(seen, wanted, sent, first);
      first = false;
      game.step(sent);
      if (++report.steps % steps_between_reports == 0 && progress)
        go_on = progress({report.steps, report.games, elapsed(),
                          report.games ? score_sum / static_cast<double>(report.games) : 0});
    }
    if (!game.done()) break;
    if (file)
      file->end_game(
          {game.score(), game.turns(), game.max_depth(), static_cast<std::uint8_t>(game.end())});
    ++report.games;
    score_sum += game.score();
    report.scores.push_back(game.score());
    depths.push_back(game.max_depth());
    turns.push_back(game.turns());
    if (game.end() == ending::stuck) ++report.stuck;
  }
  report.stopped = !go_on;
  if (file && (go_on || options.keep_stopped)) {
    file->close();
    report.bytes = file->bytes();
  }
  report.seconds = elapsed();
  report.score = distribution_of(report.scores);
  report.depth = distribution_of(depths);
  report.turns = distribution_of(turns);
  return report;
}

}  // namespace nethack
