// SPDX-License-Identifier: MIT
// The novelty bonus: by counting places, or by random network distillation.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <retain/error.hpp>
#include <retain/loss/rnd.hpp>
#include <retain/policy/nature_cnn.hpp>
#include <retain/policy/orthogonal.hpp>
#include <retain/running_statistics.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>

#include "../common/adam.hpp"
#include "../common/saved_tensor.hpp"
#include "emulator.hpp"
#include "settings.hpp"

namespace montezuma {

/// The reward 1 / √n for the n-th visit of a place. All visits of a rollout are counted before the
/// rewards are computed.
class visit_counts {
 public:
  std::vector<float> rewards(std::span<const std::uint64_t> places) {
    for (const auto place : places) ++counts_[place];
    std::vector<float> paid(places.size());
    for (std::size_t i = 0; i < places.size(); ++i)
      paid[i] = static_cast<float>(1 / std::sqrt(static_cast<double>(counts_[places[i]])));
    return paid;
  }
  std::size_t places() const { return counts_.size(); }

  void save_state(retain::state& out, const std::string& prefix) const {
    const std::map<std::uint64_t, std::int64_t> sorted(counts_.begin(), counts_.end());
    auto table = at::empty({static_cast<std::int64_t>(sorted.size()), 2}, at::kLong);
    auto* cell = table.data_ptr<std::int64_t>();
    for (const auto& [place, count] : sorted) {
      *cell++ = static_cast<std::int64_t>(place);
      *cell++ = count;
    }
    out.set(prefix + "visits", table);
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    const auto table = saved_tensor(in, prefix + "visits", at::kLong, {any_size, 2});
    counts_.clear();
    const auto* cell = table.data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < table.size(0); ++i, cell += 2) {
      if (cell[1] < 1)
        throw retain::state_error("the saved '" + prefix + "visits' counts " +
                                  std::to_string(cell[1]) + " visits of a place");
      counts_[static_cast<std::uint64_t>(cell[0])] = cell[1];
    }
  }

 private:
  std::unordered_map<std::uint64_t, std::int64_t> counts_;
};

/// Small networks for random network distillation of features. The target has one layer less than
/// the predictor.
inline torch::nn::Sequential distillation_target(std::int64_t inputs) {
  torch::nn::Sequential net(torch::nn::Linear(inputs, 64), torch::nn::ReLU(),
                            torch::nn::Linear(64, 32));
  retain::orthogonal(net, std::sqrt(2.0));
  return net;
}
inline torch::nn::Sequential distillation_predictor(std::int64_t inputs) {
  torch::nn::Sequential net(torch::nn::Linear(inputs, 64), torch::nn::ReLU(),
                            torch::nn::Linear(64, 64), torch::nn::ReLU(),
                            torch::nn::Linear(64, 32));
  retain::orthogonal(net, std::sqrt(2.0));
  return net;
}

/// The networks for frames, as in Burda et al. 2018: the predictor has two more layers.
inline torch::nn::Sequential pixel_target(const std::vector<std::int64_t>& frame) {
  torch::nn::Sequential net(retain::nature_cnn(
      retain::nature_cnn_options{.channels = frame[0],
                                 .height = frame[1],
                                 .width = frame[2],
                                 .activation = retain::activation_kind::leaky_relu,
                                 .output_activation = false,
                                 .scale = 1}));
  retain::orthogonal(net, std::sqrt(2.0));
  return net;
}
inline torch::nn::Sequential pixel_predictor(const std::vector<std::int64_t>& frame) {
  auto net = pixel_target(frame);
  for (int layer = 0; layer < 2; ++layer) {
    net->push_back(torch::nn::ReLU());
    net->push_back(torch::nn::Linear(512, 512));
  }
  retain::orthogonal(net, std::sqrt(2.0));
  return net;
}

/// The new part of observations [..., shape] of a game: the last channels.
template <emulator Game>
at::Tensor newest_of(const at::Tensor& observations) {
  const auto channels = -static_cast<std::int64_t>(Game::observation_shape().size());
  return observations.narrow(channels, observations.size(channels) - Game::newest_channels(),
                             Game::newest_channels());
}
template <emulator Game>
std::vector<std::int64_t> newest_shape() {
  auto shape = Game::observation_shape();
  shape.front() = Game::newest_channels();
  return shape;
}

/// The selected bonus, or none. Rewards have an order of magnitude of one, because they are divided
/// by the standard deviation of their discounted sum.
class novelty {
 public:
  /// `seen`: the shape of the new part of an observation; three dimensions are a picture.
  novelty(const training_settings& settings, const std::vector<std::int64_t>& seen)
      : kind_(settings.bonus), scale_(settings.games, {.gamma = settings.novelty_discount}) {
    if (kind_ != bonus_kind::rnd) return;
    // equal settings make equal networks, independent of earlier random draws
    at::manual_seed(settings.seed);
    const bool picture = seen.size() == 3;
    auto predictor = picture ? pixel_predictor(seen) : distillation_predictor(seen.front());
    distillation_.emplace(picture ? pixel_target(seen) : distillation_target(seen.front()),
                          predictor, seen, settings.games,
                          retain::rnd_options{.gamma = settings.novelty_discount,
                                              .fraction = settings.predictor_share(),
                                              .seed = settings.seed});
    std::vector<std::pair<std::string, at::Tensor>> parameters;
    for (auto& parameter : predictor->named_parameters())
      parameters.emplace_back(parameter.key(), parameter.value());
    optimizer_.emplace(std::move(parameters),
                       training::adam_options{.learning_rate = settings.rnd_learning_rate});
  }

  bonus_kind kind() const { return kind_; }
  std::size_t places() const { return counts_.places(); }

  /// Takes the observations of random actions, before training.
  void warm_up(const at::Tensor& observations) {
    if (distillation_) distillation_->warm_up(observations);
  }

  /// Returns the bonus of a rollout, [T, N], from the places after its steps, or from the new part
  /// of the observations after its steps, [T, N, shape].
  at::Tensor rewards(std::span<const std::uint64_t> places, const at::Tensor& next_observations) {
    const auto steps = next_observations.size(0), games = next_observations.size(1);
    if (distillation_) return distillation_->rewards(next_observations);
    if (kind_ == bonus_kind::none) return at::zeros({steps, games});
    auto paid = counts_.rewards(places);
    const auto raw = at::from_blob(paid.data(), {steps, games}, at::kFloat).clone();
    scale_.update(raw);
    return scale_.scale(raw);
  }

  /// Trains the predictor on the observations after the steps of a minibatch.
  void learn(const at::Tensor& next_observations) {
    if (!distillation_) return;
    optimizer_->zero_grad();
    distillation_->loss(next_observations).backward();
    optimizer_->step();
  }

  void save_state(retain::state& out, const std::string& prefix) const {
    scale_.save_state(out, prefix + "scale.");
    counts_.save_state(out, prefix + "counts.");
    if (!distillation_) return;
    distillation_->save_state(out, prefix + "rnd.");
    optimizer_->save_state(out, prefix + "rnd_adam.");
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    scale_.load_state(in, prefix + "scale.");
    counts_.load_state(in, prefix + "counts.");
    if (!distillation_) return;
    distillation_->load_state(in, prefix + "rnd.");
    optimizer_->load_state(in, prefix + "rnd_adam.");
  }

 private:
  bonus_kind kind_;
  retain::discounted_return_scale scale_;
  visit_counts counts_;
  std::optional<retain::rnd<torch::nn::Sequential, torch::nn::Sequential>> distillation_;
  std::optional<training::adam> optimizer_;
};

}  // namespace montezuma
