// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/marks.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/small_losses.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>

namespace retain {

/// Distributions with gradients through their samples. The type needs rsample() and
/// log_prob(actions), or rsample_with_log_prob(), which returns members `action` and `log_prob`.
/// The second form avoids the inversion of tanh.
template <class D>
concept reparameterized_distribution = requires(const D& d) {
  { d.rsample_with_log_prob().action } -> std::convertible_to<at::Tensor>;
  { d.rsample_with_log_prob().log_prob } -> std::convertible_to<at::Tensor>;
} || requires(const D& d, const at::Tensor& actions) {
  { d.rsample() } -> std::convertible_to<at::Tensor>;
  { d.log_prob(actions) } -> std::convertible_to<at::Tensor>;
};

namespace detail {

template <reparameterized_distribution D>
std::pair<at::Tensor, at::Tensor> draw_with_log_prob(const D& distribution) {
  if constexpr (requires { distribution.rsample_with_log_prob(); }) {
    auto drawn = distribution.rsample_with_log_prob();
    return {drawn.action, drawn.log_prob};
  } else {
    at::Tensor actions = distribution.rsample();
    return {actions, distribution.log_prob(actions)};
  }
}

inline void check_critics(const char* who, const at::Tensor& q, at::IntArrayRef rows) {
  if (q.dim() < 1 || q.sizes().slice(1) != rows || q.size(0) < 1)
    throw shape_error(
        concat(who, ": the critics' values must be [critics, samples], one row per critic, got ",
               shape_text(q.sizes()), " for samples of shape ", shape_text(rows)));
}
inline void check_temperature(const char* who, const at::Tensor& alpha, at::IntArrayRef rows) {
  if (alpha.numel() != 1 && alpha.sizes() != rows)
    throw shape_error(concat(who, ": alpha must be one number, or one per sample of shape ",
                             shape_text(rows), ", got ", shape_text(alpha.sizes())));
}

/// Returns sum_k (Q_k - y)^2 times `scale`.
inline at::Tensor squared_errors(const at::Tensor& q, const at::Tensor& target, double scale) {
  return (q - target).square().sum() * scale;
}

/// Returns mean [ alpha log pi - min_k Q_k ]. Among critics with equal values, only the first one
/// gets a gradient.
inline at::Tensor actor_objective(const at::Tensor& q, const at::Tensor& log_probs,
                                  const at::Tensor& alpha) {
  return mean_of(alpha * log_probs - std::get<0>(q.min(0)));
}

}  // namespace detail

/// Bounds of the critics' targets: targets outside are clipped. The default has no bounds.
struct value_bounds {
  double least = -std::numeric_limits<double>::infinity();
  double greatest = std::numeric_limits<double>::infinity();
};

namespace detail {

/// Returns the bounds. A bound that the type cannot hold becomes infinite.
inline value_bounds representable(value_bounds bounds, at::ScalarType type) {
  const double largest = type == at::kDouble ? std::numeric_limits<double>::max()
                         : type == at::kHalf
                             ? 65504
                             : static_cast<double>(std::numeric_limits<float>::max());
  if (bounds.least < -largest) bounds.least = -std::numeric_limits<double>::infinity();
  if (bounds.greatest > largest) bounds.greatest = std::numeric_limits<double>::infinity();
  return bounds;
}

}  // namespace detail

/// The target of soft actor-critic's critics, with the minimum over several critics against
/// overestimation:
///
///     y = clip(r + gamma (1 - terminated) V', least, greatest)
///     V' = min_k Q'_k(s', a') - alpha log pi(a'|s'),   a' ~ pi(.|s')
///
/// rewards, terminated and next_log_probs are [N]. next_q [K, N] are the values of the target
/// critics. alpha is one number or [N]. The result has no graph.
///
/// `terminated` is bool, or 0 and 1: 1 if s' is terminal. A truncated step is not: there,
/// `terminated` is 0 and s' is the state that was cut off, not the first state of the next episode.
/// For the difference between both ends, and for other numbers than 0 and 1, see value_steps.
///
/// `bounds` are the smallest and largest possible return, including entropy, if they are known. Set
/// them if the buffer holds transitions of an earlier policy (episodic_memory, demonstrations). The
/// new policy does not visit all of these states, so no new data corrects the critics there.
/// Without bounds such errors can grow through the targets (Fujimoto et al. 2019, arXiv
/// 1812.02900).
///
/// Throws shape_error if the shapes do not fit, and config_error if no number lies between the
/// bounds or, on the CPU, if `terminated` holds another number than 0 and 1.
///
/// Papers: Haarnoja et al. 2018 (arXiv 1812.05905); for the clipping, Andrychowicz et al. 2017
/// (arXiv 1707.01495).
inline at::Tensor sac_target(const at::Tensor& rewards, const at::Tensor& terminated,
                             const at::Tensor& next_q, const at::Tensor& next_log_probs,
                             const at::Tensor& alpha, double gamma = 0.99,
                             value_bounds bounds = {}) {
  const at::NoGradGuard no_grad;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (!(bounds.least <= bounds.greatest) || bounds.least == infinity ||
      bounds.greatest == -infinity)
    throw config_error(detail::concat("sac_target: no value lies between the bounds ", bounds.least,
                                      " and ", bounds.greatest));
  if (terminated.sizes() != rewards.sizes() || next_log_probs.sizes() != rewards.sizes())
    throw shape_error(detail::concat(
        "sac_target: rewards, terminated and next_log_probs must have one shape, got ",
        detail::shape_text(rewards.sizes()), ", ", detail::shape_text(terminated.sizes()), " and ",
        detail::shape_text(next_log_probs.sizes())));
  detail::check_critics("sac_target", next_q, rewards.sizes());
  detail::check_temperature("sac_target", alpha, rewards.sizes());
  const auto within = detail::representable(bounds, at::kFloat);
  if (auto few = detail::sac_target_of_few(rewards, terminated, next_q, next_log_probs, alpha,
                                           gamma, within.least, within.greatest);
      few.defined())
    return few;
  const auto temperature = alpha.numel() == 1 ? alpha.detach().reshape({}) : alpha.detach();
  const auto next = std::get<0>(next_q.detach().min(0)) - temperature * next_log_probs.detach();
  // The critic's value of the state after the end of an episode has no meaning and may be NaN.
  const auto target =
      rewards + gamma * next.masked_fill(detail::marked("sac_target", "terminated", terminated), 0);
  const auto [least, greatest] = detail::representable(bounds, target.scalar_type());
  return least > -infinity || greatest < infinity ? target.clamp(least, greatest) : target;
}

/// Draws the next actions and returns sac_target() for them. `next` is pi(.|s'), and
/// target_critics(actions) returns Q'(s', actions) as [K, N].
template <reparameterized_distribution D, class Critics>
  requires std::invocable<Critics&, const at::Tensor&>
at::Tensor sac_target(const at::Tensor& rewards, const at::Tensor& terminated, const D& next,
                      Critics&& target_critics, const at::Tensor& alpha, double gamma = 0.99,
                      value_bounds bounds = {}) {
  const at::NoGradGuard no_grad;
  const auto [actions, log_probs] = detail::draw_with_log_prob(next);
  return sac_target(rewards, terminated, at::Tensor(target_critics(actions)), log_probs, alpha,
                    gamma, bounds);
}

/// Returns the critics' loss, 0-dim: the sum over critics of the mean over samples of (Q_k - y)^2 /
/// 2. q [K, N] carries the graph; target is [N]. The loss of an empty batch is 0. Throws
/// shape_error if the shapes do not fit.
inline at::Tensor sac_critic_loss(const at::Tensor& q, const at::Tensor& target) {
  detail::check_critics("sac_critic_loss", q, target.sizes());
  const double scale = 0.5 / static_cast<double>(std::max<std::int64_t>(target.numel(), 1));
  const auto aim = target.detach();
  auto few = detail::squared_errors_of_few<detail::squared_errors>(q, aim, scale);
  return few.defined() ? few : detail::squared_errors(q, aim, scale);
}

/// The actor's loss, and the log-probabilities of the sampled actions.
struct sac_actor_loss {
  at::Tensor loss;       ///< 0-dim, with graph: the mean over samples
  at::Tensor log_probs;  ///< [N], without graph: the input of sac_temperature
};

/// The actor's loss of soft actor-critic, over actions that carry the policy's graph:
///
///     loss = mean [ alpha log pi(a|s) - min_k Q_k(s, a) ],   a ~ pi(.|s)
///
/// q [K, N] are the critics' values of these actions, and log_probs [N] their log-probabilities,
/// both with graph. alpha is one number or [N]. backward() also adds gradients to the critics'
/// parameters: call zero_grad() on the critics' optimizer before the backward pass of their own
/// loss. The loss of an empty batch is 0. Throws shape_error if the shapes do not fit.
inline sac_actor_loss sac_policy_loss(const at::Tensor& q, const at::Tensor& log_probs,
                                      const at::Tensor& alpha) {
  detail::check_critics("sac_policy_loss", q, log_probs.sizes());
  detail::check_temperature("sac_policy_loss", alpha, log_probs.sizes());
  auto loss = detail::actor_objective_of_few<detail::actor_objective>(q, log_probs, alpha.detach());
  if (!loss.defined()) loss = detail::actor_objective(q, log_probs, alpha.detach());
  return {loss, log_probs.detach()};
}

/// Draws the actions and returns sac_policy_loss() for them. critics(actions) returns Q(s, actions)
/// as [K, N].
template <reparameterized_distribution D, class Critics>
  requires std::invocable<Critics&, const at::Tensor&>
sac_actor_loss sac_policy_loss(const D& policy, Critics&& critics, const at::Tensor& alpha) {
  const auto [actions, log_probs] = detail::draw_with_log_prob(policy);
  return sac_policy_loss(at::Tensor(critics(actions)), log_probs, alpha);
}

/// Returns a target for the policy's entropy, in nats: d log(std sqrt(2 pi e)), the entropy of a
/// Gaussian with this standard deviation in each of d dimensions. The default .089 is the value of
/// Wołczyk et al. 2021 (arXiv 2105.10919). The usual target -d corresponds to std = .089 to three
/// digits.
inline double gaussian_entropy_target(std::int64_t dimensions, double standard_deviation = 0.089) {
  if (dimensions < 1 || !(standard_deviation > 0))
    throw config_error(detail::concat("gaussian_entropy_target: needs at least one dimension and a "
                                      "positive standard deviation, got ",
                                      dimensions, " and ", standard_deviation));
  return static_cast<double>(dimensions) *
         (std::log(standard_deviation) + 0.5 * std::log(2 * std::numbers::pi * std::numbers::e));
}

}  // namespace retain
