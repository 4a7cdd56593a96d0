// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/small_gaussians.hpp>
#include <retain/kernels/small_updates.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace retain {

namespace detail {

/// Returns 1 / sigma, limited to what the type can hold. (Infinity times a distance of 0 is NaN.)
/// `beyond` has no gradient; it is 0 for every sigma that needs no limit.
inline at::Tensor inverse_deviation(const at::Tensor& log_std) {
  const double most = log_std.scalar_type() == at::kDouble ? 709
                      : log_std.scalar_type() == at::kHalf ? 11
                                                           : 88;
  at::Tensor beyond;
  {
    const at::NoGradGuard no_grad;
    beyond = (log_std.detach() + most).clamp_max_(0);
  }
  return (beyond - log_std).exp();
}

inline constexpr double half_log_two_pi = 0.91893853320467274178;

/// gaussian_at returns mean + sigma noise. gaussian_log_density_at returns the terms of its
/// log-density. Both are [..., D].
inline at::Tensor gaussian_at(const at::Tensor& mean, const at::Tensor& log_std,
                              const at::Tensor& noise) {
  return at::addcmul(mean, log_std.exp(), noise);
}
inline at::Tensor gaussian_log_density_at(const at::Tensor& noise, const at::Tensor& log_std) {
  return noise.square() * -0.5 - half_log_two_pi - log_std;
}

}  // namespace detail

/// An action and its log-density.
struct gaussian_sample {
  at::Tensor action;    ///< [..., D]
  at::Tensor log_prob;  ///< [...]
};

/// A batch of Gaussians with a diagonal covariance over continuous actions. The mean is [..., D]
/// for D numbers per action, one distribution per row. Actions are [..., D]. Log-densities,
/// entropies and divergences are sums over the D dimensions, [...], in nats.
///
/// A deterministic actor (TD3, DDPG): `diagonal_gaussian::around(actor->forward(obs), sigma)`.
class diagonal_gaussian {
 public:
  /// Returns Gaussians with a fixed standard deviation around the actions [..., D] of a
  /// deterministic actor. Then a term on policies is a term on the actions:
  ///
  ///     KL(p || q) = sum_d (mu_p - mu_q)^2 / (2 sigma^2)
  ///     F_i = E_s sum_d (d_i mu_d)^2 / sigma^2      with exact_actions{}
  ///
  /// Use the deviation of the exploration noise, in the unit of the actions, and the same one for
  /// teacher and student. With sigma = sqrt(1/2), the KL is the squared distance of the actions.
  /// Throws config_error unless sigma is positive and finite, and what the constructor throws.
  [[nodiscard]] static diagonal_gaussian around(at::Tensor action, double sigma) {
    if (!(sigma > 0) || !std::isfinite(sigma))
      throw config_error(detail::concat(
          "diagonal_gaussian::around: sigma must be positive and finite, got ", sigma));
    auto log_std = at::full({1}, std::log(sigma), action.options().requires_grad(false));
    return {std::move(action), std::move(log_std)};
  }

  /// `log_std` is the logarithm of the standard deviations. Its shape is [..., D] or a shape that
  /// broadcasts to it, for example [D] for a parameter that does not depend on the state. Throws
  /// shape_error if the mean has no dimension or no number, or if log_std does not broadcast to it.
  diagonal_gaussian(at::Tensor mean, at::Tensor log_std)
      : mean_(std::move(mean)), log_std_(std::move(log_std)) {
    if (mean_.dim() < 1 || mean_.size(-1) < 1)
      throw shape_error(
          detail::concat("diagonal_gaussian: the mean needs the shape [..., dimensions], got ",
                         detail::shape_text(mean_.sizes())));
    bool broadcasts = log_std_.dim() <= mean_.dim();
    for (std::int64_t i = 1; broadcasts && i <= log_std_.dim(); ++i)
      broadcasts = log_std_.size(-i) == 1 || log_std_.size(-i) == mean_.size(-i);
    if (!broadcasts)
      throw shape_error(detail::concat(
          "diagonal_gaussian: log_std of shape ", detail::shape_text(log_std_.sizes()),
          " does not broadcast to a mean of shape ", detail::shape_text(mean_.sizes())));
    if (log_std_.sizes() != mean_.sizes()) log_std_ = log_std_.expand_as(mean_);
  }

  const at::Tensor& mean() const& { return mean_; }
  const at::Tensor& log_std() const& { return log_std_; }  ///< in the shape of the mean
  /// For a temporary: returns a tensor instead of a reference.
  at::Tensor mean() const&& { return mean_; }
  at::Tensor log_std() const&& { return log_std_; }
  at::Tensor std() const { return log_std_.exp(); }
  std::int64_t dimensions() const { return mean_.size(-1); }
  at::Device device() const { return mean_.device(); }
  /// Returns a copy with its tensors on another device.
  diagonal_gaussian to(at::Device other) const {
    return other == device() ? *this : diagonal_gaussian{mean_.to(other), log_std_.to(other)};
  }

  /// log pi(a|s) = -sum_d [ (a_d - mu_d)^2 / (2 sigma_d^2) + log sigma_d + log(2 pi) / 2 ].
  ///
  /// 1 / sigma is limited to what its type can hold (e^88 in float), so the density at the mean is
  /// correct for any sigma. Throws shape_error unless there is one action per row.
  at::Tensor log_prob(const at::Tensor& actions) const {
    if (actions.sizes() != mean_.sizes())
      throw shape_error(detail::concat(
          "diagonal_gaussian: actions of shape ", detail::shape_text(actions.sizes()),
          " do not fit a mean of shape ", detail::shape_text(mean_.sizes())));
    const auto standardized =
        ((actions.device() == device() ? actions : actions.to(device())) - mean_) *
        detail::inverse_deviation(log_std_);
    return (standardized.square() * -0.5 - log_std_ - detail::half_log_two_pi).sum(-1);
  }

  /// Returns sum_d [ log sigma_d + (1 + log(2 pi)) / 2 ].
  at::Tensor entropy() const { return (log_std_ + (0.5 + detail::half_log_two_pi)).sum(-1); }

  /// Returns the mean, without gradient.
  at::Tensor mode() const { return mean_.detach(); }

  /// Returns the actions at given quantiles. `uniform` [..., D] holds one number in [0, 1) for each
  /// dimension of each action. A quantile of 0 counts as 2^-54.
  at::Tensor at_quantile(const at::Tensor& uniform) const {
    const at::NoGradGuard no_grad;
    return at_noise(standard_normal(uniform));
  }

  /// Draws one action per row, without gradient.
  at::Tensor sample(const at::Generator& generator = {}) const {
    const at::NoGradGuard no_grad;
    return rsample(generator);
  }

  /// Draws one action per row, mean + std * noise, with gradients for mean and log_std.
  at::Tensor rsample(const at::Generator& generator = {}) const {
    return at_noise(noise(generator));
  }

  /// Draws one action per row and returns it with its log-density, both with gradients for mean and
  /// log_std. The density is computed from the noise, without another pass over the action:
  ///
  ///     -sum_d [ noise_d^2 / 2 + log sigma_d + log(2 pi) / 2 ]
  gaussian_sample rsample_with_log_prob(const at::Generator& generator = {}) const {
    const auto drawn = noise(generator);
    return {at_noise(drawn), log_density_at(drawn).sum(-1)};
  }

  /// Returns a copy with standard normal distributions in the rows where `mask` is 0. `mask` has
  /// the shape of the rows. Padding in these rows, even NaN, then affects neither values nor
  /// gradients.
  diagonal_gaussian where(const at::Tensor& mask) const {
    if (mask.sizes() != rows())
      throw shape_error(detail::concat("diagonal_gaussian: a mask of shape ",
                                       detail::shape_text(mask.sizes()),
                                       " does not fit rows of shape ", detail::shape_text(rows())));
    const auto dropped = mask.to(device(), at::kBool).bitwise_not().unsqueeze(-1);
    return {mean_.masked_fill(dropped, 0), log_std_.masked_fill(dropped, 0)};
  }

  /// The Fisher information in closed form: the squared gradients of the 2 D scores sum to it.
  ///
  ///     sum_k (d score_k)^2 = E_a (d log pi(a|s))^2
  ///                         = sum_d [ (d mu_d)^2 / sigma_d^2 + 2 (d log sigma_d)^2 ]
  ///
  /// Score d is mu_d / sigma_d with sigma_d taken as a constant. Score D + d is sqrt(2) log
  /// sigma_d.
  std::int64_t num_scores() const { return 2 * dimensions(); }
  at::Tensor score(std::int64_t k) const {
    if (k >= dimensions()) return log_std_.select(-1, k - dimensions()) * root_two;
    return mean_.select(-1, k) * log_std_.select(-1, k).detach().neg().exp();
  }

 private:
  friend class tanh_gaussian;

  static constexpr double root_two = 1.41421356237309504880;

  at::IntArrayRef rows() const {
    return mean_.sizes().slice(0, static_cast<std::size_t>(mean_.dim() - 1));
  }

  /// Maps uniform numbers to standard normal numbers with the inverse of the normal distribution
  /// function. Each normal number depends on one uniform number only, not on its position.
  static at::Tensor standard_normal(const at::Tensor& uniform) {
    return normal_in_place(uniform.to(at::kDouble, false, true));
  }
  static at::Tensor normal_in_place(const at::Tensor& uniform) {
    return uniform.mul_(2).sub_(1).clamp_min_(-1 + 0x1p-53).erfinv_().mul_(root_two);
  }
  /// Draws standard normal numbers in the shape and type of the mean.
  at::Tensor noise(const at::Generator& generator) const {
    const auto options = mean_.options().dtype(at::kDouble).requires_grad(false);
    auto uniform = generator.defined() ? at::rand(mean_.sizes(), generator, options)
                                       : at::rand(mean_.sizes(), options);
    const at::NoGradGuard no_grad;
    auto few = detail::normal_of_few(uniform, mean_);
    return few.defined() ? few : normal_in_place(uniform).to(mean_.scalar_type());
  }
  at::Tensor at_noise(const at::Tensor& normal) const {
    return detail::gaussian_at(mean_, log_std_, normal.to(mean_.scalar_type()));
  }
  /// Returns the terms of the log-density of at_noise(normal), [..., D].
  at::Tensor log_density_at(const at::Tensor& normal) const {
    return detail::gaussian_log_density_at(normal, log_std_);
  }

  at::Tensor mean_, log_std_;
};

namespace detail {

/// Returns KL(p || q), [...], from means and logarithms of deviations, [..., D]. With
/// r = log sigma_p - log sigma_q, (exp(2 r) - 1) / 2 - r loses no digits if the two deviations are
/// close.
inline at::Tensor gaussian_kl(const at::Tensor& p_mean, const at::Tensor& p_log_std,
                              const at::Tensor& q_mean, const at::Tensor& q_log_std) {
  const auto ratio = p_log_std - q_log_std;
  const auto distance = (p_mean - q_mean) * inverse_deviation(q_log_std);
  return ((ratio * 2).expm1() * 0.5 - ratio + distance.square() * 0.5).sum(-1);
}

}  // namespace detail

/// Returns KL(p || q), [...], in nats, differentiable in p and q:
///
///     KL = sum_d [ log sigma_q - log sigma_p
///                  + (sigma_p^2 + (mu_p - mu_q)^2) / (2 sigma_q^2) - 1/2 ]
///
/// Throws shape_error if the means differ in shape.
[[nodiscard]] inline at::Tensor kl(const diagonal_gaussian& p, const diagonal_gaussian& q) {
  if (p.mean().sizes() != q.mean().sizes())
    throw shape_error(detail::concat("kl: means of shapes ", detail::shape_text(p.mean().sizes()),
                                     " and ", detail::shape_text(q.mean().sizes()),
                                     ": both need the same shape"));
  auto few =
      detail::gaussian_kl_of_few<detail::gaussian_kl>(p.mean(), p.log_std(), q.mean(), q.log_std());
  return few.defined() ? few : detail::gaussian_kl(p.mean(), p.log_std(), q.mean(), q.log_std());
}

}  // namespace retain
