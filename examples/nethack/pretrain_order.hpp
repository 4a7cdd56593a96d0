// SPDX-License-Identifier: MIT
// The order in which a network learns from demonstrated states: shuffled, or along the games for a
// recurrent network.
#pragma once

#include "training_states.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <random>
#include <vector>

namespace nethack {

/// Only one key in two thousand is a prayer, and without prayers a clone starves. A wrong answer to
/// a question wastes the command. Accuracy does not show such errors, but the score does. So these
/// states count more often.
inline bool is_rare(const features& state, int action) {
  const key code = small_actions[static_cast<std::size_t>(action)].code;
  if (code == 'e' || code == 'q' || code == '>' || code == keys::pray || code == keys::kick)
    return true;
  return std::find(state.rows.begin(), state.rows.begin() + state.row_count, table::question) !=
         state.rows.begin() + state.row_count;
}

/// The weight of each state.
inline std::vector<int> repeats_of(const training_states& states, int rare_repeats) {
  std::vector<int> repeats(static_cast<std::size_t>(states.size()));
  const auto* actions = states.actions.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < states.size(); ++i)
    repeats[static_cast<std::size_t>(i)] =
        is_rare(states.at(i), static_cast<int>(actions[i])) ? 1 + rare_repeats : 1;
  return repeats;
}

/// Rows of `all` [n, ...] in the shape of `indices`.
inline at::Tensor gather(const at::Tensor& all, const at::Tensor& indices) {
  if (indices.dim() == 1) return all.index_select(0, indices);
  auto sizes = indices.sizes().vec();
  sizes.insert(sizes.end(), all.sizes().begin() + 1, all.sizes().end());
  return all.index_select(0, indices.flatten()).view(sizes);
}

/// An endless sequence of batches for optimizer steps.
class learning_order {
 public:
  virtual ~learning_order() = default;
  virtual std::int64_t size() const = 0;  ///< number of states in one epoch
  virtual at::Tensor next() = 0;          ///< indices, [batch] or [steps, games]
  /// Weighted mean of values in the shape of `indices`.
  virtual at::Tensor mean(const at::Tensor& values, const at::Tensor& indices) const = 0;
};

/// Repeats every state according to its weight, in a new random order each epoch.
class shuffled_states : public learning_order {
 public:
  shuffled_states(const std::vector<int>& repeats, std::int64_t batch, std::uint64_t seed)
      : batch_(static_cast<std::size_t>(batch)), dice_(seed) {
    for (std::size_t i = 0; i < repeats.size(); ++i)
      order_.insert(order_.end(), static_cast<std::size_t>(repeats[i]),
                    static_cast<std::int64_t>(i));
    position_ = order_.size();
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(order_.size()); }
  at::Tensor next() override {
    if (position_ + batch_ > order_.size()) {
      std::shuffle(order_.begin(), order_.end(), dice_);
      position_ = 0;
    }
    position_ += batch_;
    return at::from_blob(order_.data() + position_ - batch_, {static_cast<std::int64_t>(batch_)},
                         at::kLong);
  }
  at::Tensor mean(const at::Tensor& values, const at::Tensor&) const override {
    return values.mean();
  }

 private:
  std::size_t batch_, position_;
  std::mt19937_64 dice_;
  std::vector<std::int64_t> order_;
};

/// The indices of a game's states.
struct game_span {
  std::int64_t begin, end;
};

inline std::vector<game_span> games_of(const training_states& states) {
  std::vector<game_span> games;
  for (std::int64_t i = 0; i < states.size(); ++i) {
    if (games.empty() || states.at(i).first) games.push_back({i, i});
    games.back().end = i + 1;
  }
  return games;
}

/// Follows games in parallel lanes: each lane plays one game to its end, then the next game of the
/// list. With a seed the list is shuffled and starts again at its end. The lanes then start in the
/// middle of their first games, so that not all lanes are at the start of a game at once.
class game_lanes {
 public:
  game_lanes(std::vector<game_span> games, std::int64_t lanes,
             std::optional<std::uint64_t> seed = {})
      : games_(std::move(games)),
        lanes_(static_cast<std::size_t>(lanes), game_span{0, 0}),
        endless_(seed.has_value()),
        dice_(seed.value_or(0)) {
    if (!endless_) waiting_.assign(games_.begin(), games_.end());
    for (auto& lane : lanes_) {
      enter_game(lane);
      if (endless_ && lane.begin < lane.end)
        lane.begin +=
            static_cast<std::int64_t>(dice_() % static_cast<std::uint64_t>(lane.end - lane.begin));
    }
  }

  bool exhausted() const {
    return std::all_of(lanes_.begin(), lanes_.end(),
                       [](const game_span& lane) { return lane.begin == lane.end; });
  }
  /// [steps, lanes]; −1 if no game is left.
  at::Tensor next(std::int64_t steps) {
    const auto count = static_cast<std::int64_t>(lanes_.size());
    auto indices = at::empty({steps, count}, at::kLong);
    auto* index = indices.data_ptr<std::int64_t>();
    for (std::int64_t t = 0; t < steps; ++t)
      for (auto& lane : lanes_) {
        *index++ = lane.begin == lane.end ? -1 : lane.begin++;
        if (lane.begin == lane.end) enter_game(lane);
      }
    return indices;
  }

 private:
  void enter_game(game_span& lane) {
    if (waiting_.empty() && endless_) {
      waiting_.assign(games_.begin(), games_.end());
      std::shuffle(waiting_.begin(), waiting_.end(), dice_);
    }
    if (waiting_.empty()) return;
    lane = waiting_.front();
    waiting_.pop_front();
  }

  std::vector<game_span> games_;
  std::deque<game_span> waiting_;
  std::vector<game_span> lanes_;
  bool endless_;
  std::mt19937_64 dice_;
};

/// Stretches of parallel games. Each stretch continues where the previous one ended.
class games_side_by_side : public learning_order {
 public:
  games_side_by_side(const training_states& states, const std::vector<int>& repeats,
                     std::int64_t steps, std::int64_t games, std::uint64_t seed)
      : lanes_(games_of(states), games, seed),
        steps_(steps),
        weights_(at::tensor(repeats, at::kFloat)) {}
  std::int64_t size() const override { return weights_.size(0); }
  at::Tensor next() override { return lanes_.next(steps_); }
  at::Tensor mean(const at::Tensor& values, const at::Tensor& indices) const override {
    const auto weights = gather(weights_, indices);
    return (values * weights).sum() / weights.sum();
  }

 private:
  game_lanes lanes_;
  std::int64_t steps_;
  at::Tensor weights_;
};

}  // namespace nethack
