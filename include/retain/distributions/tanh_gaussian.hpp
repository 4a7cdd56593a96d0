// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/distributions/diagonal_gaussian.hpp>
#include <retain/kernels/joined.hpp>
#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

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

/// An action and its log-density from standard normal noise, as one node of the autograd graph:
///
///     u = mean + std noise,     a = centre + half tanh(u)
///     log pi = -sum_d [ noise^2 / 2 + log std + log(2 pi) / 2 + log half + 2 (log 2 - u - softplus(-2u)) ]
///     du = half (1 - tanh(u)^2) da + 2 tanh(u) dlog pi,     dmean = du,     dlog std = std noise du - dlog pi
///
/// of mean, log_std and noise [..., D]; answers with a, log pi and u.
struct squashed_sample_function : torch::autograd::Function<squashed_sample_function> {
  static torch::autograd::variable_list draw(const at::Tensor& mean, const at::Tensor& log_std,
                                             const at::Tensor& noise, double centre, double half) {
    constexpr double constant = 0.91893853320467274178 + 2 * 0.69314718055994530942;
    if (mean.numel() <= few_functions && plain_floats({&mean, &log_std, &noise})) {
      const auto width = mean.size(-1);
      const auto options = mean.options();
      auto action = at::empty(mean.sizes(), options), unsquashed = at::empty(mean.sizes(), options),
           log_prob =
               at::empty(mean.sizes().slice(0, static_cast<std::size_t>(mean.dim() - 1)), options);
      const auto *of_mean = floats_of(mean), *of_log_std = floats_of(log_std),
                 *of_noise = floats_of(noise);
      auto *actions = action.data_ptr<float>(), *before = unsquashed.data_ptr<float>(),
           *densities = log_prob.data_ptr<float>();
      const auto shift = static_cast<float>(centre), scale = static_cast<float>(half);
      for (std::int64_t n = 0; n < log_prob.numel(); ++n) {
        float sum = static_cast<float>(static_cast<double>(width) * (constant + std::log(half)));
        for (std::int64_t i = n * width; i < (n + 1) * width; ++i) {
          const float u = of_mean[i] + std::exp(of_log_std[i]) * of_noise[i];
          const float softplus = u < -20 ? -2 * u : std::log1p(std::exp(-2 * u));
          sum += of_log_std[i] + 0.5f * of_noise[i] * of_noise[i] - 2 * (u + softplus);
          before[i] = u;
          actions[i] = shift + scale * std::tanh(u);
        }
        densities[n] = -sum;
      }
      return {std::move(action), std::move(log_prob), std::move(unsquashed)};
    }
    auto u = at::addcmul(mean, log_std.exp(), noise);
    auto within = u.tanh();
    // of -2u: softplus(x, b) = log(1 + exp(b x)) / b
    const auto minus_half_softplus = at::softplus(u, -2, 40);
    const auto terms =
        at::sub(at::addcmul(log_std, noise, noise, 0.5), at::sub(u, minus_half_softplus, 2), 2);
    auto log_prob =
        terms.sum(-1).neg_().sub_(static_cast<double>(mean.size(-1)) * (constant + std::log(half)));
    return {half == 1 && centre == 0 ? std::move(within) : within.mul_(half).add_(centre),
            std::move(log_prob), std::move(u)};
  }

  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& mean, const at::Tensor& log_std,
                                                const at::Tensor& noise, double centre,
                                                double half) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({mean, log_std, noise});
    context->saved_data["half"] = half;
    context->set_materialize_grads(false);
    return draw(mean, log_std, noise, centre, half);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &log_std = saved[1], &noise = saved[2], &of_action = incoming[0],
                     &of_log_prob = incoming[1], &of_u = incoming[2];
    const double half = context->saved_data["half"].toDouble();
    if (!of_action.defined() && !of_log_prob.defined() && !of_u.defined())
      return torch::autograd::variable_list(5);
    if (noise.numel() <= few_functions &&
        plain_floats({&saved[0], &log_std, &noise, &of_action, &of_log_prob, &of_u})) {
      const auto width = noise.size(-1);
      auto of_mean = at::empty(noise.sizes(), noise.options()),
           of_logarithm = at::empty(noise.sizes(), noise.options());
      const auto *mean = floats_of(saved[0]), *logarithm = floats_of(log_std),
                 *drawn = floats_of(noise), *actions = floats_of(of_action),
                 *densities = floats_of(of_log_prob), *before = floats_of(of_u);
      auto *to_mean = of_mean.data_ptr<float>(), *to_logarithm = of_logarithm.data_ptr<float>();
      const auto scale = static_cast<float>(half);
      for (std::int64_t i = 0; i < noise.numel(); ++i) {
        const float spread = std::exp(logarithm[i]) * drawn[i],
                    within = std::tanh(mean[i] + spread),
                    density = densities ? densities[i / width] : 0;
        const float du = (before ? before[i] : 0) +
                         (actions ? actions[i] * scale * (1 - within * within) : 0) +
                         (densities ? 2 * within * density : 0);
        to_mean[i] = du;
        to_logarithm[i] = du * spread - density;
      }
      return {of_mean, of_logarithm, {}, {}, {}};
    }
    // Made anew rather than kept: so it may be differentiated again.
    const auto spread = log_std.exp() * noise, within = (saved[0] + spread).tanh();
    at::Tensor du = of_u;
    const auto add = [&du](at::Tensor more) { du = du.defined() ? du + more : std::move(more); };
    if (of_action.defined())
      add(at::tanh_backward(half == 1 ? of_action : of_action * half, within));
    at::Tensor each;
    if (of_log_prob.defined()) {
      each = of_log_prob.unsqueeze(-1);
      du = du.defined() ? at::addcmul(du, within, each, 2) : within * each * 2;
    }
    auto of_log_std = du * spread;
    if (each.defined()) of_log_std = of_log_std - each;
    return {du, of_log_std, {}, {}, {}};
  }
};

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
  at::Tensor squash(const at::Tensor& u) const {
    const auto within = u.tanh();
    return half() == 1 && centre() == 0 ? within : within * half() + centre();
  }

  /// Returns the log-density of the action squash(u), from u [..., D]. Throws shape_error unless
  /// there is one u per row.
  at::Tensor log_prob_unsquashed(const at::Tensor& given) const {
    const at::Tensor u = given.device() == device() ? given : given.to(device());
    return unsquashed_.log_prob(u) - log_slope(u).sum(-1);
  }

  /// Returns the log-density of given actions; u is computed by inversion. An action at or beyond a
  /// bound is replaced by the nearest action inside the bounds that its type can represent: |u| =
  /// 8.7 in float, 18.7 in double. Throws shape_error unless there is one action per row.
  at::Tensor log_prob(const at::Tensor& actions) const {
    if (actions.sizes() != unsquashed_.mean().sizes())
      throw shape_error(detail::concat("tanh_gaussian: actions of shape ",
                                       detail::shape_text(actions.sizes()), " for a mean of shape ",
                                       detail::shape_text(unsquashed_.mean().sizes())));
    const auto within = (actions - centre()) / half();
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
    return unsquashed_.entropy() + log_slope(u).matmul(weight).sum(-1);
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
    if (!detail::may_join(mean) || !detail::may_join(log_std)) {
      auto u = unsquashed_.at_noise(noise);
      return {squash(u), (unsquashed_.log_density_at(noise) - log_slope(u)).sum(-1), std::move(u)};
    }
    using drawing = detail::squashed_sample_function;
    const bool with_graph = at::GradMode::is_enabled();
    const auto drawn = with_graph ? drawing::apply(mean, log_std, noise, centre(), half())
                                  : drawing::draw(mean, log_std, noise, centre(), half());
    return {drawn[0], drawn[1], drawn[2]};
  }

  /// Returns a copy with squashed standard normal distributions in the rows where `mask` is 0.
  /// `mask` has the shape of the rows. Padding in these rows, even NaN, then affects neither values
  /// nor gradients.
  tanh_gaussian where(const at::Tensor& mask) const {
    return tanh_gaussian{unsquashed_.where(mask), bounds_};
  }

 private:
  double centre() const { return 0.5 * (bounds_.high + bounds_.low); }
  double half() const { return 0.5 * (bounds_.high - bounds_.low); }

  /// log |da/du|, element by element.
  at::Tensor log_slope(const at::Tensor& u) const {
    constexpr double log_two = 0.69314718055994530942;
    // softplus(-2u) = -log sigmoid(2u)
    return (u - at::log_sigmoid(u * 2)) * -2 + (2 * log_two + std::log(half()));
  }

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
inline at::Tensor kl(const tanh_gaussian& p, const tanh_gaussian& q) {
  if (p.bounds().low != q.bounds().low || p.bounds().high != q.bounds().high)
    throw config_error(detail::concat("kl: tanh_gaussians over [", p.bounds().low, ", ",
                                      p.bounds().high, "] and [", q.bounds().low, ", ",
                                      q.bounds().high,
                                      "] have no KL: give teacher and student the same bounds"));
  return kl(p.unsquashed(), q.unsquashed());
}

}  // namespace retain
