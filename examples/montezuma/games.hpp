// SPDX-License-Identifier: MIT
// Many parallel games. A game that ends starts again.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <retain/error.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "../common/saved_tensor.hpp"
#include "emulator.hpp"

namespace montezuma {

struct episode {
  double reward = 0;
  std::int64_t steps = 0;
  int rooms = 0;           ///< number of different rooms visited
  bool succeeded = false;  ///< in the first room
};

/// The type of an observation's numbers in a tensor.
template <emulator Game>
inline constexpr at::ScalarType observation_type =
    std::is_same_v<typename Game::value_type, float> ? at::kFloat : at::kByte;

/// The games whose episodes the last step truncated, and the observations at which it cut them off,
/// one after the other.
template <emulator Game>
struct truncated_games {
  std::vector<std::int64_t> games;
  std::vector<typename Game::value_type> observations;
};

/// Starts an episode of training: in a place of the game's choice if it has practice(), otherwise
/// in the room.
template <emulator Game>
void begin_training(Game& game, int room) {
  if constexpr (requires { game.practice(room); })
    game.practice(room);
  else
    game.reset(room);
}

template <emulator Game>
class games {
 public:
  games(std::vector<Game> all, int room)
      : games_(std::move(all)), running_(games_.size()), room_(room) {
    for (const auto size : Game::observation_shape()) numbers_ *= static_cast<std::size_t>(size);
    static_assert(Game::rooms <= 64, "visited rooms are counted in 64 bits");
    for (std::size_t i = 0; i < games_.size(); ++i) begin(i);
  }

  std::size_t size() const { return games_.size(); }
  const Game& operator[](std::size_t i) const { return games_[i]; }

  /// Writes the observations of all games one after the other.
  void observe(typename Game::value_type* values, std::size_t numbers_each) const {
    for (std::size_t i = 0; i < size(); ++i) games_[i].observe(values + i * numbers_each);
  }

  /// One step of every game, on all threads of LibTorch. `places` are the places after the step,
  /// before an ended game starts again.
  void step(std::span<const std::int64_t> actions, std::span<float> rewards,
            std::span<float> terminated, std::span<float> truncated,
            std::span<std::uint64_t> places) {
    results_.resize(size());
    truncated_.games.clear();
    truncated_.observations.clear();
    at::parallel_for(
        0, static_cast<std::int64_t>(size()), 1, [&](std::int64_t from, std::int64_t to) {
          for (auto i = static_cast<std::size_t>(from); i < static_cast<std::size_t>(to); ++i)
            results_[i] = games_[i].step(static_cast<int>(actions[i]));
        });
    for (std::size_t i = 0; i < size(); ++i) {
      auto& game = games_[i];
      auto& now = running_[i];
      const auto result = results_[i];
      rewards[i] = result.reward;
      terminated[i] = result.ended && !result.truncated ? 1.0f : 0.0f;
      truncated[i] = result.truncated ? 1.0f : 0.0f;
      places[i] = game.place_key();
      now.reward += static_cast<double>(result.reward);
      ++now.steps;
      now.visited |= std::uint64_t{1} << game.room();
      if (!result.ended) continue;
      finished_.push_back({now.reward, now.steps, std::popcount(now.visited), game.succeeded()});
      if (result.truncated) {
        truncated_.games.push_back(static_cast<std::int64_t>(i));
        truncated_.observations.resize(truncated_.games.size() * numbers_);
        game.observe(&truncated_.observations[truncated_.observations.size() - numbers_]);
      }
      begin(i);
    }
  }

  const truncated_games<Game>& truncated() const { return truncated_; }

  /// The episodes that ended since the last call.
  std::vector<episode> take_finished() { return std::exchange(finished_, {}); }

  void save_state(retain::state& out, const std::string& prefix) const {
    std::string bytes;
    const auto count = static_cast<std::int64_t>(size());
    auto lengths = at::empty({count}, at::kLong), records = at::empty({count, 3}, at::kDouble);
    for (std::size_t i = 0; i < size(); ++i) {
      const auto saved = games_[i].save();
      bytes += saved;
      lengths.data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(saved.size());
      double* record = records.data_ptr<double>() + 3 * i;
      record[0] = running_[i].reward;
      record[1] = static_cast<double>(running_[i].steps);
      record[2] = std::bit_cast<double>(running_[i].visited);
    }
    out.set(
        prefix + "bytes",
        at::from_blob(bytes.data(), {static_cast<std::int64_t>(bytes.size())}, at::kByte).clone());
    out.set(prefix + "lengths", lengths);
    out.set(prefix + "records", records);
  }
  /// Throws retain::state_error if the state has another number of games.
  void load_state(const retain::state& in, const std::string& prefix) {
    const auto count = static_cast<std::int64_t>(size());
    const auto bytes = saved_tensor(in, prefix + "bytes", at::kByte, {any_size}),
               lengths = saved_tensor(in, prefix + "lengths", at::kLong, {any_size});
    if (lengths.numel() != count)
      throw retain::state_error("the checkpoint is of " + std::to_string(lengths.numel()) +
                                " games, this run plays " + std::to_string(size()) +
                                ": resume the run with its original options");
    const auto records = saved_tensor(in, prefix + "records", at::kDouble, {count, 3});
    std::int64_t left = bytes.numel();
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t length = lengths.data_ptr<std::int64_t>()[i];
      if (length < 0 || length > left)
        throw retain::state_error("the checkpoint has too few bytes for its games: it is from "
                                  "another program or version");
      left -= length;
    }
    const auto* at = reinterpret_cast<const char*>(bytes.data_ptr<std::uint8_t>());
    for (std::size_t i = 0; i < size(); ++i) {
      const auto length = static_cast<std::size_t>(lengths.data_ptr<std::int64_t>()[i]);
      games_[i].restore({at, length});
      at += length;
      const double* record = records.data_ptr<double>() + 3 * i;
      running_[i] = {record[0], static_cast<std::int64_t>(record[1]),
                     std::bit_cast<std::uint64_t>(record[2])};
    }
    finished_.clear();
  }

 private:
  struct running {
    double reward = 0;
    std::int64_t steps = 0;
    std::uint64_t visited = 0;
  };

  void begin(std::size_t i) {
    begin_training(games_[i], room_);
    running_[i] = {0, 0, std::uint64_t{1} << games_[i].room()};
  }

  std::vector<Game> games_;
  std::vector<running> running_;
  std::vector<step_result> results_;
  std::vector<episode> finished_;
  truncated_games<Game> truncated_;
  std::size_t numbers_ = 1;  // of an observation
  int room_;
};

}  // namespace montezuma
