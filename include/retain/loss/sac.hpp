// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/joined.hpp>
#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <numbers>
#include <tuple>
#include <utility>

namespace retain {

/// Distributions with gradients through their samples: a type with rsample_with_log_prob(), which
/// returns members `action` and `log_prob` and need not invert tanh, or a type with rsample() and
/// log_prob(actions).
template <class D>
concept reparametrised_distribution = requires(const D& d) {
  { d.rsample_with_log_prob().action } -> std::convertible_to<at::Tensor>;
  { d.rsample_with_log_prob().log_prob } -> std::convertible_to<at::Tensor>;
} || requires(const D& d, const at::Tensor& actions) {
  { d.rsample() } -> std::convertible_to<at::Tensor>;
  { d.log_prob(actions) } -> std::convertible_to<at::Tensor>;
};

namespace detail {

template <reparametrised_distribution D>
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
        concat(who, ": the critics' values must be [critics, samples], one row a critic, got ",
               shape_text(q.sizes()), " for samples of shape ", shape_text(rows)));
}
inline void check_temperature(const char* who, const at::Tensor& alpha, at::IntArrayRef rows) {
  if (alpha.numel() != 1 && alpha.sizes() != rows)
    throw shape_error(concat(who, ": alpha must be one number, or one a sample of shape ",
                             shape_text(rows), ", got ", shape_text(alpha.sizes())));
}

/// A float32 without dimensions, on the CPU, as `like` is.
inline at::Tensor float_scalar(double value, const at::Tensor& like) {
  auto result = at::empty({}, like.options());
  *result.data_ptr<float>() = static_cast<float>(value);
  return result;
}

/// sum_k (Q_k - y)^2 times `scale` as one node of the autograd graph.
struct sac_critic_function : torch::autograd::Function<sac_critic_function> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& target, double scale) {
    context->save_for_backward({q, target});
    context->saved_data["scale"] = scale;
    if (target.numel() <= few_numbers && plain_floats({&q, &target})) {
      double sum = 0;
      const auto *values = floats_of(q), *aims = floats_of(target);
      for (std::int64_t k = 0; k < q.size(0); ++k)
        for (std::int64_t n = 0; n < target.numel(); ++n) {
          const double error =
              static_cast<double>(values[k * target.numel() + n]) - static_cast<double>(aims[n]);
          sum += error * error;
        }
      return float_scalar(sum * scale, q);
    }
    return (q - target).square_().sum() * scale;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &target = saved[1];
    if (target.numel() <= few_numbers && plain_floats({&q, &target, &incoming[0]})) {
      auto gradient = at::empty(q.sizes(), q.options());
      const auto *values = floats_of(q), *aims = floats_of(target);
      auto* to = gradient.data_ptr<float>();
      const auto factor =
          static_cast<float>(2 * context->saved_data["scale"].toDouble()) * *floats_of(incoming[0]);
      for (std::int64_t k = 0; k < q.size(0); ++k)
        for (std::int64_t n = 0; n < target.numel(); ++n, ++values)
          *to++ = (*values - aims[n]) * factor;
      return {gradient, {}, {}};
    }
    const auto factor = incoming[0] * (2 * context->saved_data["scale"].toDouble());
    return {((q - target) * factor).to(q.scalar_type()), {}, {}};
  }
};

/// Which critic has the least of values that stand `stride` apart, the first of equals; one that is
/// not a number counts as that.
inline std::int64_t lowest_critic(const float* values, std::int64_t critics, std::int64_t stride) {
  std::int64_t lowest = 0;
  for (std::int64_t k = 1; k < critics && !std::isnan(values[lowest * stride]); ++k)
    if (!(values[k * stride] >= values[lowest * stride])) lowest = k;
  return lowest;
}

/// mean [ alpha log pi - min_k Q_k ] as one node of the autograd graph; the first of equal critics
/// has the gradient.
struct sac_policy_function : torch::autograd::Function<sac_policy_function> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& log_probs, const at::Tensor& alpha) {
    if (log_probs.numel() <= few_numbers && log_probs.numel() > 0 &&
        plain_floats({&q, &log_probs, &alpha})) {
      const auto rows = log_probs.numel();
      const auto *values = floats_of(q), *densities = floats_of(log_probs),
                 *alphas = floats_of(alpha);
      const auto which = at::empty(log_probs.sizes(), log_probs.options().dtype(at::kLong));
      auto* lowest = which.data_ptr<std::int64_t>();
      double sum = 0;
      for (std::int64_t n = 0; n < rows; ++n) {
        lowest[n] = lowest_critic(values + n, q.size(0), rows);
        sum += static_cast<double>(alphas[alpha.numel() == 1 ? 0 : n] * densities[n] -
                                   values[lowest[n] * rows + n]);
      }
      context->save_for_backward({which, alpha});
      context->saved_data["critics"] = q.size(0);
      return float_scalar(sum / static_cast<double>(rows), q);
    }
    const auto [least, which] = q.min(0);
    context->save_for_backward({which, alpha});
    context->saved_data["critics"] = q.size(0);
    return mean_of(alpha * log_probs - least);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &which = saved[0], &alpha = saved[1];
    auto sizes = which.sizes().vec();
    sizes.insert(sizes.begin(), context->saved_data["critics"].toInt());
    if (which.numel() <= few_numbers && which.is_contiguous() &&
        plain_floats({&alpha, &incoming[0]})) {
      const auto rows = which.numel();
      auto of_q = at::zeros(sizes, incoming[0].options()),
           of_log_probs = at::empty(which.sizes(), incoming[0].options());
      const auto* lowest = which.data_ptr<std::int64_t>();
      auto *to_q = of_q.data_ptr<float>(), *to_log_probs = of_log_probs.data_ptr<float>();
      const auto* alphas = floats_of(alpha);
      const float share = *floats_of(incoming[0]) / static_cast<float>(rows);
      for (std::int64_t n = 0; n < rows; ++n) {
        to_q[lowest[n] * rows + n] = -share;
        to_log_probs[n] = share * alphas[alpha.numel() == 1 ? 0 : n];
      }
      return {of_q, of_log_probs, {}};
    }
    const auto share = incoming[0].div(which.numel()).expand(which.sizes());
    return {
        at::zeros(sizes, share.options()).scatter_(0, which.unsqueeze(0), share.neg().unsqueeze(0)),
        share * alpha,
        {}};
  }
};

}  // namespace detail

/// Bounds of the critics' targets: targets outside are clipped. The default has no bounds.
struct value_bounds {
  double least = -std::numeric_limits<double>::infinity();
  double greatest = std::numeric_limits<double>::infinity();
};

namespace detail {

/// The bounds without those that the type cannot hold.
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
///     y = clip( r + gamma (1 - e) (min_k Q'_k(s', a') - alpha log pi(a'|s')), least, greatest )
///     a' ~ pi(.|s')
///
/// rewards, ended and next_log_probs are [N]. next_q [K, N] are the values of the target critics.
/// alpha is one number or [N]. The result has no graph.
///
/// `ended` is 1 if s' is terminal. The end by a time limit is terminal if the limit is part of the
/// task and the observation shows the time. An episode that is cut for other reasons is not
/// terminal: `ended` is 0 there.
///
/// `bounds` are the smallest and largest possible return, including entropy, if they are known. Set
/// them if the buffer holds transitions of an earlier policy (episodic_memory, demonstrations). The
/// new policy does not visit all of these states, so no new data corrects the critics there.
/// Without bounds such errors can grow through the targets (Fujimoto et al. 2019, arXiv
/// 1812.02900).
///
/// Throws shape_error if the shapes do not fit, and config_error if no number lies between the
/// bounds.
///
/// Papers: Haarnoja et al. 2018 (arXiv 1812.05905); for the clipping, Andrychowicz et al. 2017
/// (arXiv 1707.01495).
inline at::Tensor sac_target(const at::Tensor& rewards, const at::Tensor& ended,
                             const at::Tensor& next_q, const at::Tensor& next_log_probs,
                             const at::Tensor& alpha, double discount = 0.99,
                             value_bounds bounds = {}) {
  const at::NoGradGuard no_grad;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (!(bounds.least <= bounds.greatest) || bounds.least == infinity ||
      bounds.greatest == -infinity)
    throw config_error(detail::concat("sac_target: no value lies between the bounds ", bounds.least,
                                      " and ", bounds.greatest));
  if (ended.sizes() != rewards.sizes() || next_log_probs.sizes() != rewards.sizes())
    throw shape_error(
        detail::concat("sac_target: rewards, ended and next_log_probs must have one shape, got ",
                       detail::shape_text(rewards.sizes()), ", ", detail::shape_text(ended.sizes()),
                       " and ", detail::shape_text(next_log_probs.sizes())));
  detail::check_critics("sac_target", next_q, rewards.sizes());
  detail::check_temperature("sac_target", alpha, rewards.sizes());
  if (rewards.numel() <= detail::few_numbers &&
      detail::plain_floats({&rewards, &ended, &next_q, &next_log_probs, &alpha})) {
    const auto rows = rewards.numel();
    auto target = at::empty(rewards.sizes(), rewards.options());
    const auto *paid = detail::floats_of(rewards), *ends = detail::floats_of(ended),
               *values = detail::floats_of(next_q), *densities = detail::floats_of(next_log_probs),
               *alphas = detail::floats_of(alpha);
    auto* to = target.data_ptr<float>();
    const auto gamma = static_cast<float>(discount);
    const auto within = detail::representable(bounds, at::kFloat);
    const auto low = static_cast<float>(within.least), high = static_cast<float>(within.greatest);
    for (std::int64_t n = 0; n < rows; ++n) {
      const float next =
          values[detail::lowest_critic(values + n, next_q.size(0), rows) * rows + n] -
          alphas[alpha.numel() == 1 ? 0 : n] * densities[n];
      to[n] = detail::clipped(ends[n] != 0 ? paid[n] : paid[n] + gamma * next, low, high);
    }
    return target;
  }
  const auto temperature = alpha.numel() == 1 ? alpha.detach().reshape({}) : alpha.detach();
  const auto next = std::get<0>(next_q.detach().min(0)) - temperature * next_log_probs.detach();
  // Where the episode ended, what the critic says of the state behind it may be anything.
  const auto target = rewards + discount * next.masked_fill(ended.to(at::kBool), 0);
  const auto [least, greatest] = detail::representable(bounds, target.scalar_type());
  return least > -infinity || greatest < infinity ? target.clamp(least, greatest) : target;
}

/// Draws the next actions and returns sac_target() for them. `next` is pi(.|s'), and
/// target_critics(actions) returns Q'(s', actions) as [K, N].
template <reparametrised_distribution D, class Critics>
  requires std::invocable<Critics&, const at::Tensor&>
at::Tensor sac_target(const at::Tensor& rewards, const at::Tensor& ended, const D& next,
                      Critics&& target_critics, const at::Tensor& alpha, double discount = 0.99,
                      value_bounds bounds = {}) {
  const at::NoGradGuard no_grad;
  const auto [actions, log_probs] = detail::draw_with_log_prob(next);
  return sac_target(rewards, ended, at::Tensor(target_critics(actions)), log_probs, alpha, discount,
                    bounds);
}

/// Returns the critics' loss, 0-dim: the sum over critics of the mean over samples of (Q_k - y)^2 /
/// 2. q [K, N] carries the graph; target is [N]. The loss of an empty batch is 0. Throws
/// shape_error if the shapes do not fit.
inline at::Tensor sac_critic_loss(const at::Tensor& q, const at::Tensor& target) {
  detail::check_critics("sac_critic_loss", q, target.sizes());
  const double scale = 0.5 / static_cast<double>(std::max<std::int64_t>(target.numel(), 1));
  return detail::may_join(q) ? detail::sac_critic_function::apply(q, target.detach(), scale)
                             : (q - target.detach()).square().sum() * scale;
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
  const bool joined = detail::may_join(q) && detail::may_join(log_probs);
  return {joined ? detail::sac_policy_function::apply(q, log_probs, alpha.detach())
                 : detail::mean_of(alpha.detach() * log_probs - std::get<0>(q.min(0))),
          log_probs.detach()};
}

/// Draws the actions and returns sac_policy_loss() for them. critics(actions) returns Q(s, actions)
/// as [K, N].
template <reparametrised_distribution D, class Critics>
  requires std::invocable<Critics&, const at::Tensor&>
sac_actor_loss sac_policy_loss(const D& policy, Critics&& critics, const at::Tensor& alpha) {
  const auto [actions, log_probs] = detail::draw_with_log_prob(policy);
  return sac_policy_loss(at::Tensor(critics(actions)), log_probs, alpha);
}

/// Returns a target for the policy's entropy, in nats: d log(std sqrt(2 pi e)), the entropy of a
/// Gaussian with this standard deviation in each of d dimensions. The default .089 is that of
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
