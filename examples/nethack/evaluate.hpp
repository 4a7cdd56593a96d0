// SPDX-License-Identifier: MIT
// Plays a list of games to their ends, many in parallel, and reports the result of each.
//
// The same list gives the same games to every policy. A game is defined by its seed (and the saved
// game from which it starts). A policy draws its actions in a game from a random state of this
// game. Neither depends on the other games. So the results of different policies can be paired
// game by game.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/interrupt.hpp"
#include "environment.hpp"
#include "player.hpp"
#include "results.hpp"

namespace nethack {

/// Seeds of evaluation games have bit 62; seeds of training and recording do not. So no policy is
/// measured on a game that it, or the player that it was cloned from, has seen.
inline constexpr std::uint64_t held_out_games = std::uint64_t{1} << 62;

/// A game to play.
struct game_start {
  std::string name = "new";  ///< "new", or "depth3/007"
  std::uint64_t seed = 0;
  std::filesystem::path saved{};  ///< empty: a new game

  /// "new", "depth3": what the results are summed up by.
  std::string group() const { return name.substr(0, name.find('/')); }
};

inline std::vector<game_start> new_games(int count, std::uint64_t first = 0) {
  std::vector<game_start> games;
  for (int i = 0; i < count; ++i)
    games.push_back(
        {.name = "new", .seed = held_out_games + first + static_cast<std::uint64_t>(i)});
  return games;
}

/// Every NNN.save of a folder of `nethack save-states`, each played `repeats` times with different
/// random seeds.
inline std::vector<game_start> saved_games(const std::filesystem::path& folder, int repeats = 1) {
  if (!std::filesystem::is_directory(folder))
    throw std::runtime_error("no folder of saved games " + folder.string() +
                             ": `nethack save-states` makes such folders");
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".save") files.push_back(entry.path());
  if (files.empty()) throw std::runtime_error("no saved games (*.save) in " + folder.string());
  std::sort(files.begin(), files.end());
  const auto group =
      std::filesystem::absolute(folder / "x").lexically_normal().parent_path().filename().string();
  std::vector<game_start> games;
  for (int repeat = 0; repeat < repeats; ++repeat)
    for (std::size_t i = 0; i < files.size(); ++i)
      games.push_back(
          {.name = group + "/" + files[i].stem().string(),
           .seed = held_out_games + 1'000'000 + static_cast<std::uint64_t>(repeat) * 10'000 + i,
           .saved = files[i]});
  return games;
}

/// The interface of a player. A game is identified by its place, 0 … places − 1. Several games are
/// played at a place, one after the other.
class game_player {
 public:
  virtual ~game_player() = default;
  /// A game starts at a place; `game` shows its first screen.
  virtual void begin(std::size_t place, const environment& game, const game_start& start) = 0;
  /// Returns the keys for the games at `places`, all of which wait for a key.
  virtual std::vector<key> choose(const std::vector<std::size_t>& places,
                                  const std::vector<std::unique_ptr<environment>>& games) = 0;
};

/// Presses a random key of the small set, with equal chances.
class random_player : public game_player {
 public:
  explicit random_player(std::size_t places) : dice_(places) {}
  void begin(std::size_t place, const environment&, const game_start& start) override {
    dice_[place].seed(start.seed);
  }
  std::vector<key> choose(const std::vector<std::size_t>& places,
                          const std::vector<std::unique_ptr<environment>>&) override {
    std::vector<key> chosen;
    for (const auto place : places)
      chosen.push_back(
          small_actions[statistics::detail::below(dice_[place], small_actions.size())].code);
    return chosen;
  }

 private:
  std::vector<std::mt19937_64> dice_;
};

/// The scripted player, whose games are the demonstrations.
class scripted_player : public game_player {
 public:
  explicit scripted_player(std::size_t places) {
    for (std::size_t i = 0; i < places; ++i) players_.emplace_back(0);
  }
  void begin(std::size_t place, const environment&, const game_start& start) override {
    players_[place].reset(start.seed);
  }
  std::vector<key> choose(const std::vector<std::size_t>& places,
                          const std::vector<std::unique_ptr<environment>>& games) override {
    std::vector<key> chosen;
    for (const auto place : places) chosen.push_back(players_[place].next(games[place]->view()));
    return chosen;
  }

 private:
  std::vector<player> players_;
};

/// The number of places for this many games: enough for efficient batches, and no more processes
/// than necessary.
inline std::size_t places_for(std::size_t games) {
  return std::min<std::size_t>(32, std::max<std::size_t>(1, games));
}

/// Called after every round with the number of ended games and of keys so far.
using evaluation_report = std::function<void(std::size_t ended, long steps)>;

/// Plays all games. If the user stops it, returns the games that have ended.
inline results_by_start play_games(const std::vector<game_start>& starts, game_player& who,
                                   environment_options options,
                                   const evaluation_report& report = {}) {
  const std::size_t places = places_for(starts.size());
  std::vector<std::unique_ptr<environment>> games;
  for (std::size_t i = 0; i < places; ++i) games.push_back(std::make_unique<environment>(options));

  std::vector<std::size_t> playing(places);  // the start that is played at each place
  std::vector<game_result> results(starts.size());
  std::vector<bool> ended(starts.size(), false);
  std::size_t next = 0, finished = 0;
  long steps = 0;
  std::vector<std::size_t> busy;

  const auto seat = [&](std::size_t place) {
    const auto& start = starts[next];
    if (start.saved.empty())
      games[place]->reset(start.seed);
    else
      games[place]->reset_from(start.saved, start.seed);
    playing[place] = next++;
    who.begin(place, *games[place], start);
  };
  for (std::size_t place = 0; place < places && next < starts.size(); ++place) {
    seat(place);
    busy.push_back(place);
  }
  while (!busy.empty() && !interrupt::requested()) {
    const auto chosen = who.choose(busy, games);
    for (std::size_t i = 0; i < busy.size(); ++i) games[busy[i]]->send(chosen[i]);
    std::vector<std::size_t> still;
    for (const auto place : busy) {
      auto& game = *games[place];
      const bool done = game.receive().done;
      ++steps;
      if (!done) {
        still.push_back(place);
        continue;
      }
      const auto& start = starts[playing[place]];
      results[playing[place]] = {
          start.seed,       start.name,   game.score(), game.milestone_score(),
          game.max_depth(), game.turns(), game.steps(), name(game.end())};
      ended[playing[place]] = true;
      ++finished;
      if (next < starts.size()) {
        seat(place);
        still.push_back(place);
      }
    }
    busy = std::move(still);
    if (report) report(finished, steps);
  }
  // In the order of the list, not in the order of their ends.
  results_by_start by_start;
  for (std::size_t i = 0; i < starts.size(); ++i)
    if (ended[i]) by_start[starts[i].group()].push_back(std::move(results[i]));
  return by_start;
}

}  // namespace nethack
