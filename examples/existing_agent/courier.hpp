// SPDX-License-Identifier: MIT
// The world of this example: a courier on a board without edges.
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <vector>

/// Boards of 9 x 9 fields whose opposite edges are joined. The courier stays or moves by one field,
/// and gets 1 for each delivery; then the next address is drawn. In the storm, the wind moves the
/// courier by one more field to the right in 8 of 10 steps. The observation shows the weather, but
/// weakly. The random numbers are the same with every standard library.
class courier {
 public:
  enum weather { calm, storm };
  static constexpr int side = 9, inputs = 5, choices = 5, steps_of_a_day = 50;

  courier(weather today, int boards, std::uint64_t seed)
      : weather_(today), random_(seed), places_(static_cast<std::size_t>(boards)) {
    for (auto& place : places_) place = {field(), field()};
  }

  /// [boards, inputs]: the way to the address, which of its parts are done, and the weather.
  torch::Tensor observe() const {
    auto all = torch::empty({static_cast<std::int64_t>(places_.size()), inputs});
    auto* out = all.data_ptr<float>();
    for (const auto& [x, y] : places_) {
      *out++ = static_cast<float>(x) / 4;
      *out++ = static_cast<float>(y) / 4;
      *out++ = x == 0 ? 1.f : 0.f;
      *out++ = y == 0 ? 1.f : 0.f;
      *out++ = weather_ == storm ? 0.2f : 0.f;
    }
    return all;
  }

  /// Moves all couriers: 0 stays, 1 and 2 go left and right, 3 and 4 go up and down. Returns the
  /// rewards [boards].
  torch::Tensor step(const torch::Tensor& actions) {
    auto rewards = torch::zeros({static_cast<std::int64_t>(places_.size())});
    auto* reward = rewards.data_ptr<float>();
    const auto* chosen = actions.data_ptr<std::int64_t>();
    for (auto& [x, y] : places_) {
      const auto action = *chosen++;
      x = around(x - (action == 2) + (action == 1) - wind());
      y = around(y - (action == 4) + (action == 3));
      const bool delivered = x == 0 && y == 0;
      *reward++ = delivered ? 1.f : 0.f;
      if (delivered) {
        x = field();
        y = field();
      }
    }
    return rewards;
  }

  /// The moves of a courier who knows the way in calm weather: [boards].
  torch::Tensor expert() const {
    auto moves = torch::empty({static_cast<std::int64_t>(places_.size())}, torch::kLong);
    auto* out = moves.data_ptr<std::int64_t>();
    for (const auto& [x, y] : places_)
      *out++ = std::abs(x) >= std::abs(y) ? (x > 0 ? 2 : 1) : (y > 0 ? 4 : 3);
    return moves;
  }

 private:
  struct way {
    int x, y;  ///< fields to the address, from -4 to 4
  };
  static int around(int d) { return (d + side + side / 2) % side - side / 2; }
  int below(int n) { return static_cast<int>((random_() >> 32) % static_cast<unsigned>(n)); }
  int field() { return below(side) - side / 2; }
  int wind() { return weather_ == storm && below(10) < 8 ? 1 : 0; }

  weather weather_;
  std::mt19937_64 random_;
  std::vector<way> places_;
};
