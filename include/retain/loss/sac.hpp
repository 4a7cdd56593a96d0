// SPDX-License-Identifier: MIT
#pragma once

#include <retain/detail/joined.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <concepts>
#include <cstdint>
#include <numbers>
#include <tuple>
#include <utility>

namespace retain {

/// Distributions that can be drawn from in the graph of their parameters: by rsample_with_log_prob(), whose answer has the members
/// `action` and `log_prob` and inverts no squash, or else by rsample() and log_prob(actions).
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
    throw shape_error(concat(who, ": the critics' values must be [critics, samples], one row a critic, got ", shape_text(q.sizes()),
                             " for samples of shape ", shape_text(rows)));
}
inline void check_temperature(const char* who, const at::Tensor& alpha, at::IntArrayRef rows) {
  if (alpha.numel() != 1 && alpha.sizes() != rows)
    throw shape_error(concat(who, ": alpha must be one number, or one a sample of shape ", shape_text(rows), ", got ", shape_text(alpha.sizes())));
}

/// sum_k (Q_k - y)^2 times `scale` as one node of the autograd graph.
struct sac_critic_function : torch::autograd::Function<sac_critic_function> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q, const at::Tensor& target, double scale) {
    context->save_for_backward({q, target});
    context->saved_data["scale"] = scale;
    return (q - target).square_().sum() * scale;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list incoming) {
    const auto saved = context->get_saved_variables();
    const auto factor = incoming[0] * (2 * context->saved_data["scale"].toDouble());
    return {((saved[0] - saved[1]) * factor).to(saved[0].scalar_type()), {}, {}};
  }
};

/// mean [ alpha log pi - min_k Q_k ] as one node of the autograd graph; the first of equal critics has the gradient.
struct sac_policy_function : torch::autograd::Function<sac_policy_function> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q, const at::Tensor& log_probs, const at::Tensor& alpha) {
    const auto [least, which] = q.min(0);
    context->save_for_backward({which, alpha});
    context->saved_data["critics"] = q.size(0);
    return (alpha * log_probs - least).mean();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list incoming) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &which = saved[0], &alpha = saved[1];
    const auto share = incoming[0].div(which.numel()).expand(which.sizes());
    auto sizes = which.sizes().vec();
    sizes.insert(sizes.begin(), context->saved_data["critics"].toInt());
    return {at::zeros(sizes, share.options()).scatter_(0, which.unsqueeze(0), share.neg().unsqueeze(0)), share * alpha, {}};
  }
};

}  // namespace detail

/// The target of soft actor-critic's critics (Haarnoja et al. 2018, arXiv 1812.05905), the least of several against overestimation,
///
///     y = r + gamma (1 - e) (min_k Q'_k(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')
///
/// rewards, ended and next_log_probs [N]; next_q [K, N], of the target critics; alpha one number or [N]. `ended` is 1 where s' is
/// terminal: nothing is earned behind it. A time limit of the task itself, that the observation shows, is such an end; an episode cut
/// off for convenience is not, and has 0 there. No graph. Throws shape_error where the shapes do not fit.
inline at::Tensor sac_target(const at::Tensor& rewards, const at::Tensor& ended, const at::Tensor& next_q, const at::Tensor& next_log_probs,
                             const at::Tensor& alpha, double discount = 0.99) {
  const at::NoGradGuard no_grad;
  if (ended.sizes() != rewards.sizes() || next_log_probs.sizes() != rewards.sizes())
    throw shape_error(detail::concat("sac_target: rewards, ended and next_log_probs must have one shape, got ",
                                     detail::shape_text(rewards.sizes()), ", ", detail::shape_text(ended.sizes()), " and ", detail::shape_text(next_log_probs.sizes())));
  detail::check_critics("sac_target", next_q, rewards.sizes());
  detail::check_temperature("sac_target", alpha, rewards.sizes());
  const auto next = std::get<0>(next_q.detach().min(0)) - alpha.detach() * next_log_probs.detach();
  // Where the episode ended, what the critic says of the state behind it may be anything.
  return rewards + discount * next.masked_fill(ended.to(at::kBool), 0);
}

/// The same with the next action drawn here: `next` is pi(.|s') and target_critics(actions) returns Q'(s', actions) as [K, N].
template <reparametrised_distribution D, class Critics>
  requires std::invocable<Critics&, const at::Tensor&>
at::Tensor sac_target(const at::Tensor& rewards, const at::Tensor& ended, const D& next, Critics&& target_critics, const at::Tensor& alpha,
                      double discount = 0.99) {
  const at::NoGradGuard no_grad;
  const auto [actions, log_probs] = detail::draw_with_log_prob(next);
  return sac_target(rewards, ended, at::Tensor(target_critics(actions)), log_probs, alpha, discount);
}

/// The critics' loss, 0-dim: sum over critics of the mean over samples of (Q_k - y)^2 / 2. q [K, N] carries the graph, target [N].
inline at::Tensor sac_critic_loss(const at::Tensor& q, const at::Tensor& target) {
  detail::check_critics("sac_critic_loss", q, target.sizes());
  const double scale = 0.5 / static_cast<double>(target.numel());
  return detail::may_join(q) ? detail::sac_critic_function::apply(q, target.detach(), scale) : (q - target.detach()).square().sum() * scale;
}

/// The actor's loss, and what it drew.
struct sac_actor_loss {
  at::Tensor loss;       ///< 0-dim, in the graph: the mean over samples
  at::Tensor log_probs;  ///< [N], without graph: what the temperature learns from
};

/// The actor's loss of soft actor-critic, over actions drawn in the graph of the policy:
///
///     loss = mean [ alpha log pi(a|s) - min_k Q_k(s, a) ],   a ~ pi(.|s)
///
/// q [K, N] of those actions and their log_probs [N], both in the graph; alpha is one number or [N]. Its gradient reaches the critics' parameters too: clear
/// theirs before the critics' own loss, as the usual zero_grad() there does. Throws shape_error where the shapes do not fit.
inline sac_actor_loss sac_policy_loss(const at::Tensor& q, const at::Tensor& log_probs, const at::Tensor& alpha) {
  detail::check_critics("sac_policy_loss", q, log_probs.sizes());
  detail::check_temperature("sac_policy_loss", alpha, log_probs.sizes());
  const bool joined = detail::may_join(q) && detail::may_join(log_probs);
  return {joined ? detail::sac_policy_function::apply(q, log_probs, alpha.detach()) : (alpha.detach() * log_probs - std::get<0>(q.min(0))).mean(),
          log_probs.detach()};
}

/// The same with the actions drawn here: critics(actions) returns Q(s, actions) as [K, N].
template <reparametrised_distribution D, class Critics>
  requires std::invocable<Critics&, const at::Tensor&>
sac_actor_loss sac_policy_loss(const D& policy, Critics&& critics, const at::Tensor& alpha) {
  const auto [actions, log_probs] = detail::draw_with_log_prob(policy);
  return sac_policy_loss(at::Tensor(critics(actions)), log_probs, alpha);
}

/// A target for the policy's entropy, in nats: that of a Gaussian with this standard deviation in each of d dimensions,
/// d log(std sqrt(2 pi e)). Wołczyk et al. 2021 (arXiv 2105.10919) take .089; -d, the usual choice, is std = .089 to three digits.
inline double gaussian_entropy_target(std::int64_t dimensions, double standard_deviation = 0.089) {
  if (dimensions < 1 || !(standard_deviation > 0))
    throw config_error(detail::concat("gaussian_entropy_target: needs at least one dimension and a positive standard deviation, got ", dimensions,
                                      " and ", standard_deviation));
  return static_cast<double>(dimensions) * (std::log(standard_deviation) + 0.5 * std::log(2 * std::numbers::pi * std::numbers::e));
}

}  // namespace retain
