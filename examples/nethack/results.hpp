// SPDX-License-Identifier: MIT
// The results of played games: one line per game, a summary, and the file with both.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "../common/files.hpp"
#include "../common/statistics.hpp"
#include "../common/table.hpp"

namespace nethack {

struct game_result {
  /// of the random state of the game; with `start` it identifies the game for paired comparisons
  std::uint64_t seed = 0;
  std::string start;  ///< "new", or the saved game that it began from: "depth3/007"
  double score = 0;   ///< points gained since the start of the evaluation
  /// the score when 1000 turns had passed, or at the end of a shorter game
  double score_1000 = 0;
  int depth = 1;       ///< deepest dungeon level reached
  int turns = 0;       ///< game time played
  long steps = 0;      ///< keys pressed
  std::string ending;  ///< death, stuck, turn cap, step cap, lost (the game's process broke)
};

/// A set of games that began alike: "new", "depth3", "depth4".
using results_by_start = std::map<std::string, std::vector<game_result>>;

template <class Field>
std::vector<double> column(const std::vector<game_result>& games, Field field) {
  std::vector<double> values;
  values.reserve(games.size());
  for (const auto& game : games) values.push_back(static_cast<double>(field(game)));
  return values;
}

inline std::vector<double> scores(const std::vector<game_result>& games) {
  return column(games, [](const game_result& game) { return game.score; });
}

/// Points gained after turn 1000, which show the policy's own late game.
inline std::vector<double> late_gains(const std::vector<game_result>& games) {
  return column(games, [](const game_result& game) { return game.score - game.score_1000; });
}

inline double ending_share(const std::vector<game_result>& games, const std::string& ending) {
  return statistics::mean(
      column(games, [&](const game_result& game) { return game.ending == ending ? 1.0 : 0.0; }));
}

inline nlohmann::json summary(const std::vector<game_result>& games) {
  const auto score = scores(games);
  const auto interval = statistics::bootstrap_interval(score);
  std::map<std::string, int> endings;
  for (const auto& game : games) ++endings[game.ending];
  return {{"games", games.size()},
          {"mean", statistics::mean(score)},
          {"median", statistics::median(score)},
          {"interval_95", {interval.low, interval.high}},
          {"interquartile_mean", statistics::interquartile_mean(score)},
          {"standard_deviation", statistics::standard_deviation(score)},
          {"quantiles",
           {{"5 %", statistics::quantile(score, 0.05)},
            {"25 %", statistics::quantile(score, 0.25)},
            {"75 %", statistics::quantile(score, 0.75)},
            {"95 %", statistics::quantile(score, 0.95)}}},
          {"at_turn_1000",
           statistics::mean(column(games, [](const auto& game) { return game.score_1000; }))},
          {"gained_after_turn_1000", statistics::mean(late_gains(games))},
          {"depth", statistics::mean(column(games, [](const auto& game) { return game.depth; }))},
          {"turns", statistics::mean(column(games, [](const auto& game) { return game.turns; }))},
          {"steps", statistics::mean(column(games, [](const auto& game) { return game.steps; }))},
          {"endings", endings}};
}

inline nlohmann::json to_json(const results_by_start& results) {
  nlohmann::json all = nlohmann::json::object();
  for (const auto& [start, games] : results) {
    nlohmann::json lines = nlohmann::json::array();
    for (const auto& game : games)
      lines.push_back({game.seed, game.start, game.score, game.score_1000, game.depth, game.turns,
                       game.steps, game.ending});
    all[start] = {
        {"summary", summary(games)},
        {"columns", {"seed", "start", "score", "score_1000", "depth", "turns", "steps", "ending"}},
        {"games", std::move(lines)}};
  }
  return all;
}

inline results_by_start results_from_json(const nlohmann::json& all) {
  results_by_start results;
  for (const auto& [start, entry] : all.items())
    for (const auto& row : entry.at("games"))
      results[start].push_back(
          {row.at(0), row.at(1), row.at(2), row.at(3), row.at(4), row.at(5), row.at(6), row.at(7)});
  return results;
}

inline std::string games_csv(const results_by_start& results) {
  text_table lines({"start", "seed", "score", "score_1000", "depth", "turns", "steps", "ending"});
  for (const auto& [start, games] : results)
    for (const auto& game : games)
      lines.add({game.start, std::to_string(game.seed), decimals(game.score),
                 decimals(game.score_1000), std::to_string(game.depth), std::to_string(game.turns),
                 std::to_string(game.steps), game.ending});
  return lines.csv();
}

/// A table with one row per start.
inline std::string summary_table(const std::string& who, const results_by_start& results) {
  text_table lines({who, "games", "mean", "median", "95 % interval", "25 … 75 %", "depth", "turns",
                    "gained after turn 1000", "died", "stuck"});
  for (const auto& [start, games] : results) {
    const auto score = scores(games);
    const auto interval = statistics::bootstrap_interval(score);
    const auto percent = [&](const char* ending) {
      return decimals(100 * ending_share(games, ending)) + " %";
    };
    lines.add(
        {start == "new" ? "new game" : "from " + start, std::to_string(games.size()),
         decimals(statistics::mean(score)), decimals(statistics::median(score)),
         range_text(interval.low, interval.high),
         range_text(statistics::quantile(score, 0.25), statistics::quantile(score, 0.75)),
         decimals(statistics::mean(column(games, [](const auto& game) { return game.depth; })), 1),
         decimals(statistics::mean(column(games, [](const auto& game) { return game.turns; }))),
         decimals(statistics::mean(late_gains(games))), percent("death"), percent("stuck")});
  }
  return lines.markdown();
}

}  // namespace nethack
