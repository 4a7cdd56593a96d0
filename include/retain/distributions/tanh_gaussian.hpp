// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/distributions/diagonal_gaussian.hpp>
#include <retain/kernels/small_gaussians.hpp>

#include <ATen/ATen.h>

#include <cmath>
#include <utility>
#include <vector>

namespace retain {

/// The interval of the squashed actions, the same in every dimension.
struct action_bounds {
  double low = -1.0;
  double high = 1.0;
};

/// An action, its log-density, and its value before tanh.
struct squashed_sample {
  at::Tensor action;  ///< [..., D], within the bounds
  /// [...]: the log-density of the action, computed from `unsquashed`
  at::Tensor log_prob;
  at::Tensor unsquashed;  ///< [..., D]: the value u before tanh
};

namespace detail {

/// center + half tanh(u), for u [..., D].
inline at::Tensor squashed(const at::Tensor& u, double center, double half) {
  const auto within = u.tanh();
  return half == 1 && center == 0 ? within : within * half + center;
}

/// Returns log |da/du| for a = squashed(u), per element. softplus(-2u) = -log sigmoid(2u).
inline at::Tensor log_slope(const at::Tensor& u, double half) {
  constexpr double log_two = 0.69314718055994530942;
  return (u - at::log_sigmoid(u * 2)) * -2 + (2 * log_two + std::log(half));
}

/// Returns {a, log pi(a|s), u} from standard normal noise: u = mean + std noise, a = squashed(u).
inline std::vector<at::Tensor> squashed_from_noise(const at::Tensor& mean,
                                                   const at::Tensor& log_std,
                                                   const at::Tensor& noise, double center,
                                                   double half) {
  auto u = gaussian_at(mean, log_std, noise);
  return {squashed(u, center, half),
          (gaussian_log_density_at(noise, log_std) - log_slope(u, half)).sum(-1), std::move(u)};
}

}  // namespace detail

/// A batch of Gaussians squashed into an interval, for soft actor-critic:
///
///     u ~ N(mean, std^2),     a = center + half tanh(u)
///     center = (high + low) / 2,     half = (high - low) / 2
///     log pi(a|s) = log N(u) - sum_d [ log half + 2 (log 2 - u_d - softplus(-2 u_d)) ]
///
/// The last term is log(1 - tanh(u)^2), written without cancellation. Actions are [..., D].
/// Log-densities, entropies and divergences are [...], in nats.
///
/// Use u instead of the action if the caller has it. A float action is exact to 2^-25, so u from
/// the action has an error of about 2^-26 / (1 - |tanh u|): 2e-4 at |u| = 5 and 1e-2 at |u| = 7.
///
/// Paper: Haarnoja et al. 2018 (arXiv 1801.01290, appendix C).
class tanh_gaussian {
 public:
  /// `mean` and `log_std` are the parameters of the Gaussian before tanh. Throws what
  /// diagonal_gaussian throws, and config_error unless low < high and both are finite.
  tanh_gaussian(at::Tensor mean, at::Tensor log_std, action_bounds bounds = {})
      : tanh_gaussian(diagonal_gaussian{std::move(mean), std::move(log_std)}, bounds) {}

  explicit tanh_gaussian(diagonal_gaussian unsquashed, action_bounds bounds = {})
      : unsquashed_(std::move(unsquashed)), bounds_(bounds) {
    if (!(bounds.low < bounds.high) || !std::isfinite(bounds.low) || !std::isfinite(bounds.high))
      throw config_error(detail::concat(
          "tanh_gaussian: the bounds must be finite, the lower below the higher, got ", bounds.low,
          " and ", bounds.high));
  }

  /// Returns the Gaussian before tanh.
  const diagonal_gaussian& unsquashed() const& { return unsquashed_; }
  /// For a temporary: returns the Gaussian instead of a reference.
  diagonal_gaussian unsquashed() const&& { return unsquashed_; }
  const action_bounds& bounds() const& { return bounds_; }
  action_bounds bounds() const&& { return bounds_; }
  at::Device device() const { return unsquashed_.device(); }
  /// Returns a copy with its tensors on another device.
  tanh_gaussian to(at::Device other) const { return tanh_gaussian{unsquashed_.to(other), bounds_}; }

  /// Returns center + half tanh(u), for u [..., D].
  at::Tensor squash(const at::Tensor& u) const { return detail::squashed(u, center(), half()); }

  /// Returns the log-density of the action squash(u), from u [..., D]. Throws shape_error unless
  /// there is one u per row.
  at::Tensor log_prob_unsquashed(const at::Tensor& given) const {
    const at::Tensor u = given.device() == device() ? given : given.to(device());
    return unsquashed_.log_prob(u) - detail::log_slope(u, half()).sum(-1);
  }

  /// Returns the log-density of given actions; u is computed by inversion. An action at or beyond a
  /// bound is replaced by the nearest action inside the bounds that its type can represent: |u| =
  /// 8.7 in float, 18.7 in double. Throws shape_error unless there is one action per row.
  at::Tensor log_prob(const at::Tensor& actions) const {
    if (actions.sizes() != unsquashed_.mean().sizes())
      throw shape_error(detail::concat(
          "tanh_gaussian: actions of shape ", detail::shape_text(actions.sizes()),
          " do not fit a mean of shape ", detail::shape_text(unsquashed_.mean().sizes())));
    const auto within = (actions - center()) / half();
    const double largest = largest_below_one(within.scalar_type());
    return log_prob_unsquashed(within.clamp(-largest, largest).atanh());
  }

  /// Returns the entropy, [...], without random numbers and with gradients. It has no closed form.
  /// The entropy before tanh is exact. The mean of log(1 - tanh(u)^2) is one integral per
  /// dimension, computed with the trapezoidal rule at 137 points. It is exact to rounding for std
  /// up to 2, and to 5e-6 nats at std = e^2.
  at::Tensor entropy() const {
    constexpr int reach = 68;  // steps of 1/8 to 8.5 standard deviations
    constexpr double step = 0.125, root_two_pi = 2.50662827463100050242;
    const auto z =
        at::arange(-reach, reach + 1,
                   unsquashed_.mean().options().dtype(at::kDouble).requires_grad(false)) *
        step;
    const auto type = unsquashed_.mean().scalar_type();
    const auto weight = ((z.square() * -0.5).exp() * (step / root_two_pi)).to(type);
    const auto u = unsquashed_.mean().unsqueeze(-1) + unsquashed_.std().unsqueeze(-1) * z.to(type);
    return unsquashed_.entropy() + detail::log_slope(u, half()).matmul(weight).sum(-1);
  }

  /// Returns squash(mean), without gradient: the action of a deterministic evaluation. It is the
  /// median in every dimension, but not the maximum of the density. For large std, the maximum lies
  /// at the bounds.
  at::Tensor mode() const { return squash(unsquashed_.mode()); }

  /// Returns the actions at given quantiles. `uniform` [..., D] holds one number in [0, 1) for each
  /// dimension of each action.
  at::Tensor at_quantile(const at::Tensor& uniform) const {
    return squash(unsquashed_.at_quantile(uniform));
  }

  /// Draws one action per row, without gradient.
  at::Tensor sample(const at::Generator& generator = {}) const {
    return squash(unsquashed_.sample(generator));
  }

  /// Draws one action per row, with gradients for mean and log_std.
  at::Tensor rsample(const at::Generator& generator = {}) const {
    return squash(unsquashed_.rsample(generator));
  }

  /// Draws one action per row and returns it with its log-density, both with gradients for mean and
  /// log_std, for the actor's loss of soft actor-critic. tanh is never inverted.
  squashed_sample rsample_with_log_prob(const at::Generator& generator = {}) const {
    const auto noise = unsquashed_.noise(generator);
    const auto &mean = unsquashed_.mean(), &log_std = unsquashed_.log_std();
    auto drawn =
        detail::squash_few<detail::squashed_from_noise>(mean, log_std, noise, center(), half());
    if (drawn.empty()) drawn = detail::squashed_from_noise(mean, log_std, noise, center(), half());
    return {drawn[0], drawn[1], drawn[2]};
  }

  /// Returns a copy with squashed standard normal distributions in the rows where `mask` is 0.
  /// `mask` has the shape of the rows. Padding in these rows, even NaN, then affects neither values
  /// nor gradients.
  tanh_gaussian where(const at::Tensor& mask) const {
    return tanh_gaussian{unsquashed_.where(mask), bounds_};
  }

 private:
  double center() const { return 0.5 * (bounds_.high + bounds_.low); }
  double half() const { return 0.5 * (bounds_.high - bounds_.low); }

  static double largest_below_one(at::ScalarType type) {
    switch (type) {
      case at::kDouble: return 1 - 0x1p-53;
      case at::kHalf: return 1 - 0x1p-11;
      case at::kBFloat16: return 1 - 0x1p-8;
      default: return 1 - 0x1p-24;
    }
  }

  diagonal_gaussian unsquashed_;
  action_bounds bounds_;
};

/// Returns KL(p || q), [...], in nats, differentiable in p and q. It equals the KL of the Gaussians
/// before tanh, because tanh is one bijection for both. Throws config_error if the bounds differ,
/// and shape_error if the means differ in shape.
[[nodiscard]] inline at::Tensor kl(const tanh_gaussian& p, const tanh_gaussian& q) {
  if (p.bounds().low != q.bounds().low || p.bounds().high != q.bounds().high)
    throw config_error(detail::concat("kl: tanh_gaussians over [", p.bounds().low, ", ",
                                      p.bounds().high, "] and [", q.bounds().low, ", ",
                                      q.bounds().high,
                                      "] have no KL: give teacher and student the same bounds"));
  return kl(p.unsquashed(), q.unsquashed());
}

}  // namespace retain
