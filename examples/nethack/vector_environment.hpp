// SPDX-License-Identifier: MIT
// Many parallel games in one process. All games get their keys before the first answer is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "environment.hpp"

namespace nethack {

/// The seed of episode `episode` of game `game` in a run with `seed`. It mixes the three numbers,
/// so that equal runs are equal bit for bit and different runs share no game. It is never 0. Bit 62
/// is never set, because bit 62 marks the evaluation games (evaluate.hpp).
constexpr std::uint64_t episode_seed(std::uint64_t seed, std::uint64_t game,
                                     std::uint64_t episode) {
  std::uint64_t z = 0;
  for (const std::uint64_t part : {seed, game, episode}) {
    z = (z ^ part) + 0x9e3779b97f4a7c15u;  // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
  }
  z &= ~(std::uint64_t{1} << 62);
  return z ? z : 1;
}

/// The result of an episode, kept after its game has started again.
struct episode_summary {
  std::size_t game = 0;
  std::uint64_t seed = 0;
  nethack::ending ending = nethack::ending::none;
  double score = 0, milestone_score = 0;
  int max_depth = 1, turns = 0, steps = 0;
};

/// A game whose episode was truncated, and the last observation of this episode.
struct truncated_game {
  std::size_t game = 0;
  observation last{};
};

class vector_environment {
 public:
  vector_environment(std::size_t games, std::uint64_t seed, const environment_options& options = {})
      : seed_(seed), episodes_(games, 0) {
    for (std::size_t i = 0; i < games; ++i)
      games_.push_back(std::make_unique<environment>(options));
  }

  std::size_t size() const { return games_.size(); }
  environment& operator[](std::size_t i) { return *games_[i]; }
  const environment& operator[](std::size_t i) const { return *games_[i]; }
  observation const& view(std::size_t i) const { return games_[i]->view(); }

  /// Starts the next episode of every game (at first, the first).
  void reset() {
    finished_.clear();
    truncated_.clear();
    for (std::size_t i = 0; i < size(); ++i) begin_next_episode(i);
    for (auto& game : games_) game->finish_reset();
  }

  /// Takes one key for each game. If a result has `done`, the game has already started its next
  /// episode and `view` shows that episode; `finished()` has the result of the old one.
  void step(std::span<const key> codes, std::span<step_result> results) {
    if (codes.size() != size() || results.size() != size())
      throw std::invalid_argument(
          "nethack::vector_environment::step: one key and one result for each game");
    finished_.clear();
    truncated_.clear();
    for (std::size_t i = 0; i < size(); ++i) games_[i]->send(codes[i]);
    for (std::size_t i = 0; i < size(); ++i) {
      results[i] = games_[i]->receive();
      if (!results[i].done) continue;
      const environment& game = *games_[i];
      finished_.push_back({i, game.seed(), game.end(), game.score(), game.milestone_score(),
                           game.max_depth(), game.turns(), game.steps()});
      if (is_truncation(game.end())) truncated_.push_back({i, game.view()});
      begin_next_episode(i);  // it starts while the other games are read
    }
    for (const episode_summary& old : finished_) games_[old.game]->finish_reset();
  }

  /// The episodes that ended in the last step.
  const std::vector<episode_summary>& finished() const { return finished_; }
  /// Those of them that were truncated.
  const std::vector<truncated_game>& truncated() const { return truncated_; }

  /// The number of episodes that each game has started. With the seed and the number of games, a
  /// resumed run continues from them.
  const std::vector<std::uint64_t>& episodes() const { return episodes_; }
  void set_episodes(const std::vector<std::uint64_t>& episodes) {
    if (episodes.size() != size())
      throw std::invalid_argument("nethack::vector_environment: another number of games");
    episodes_ = episodes;
  }

  /// Games that hung, crashed or were killed, and were replaced by a new one.
  long replaced() const {
    long count = 0;
    for (const auto& game : games_) count += game->game().hangs() + game->game().crashes();
    return count;
  }

 private:
  void begin_next_episode(std::size_t i) {
    games_[i]->begin_reset(episode_seed(seed_, i, episodes_[i]++));
  }

  std::uint64_t seed_;
  std::vector<std::uint64_t> episodes_;
  std::vector<std::unique_ptr<environment>> games_;
  std::vector<episode_summary> finished_;
  std::vector<truncated_game> truncated_;
};

}  // namespace nethack
