// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/random.hpp>
#include <retain/base/text.hpp>
#include <retain/core/module_tensors.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/running_statistics.hpp>
#include <retain/core/state.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct rnd_options {
  double observation_clip = 5.0;  ///< normalized observations are clipped to [-clip, clip]
  double gamma = 0.99;            ///< discount of the returns R, whose deviation scales the rewards
  /// share of the samples that the predictor learns from, drawn for each loss
  double fraction = 0.25;
  /// largest number of observations per call of the networks without a graph
  std::int64_t rows = 4096;
  std::uint64_t seed = 0;
};

/// Random network distillation: a bonus for states that are new to a predictor. The predictor g
/// learns the features of a fixed random network f, and its error is the bonus:
///
///     x = clip((s - mean) / std, -5, 5),   error(s) = mean_i (f_i(x) - g_i(x))^2
///     r_int(s_{t+1}) = error(s_{t+1}) / std of R,   R_t = gamma R_{t-1} + error_t
///
/// mean and std are running statistics of the observations; for R see discounted_return_scale. In a
/// training loop:
///
///     rnd bonus{target, predictor, {1, 84, 84}, environments};
///     bonus.warm_up(random_steps);                        // once, before training
///     auto intrinsic = bonus.rewards(next_observations);  // per rollout; see two_stream_gae()
///     (ppo_loss + bonus.loss(minibatch_of_next_observations)).backward();
///
/// Target and predictor are module holders, pointers to modules, or callables, [M, observation] ->
/// [M, features]. The constructor freezes the target and puts it in eval mode. The caller must pass
/// the predictor's parameters to an optimizer. Copies of an rnd share both networks and have their
/// own statistics.
///
/// Paper: Burda et al. 2018 (arXiv 1810.12894).
template <class Target, class Predictor>
class rnd {
 public:
  /// Throws config_error if there is no environment or if an option is out of its range.
  rnd(Target target, Predictor predictor, std::vector<std::int64_t> observation_shape,
      std::int64_t environments, rnd_options options = {})
      : target_(std::move(target)),
        predictor_(std::move(predictor)),
        options_(options),
        random_(options.seed),
        observations_(std::move(observation_shape)),
        returns_(environments, {.gamma = options.gamma}) {
    if (!(options_.observation_clip > 0) || !(options_.fraction > 0 && options_.fraction <= 1) ||
        options_.rows < 1)
      throw config_error(detail::concat(
          "rnd: observation_clip must be positive, fraction in (0, 1] and rows at least 1, got ",
          options_.observation_clip, ", ", options_.fraction, " and ", options_.rows));
    if constexpr (parameter_source<Target>)
      for (auto& [name, tensor] : parameters(target_)) tensor.requires_grad_(false);
    if constexpr (requires { target_->eval(); }) target_->eval();
  }

  /// Adds observations [..., observation] of a random policy to the statistics, so that the first
  /// rewards are normalized well.
  void warm_up(const at::Tensor& observations) { observations_.update(observations); }

  /// Returns the intrinsic rewards of a rollout, [T, N]. `next_observations` [T, N, observation]
  /// are the observations after its steps. The function makes three steps in this order: the
  /// observations are normalized with the statistics before this rollout; the errors update the
  /// scale of the rewards, and the updated scale divides the errors; the observations update the
  /// statistics. Throws shape_error if the shapes do not fit, and state_error if a value is not
  /// finite. On an exception nothing changes.
  at::Tensor rewards(const at::Tensor& next_observations) {
    auto observations = observations_;
    auto returns = returns_;
    const auto found = errors(next_observations);
    returns.update(found);
    observations.update(next_observations);
    returns_ = std::move(returns);
    observations_ = std::move(observations);
    return returns_.scale(found);
  }

  /// Returns the mean squared error over features, [...] for observations [..., observation],
  /// without graph. Changes no statistics.
  at::Tensor errors(const at::Tensor& observations) const {
    const at::NoGradGuard no_grad;
    const auto rows = flattened(observations);
    std::vector<at::Tensor> parts;
    for (std::int64_t begin = 0; begin < rows.size(0); begin += options_.rows)
      parts.push_back(
          errors_of_rows(rows.narrow(0, begin, std::min(options_.rows, rows.size(0) - begin))));
    const auto leading = observations.sizes().slice(
        0, static_cast<std::size_t>(observations.dim()) - observations_.shape().size());
    return parts.empty() ? at::zeros(leading) : at::cat(parts).view(leading);
  }

  /// Returns the predictor's loss, 0-dim, with graph: the mean error over a random fraction of the
  /// observations [..., observation]. The loss is 0 if no observation was drawn. Equal seeds draw
  /// equal samples.
  at::Tensor loss(const at::Tensor& observations) {
    const auto rows = flattened(observations);
    std::vector<std::int64_t> drawn;
    for (std::int64_t i = 0; i < rows.size(0); ++i)
      if (static_cast<double>(random_() >> 11) * 0x1p-53 < options_.fraction) drawn.push_back(i);
    if (rows.size(0) == 0) return at::zeros({});
    // A loss of 0 that still has a graph.
    if (drawn.empty()) return errors_of_rows(rows.narrow(0, 0, 1)).sum() * 0;
    return errors_of_rows(
               rows.index_select(
                   0, at::tensor(drawn, at::TensorOptions().dtype(at::kLong)).to(rows.device())))
        .mean();
  }

  const running_statistics& observation_statistics() const { return observations_; }
  const discounted_return_scale& return_scale() const { return returns_; }

  /// Saves the statistics, the random generator, and the weights of target and predictor if they
  /// are modules.
  void save_state(state& out, const std::string& prefix) const {
    observations_.save_state(out, prefix + "observations.");
    returns_.save_state(out, prefix + "returns.");
    out.set(prefix + "random", random_.state());
    if constexpr (parameter_source<Target>) detail::save_tensors(out, prefix + "target.", target_);
    if constexpr (parameter_source<Predictor>)
      detail::save_tensors(out, prefix + "predictor.", predictor_);
  }
  /// Throws state_error or shape_error, and changes nothing, if the state belongs to other networks
  /// or observations.
  void load_state(const state& in, const std::string& prefix) {
    auto observations = observations_;
    auto returns = returns_;
    observations.load_state(in, prefix + "observations.");
    returns.load_state(in, prefix + "returns.");
    const auto random = in.integer<std::uint64_t>(prefix + "random");
    detail::replacement_list target, predictor;
    if constexpr (parameter_source<Target>)
      target = detail::read_tensors(in, prefix + "target.", target_, "rnd");
    if constexpr (parameter_source<Predictor>)
      predictor = detail::read_tensors(in, prefix + "predictor.", predictor_, "rnd");
    detail::replace_tensors(target);
    detail::replace_tensors(predictor);
    observations_ = std::move(observations);
    returns_ = std::move(returns);
    random_.set_state(random);
  }

 private:
  template <class Network>
  static at::Tensor ask(Network& network, const at::Tensor& x) {
    if constexpr (requires {
                    { network->forward(x) } -> std::convertible_to<at::Tensor>;
                  })
      return network->forward(x);
    else
      return network(x);
  }

  at::Tensor flattened(const at::Tensor& observations) const {
    const auto shape = observations_.shape();
    if (observations.dim() < static_cast<std::int64_t>(shape.size()) ||
        observations.sizes().slice(static_cast<std::size_t>(observations.dim()) - shape.size()) !=
            shape)
      throw shape_error(detail::concat("rnd: observations of shape ",
                                       detail::shape_text(observations.sizes()), " do not end in ",
                                       detail::shape_text(shape)));
    auto sizes = shape.vec();
    sizes.insert(sizes.begin(), observations.numel() == 0 ? 0 : -1);
    return observations.reshape(sizes);
  }

  at::Tensor errors_of_rows(const at::Tensor& rows) const {
    const auto seen = observations_.normalize(rows, options_.observation_clip);
    at::Tensor features;
    {
      const at::NoGradGuard no_grad;
      features = ask(target_, seen);
    }
    const auto foretold = ask(predictor_, seen);
    if (features.dim() != 2 || features.size(0) != rows.size(0) ||
        foretold.sizes() != features.sizes())
      throw shape_error(
          detail::concat("rnd: for ", rows.size(0),
                         " observations, target and predictor must return features of one shape [",
                         rows.size(0), ", features], got ", detail::shape_text(features.sizes()),
                         " and ", detail::shape_text(foretold.sizes())));
    return (foretold - features).square().mean(at::IntArrayRef{-1});
  }

  mutable Target target_;  // mutable, because forward functions are rarely const
  mutable Predictor predictor_;
  rnd_options options_;
  detail::splitmix64 random_;
  running_statistics observations_;
  discounted_return_scale returns_;
};

}  // namespace retain
