// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/counted.hpp>
#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/categorical_kl.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

namespace retain {

/// A batch of categorical distributions. Logits are [..., A] for A actions, one distribution per
/// row, and need not be normalized. Actions are [...], int64 or another integral type, in [0, A).
/// Log-probabilities, entropies and divergences are [...], in nats.
///
/// An agent that exposes only probabilities: `categorical::from_probs(agent->act(observations))`.
/// Probabilities given as logits are another, almost uniform policy.
///
/// A Q-network: `categorical{q / temperature}`, where q [..., A] are its values. This is the policy
/// pi(a|s) proportional to exp(Q(s, a) / temperature). Choose a temperature at which this policy
/// takes the best action most of the time, for example the usual difference between the best and
/// the second best value, and use the same one for teacher and student. The policy keeps the
/// differences between the values of a state, not their common size; to keep the values themselves,
/// use memory_aware_synapses, or a quadratic loss on stored values.
class categorical {
 public:
  /// Throws shape_error unless logits has at least one dimension and one action.
  explicit categorical(at::Tensor logits_) : logits(std::move(logits_)) {
    if (logits.dim() < 1 || logits.size(-1) < 1)
      throw shape_error(detail::concat("categorical: logits need the shape [..., actions], got ",
                                       detail::shape_text(logits.sizes())));
  }

  /// Returns the categoricals of given probabilities [..., A], with logits log p; a probability of
  /// 0 gets the logit -inf.
  ///
  ///     forward = [&](const auto& batch) {
  ///       return retain::categorical::from_probs(agent->probabilities(batch.observations));
  ///     };
  ///
  /// The gradient of log pi(a|s) flows into the probabilities; a probability of exactly 0 gets
  /// gradient 0. If the agent can return its logits, use them: a probability near 1 has lost the
  /// digits of the others in its type, and those of a saturated softmax are exactly 0.
  ///
  /// Throws shape_error unless there is at least one dimension and one action, and config_error
  /// unless the type is floating-point. On the CPU, also throws config_error if a row has a
  /// negative or NaN probability or a sum that differs from 1 by more than 1e-4 (plus 4 units in
  /// the last place for half types). On other devices this check would have to wait for the device:
  /// there, a row with another sum is normalized, and a negative probability makes its row NaN.
  [[nodiscard]] static categorical from_probs(const at::Tensor& probabilities) {
    if (!at::isFloatingType(probabilities.scalar_type()))
      throw config_error(detail::concat("categorical::from_probs: probabilities need a "
                                        "floating-point type, got ",
                                        probabilities.dtype()));
    categorical result{probabilities};  // checks the shape
    const at::Tensor none = probabilities.detach() == 0;
    if (probabilities.is_cpu()) check_probabilities(probabilities);
    // log(1) has a finite gradient, which the second fill replaces with 0.
    result.logits = probabilities.masked_fill(none, 1).log().masked_fill(
        none, -std::numeric_limits<double>::infinity());
    return result;
  }

  /// The logits as given. After the caller replaces or changes them, all results use the new
  /// values.
  at::Tensor logits;

  std::int64_t num_actions() const { return logits.size(-1); }
  at::Device device() const { return logits.device(); }
  /// Returns a copy with the logits on another device.
  categorical to(at::Device other) const {
    return other == device() ? *this : categorical{logits.to(other)};
  }

  /// Returns log pi(a|s) for every action, [..., A]. For half logits on the CPU the result is
  /// float, because LibTorch has no half operation there.
  const at::Tensor& log_probs() const& {
    // The cached result is not valid if it has no graph and the caller needs gradients, or if the
    // logits have changed.
    const bool with_graph = at::GradMode::is_enabled() && logits.requires_grad();
    const std::int64_t version = logits.is_inference() ? 0 : logits._version();
    if (!log_probs_.defined() || !source_.is_same(logits) || version_ != version ||
        (with_graph && !log_probs_.requires_grad())) {
      const bool by_float = logits.scalar_type() == at::kHalf && logits.is_cpu();
      log_probs_ = by_float ? at::log_softmax(logits, -1, at::kFloat) : at::log_softmax(logits, -1);
      source_ = logits;
      version_ = version;
    }
    return log_probs_;
  }
  /// For a temporary: returns a tensor instead of a reference.
  at::Tensor log_probs() const&& {
    const categorical& lasting = *this;
    return lasting.log_probs();
  }
  at::Tensor probs() const { return log_probs().exp(); }

  /// Returns log pi(a|s), [...]. Throws shape_error unless there is one action per row, and
  /// config_error if the actions are not of an integral type.
  at::Tensor log_prob(const at::Tensor& actions) const {
    if (actions.sizes() != rows())
      throw shape_error(detail::concat("categorical: actions of shape ",
                                       detail::shape_text(actions.sizes()), " for rows of shape ",
                                       detail::shape_text(rows())));
    return log_probs()
        .gather(-1, detail::counted("categorical", "actions", actions, device()).unsqueeze(-1))
        .squeeze(-1);
  }

  /// Returns -sum_a pi log pi. An action with probability 0 adds 0.
  at::Tensor entropy() const {
    const auto p = probs();
    return (p * log_probs().masked_fill(p == 0, 0)).sum(-1).neg();
  }

  at::Tensor mode() const { return logits.argmax(-1); }

  /// Returns the actions at given quantiles, by inversion. `uniform` holds one number in [0, 1) per
  /// row.
  at::Tensor at_quantile(const at::Tensor& uniform) const {
    const at::NoGradGuard no_grad;
    const auto cumulative = at::log_softmax(logits.detach().to(at::kDouble), -1).exp_().cumsum(-1);
    // Because of rounding, the last cumulative sum may differ from 1. The quantile is multiplied by
    // this sum, so that it always selects an action with probability above 0.
    const auto threshold = uniform.to(cumulative.options()).unsqueeze(-1) *
                           cumulative.narrow(-1, num_actions() - 1, 1);
    return cumulative.le(threshold).sum(-1).clamp_max(num_actions() - 1);
  }

  /// Draws one action per row.
  at::Tensor sample(const at::Generator& generator = {}) const {
    const auto options = logits.options().dtype(at::kDouble).requires_grad(false);
    return at_quantile(generator.defined() ? at::rand(rows(), generator, options)
                                           : at::rand(rows(), options));
  }

  /// The Fisher information is the sum of the squared gradients of scores. There is one score per
  /// action:
  ///
  ///     sum_a (d score_a)^2 = sum_a pi(a|s) (d log pi(a|s))^2
  ///     score_a = sqrt(pi(a|s)) log pi(a|s) with the root taken as a constant
  std::int64_t num_scores() const { return num_actions(); }
  at::Tensor score(std::int64_t a) const {
    const auto log_prob = log_probs().select(-1, a);
    const auto root = (log_prob.detach() * 0.5).exp();
    return log_prob.masked_fill(root == 0, 0) * root;
  }

  /// Returns a copy with uniform distributions in the rows where `mask` is 0. `mask` has the shape
  /// of the rows. Padding in these rows, even NaN, then affects neither values nor gradients.
  categorical where(const at::Tensor& mask) const {
    if (mask.sizes() != rows())
      throw shape_error(detail::concat("categorical: a mask of shape ",
                                       detail::shape_text(mask.sizes()),
                                       " does not fit rows of shape ", detail::shape_text(rows())));
    return categorical{
        logits.masked_fill(mask.to(device(), at::kBool).bitwise_not().unsqueeze(-1), 0)};
  }

 private:
  static void check_probabilities(const at::Tensor& probabilities) {
    const at::NoGradGuard no_grad;
    const double rounding = probabilities.scalar_type() == at::kHalf       ? 0x1p-8
                            : probabilities.scalar_type() == at::kBFloat16 ? 0x1p-5
                                                                           : 0.0;
    const at::Tensor p = probabilities.detach().to(at::kDouble), total = p.sum(-1);
    const at::Tensor fits =
        p.ge(0).all(-1).logical_and_((total - 1).abs_().le(1e-4 + rounding)).flatten();
    if (fits.all().item<bool>()) return;
    const std::int64_t row = fits.to(at::kByte).argmin().item<std::int64_t>();
    throw config_error(detail::concat(
        "categorical::from_probs: row ", row, " has the sum ", total.flatten()[row].item<double>(),
        " and the smallest value ", p.reshape({-1, p.size(-1)})[row].min().item<double>(),
        ": probabilities must not be negative and must have the sum 1; for logits, use "
        "retain::categorical{logits}"));
  }

  at::IntArrayRef rows() const {
    return logits.sizes().slice(0, static_cast<std::size_t>(logits.dim() - 1));
  }

  mutable at::Tensor log_probs_, source_;
  mutable std::int64_t version_ = 0;  // the version of source_ from which log_probs_ was computed
};

namespace detail {

/// Computes KL(p || q) with LibTorch's operations.
inline at::Tensor kl_by_operations(const categorical& p, const categorical& q) {
  const auto probabilities = p.probs();
  const auto difference = p.log_probs() - q.log_probs();
  return (probabilities * difference.masked_fill(probabilities == 0, 0)).sum(-1);
}

}  // namespace detail

/// KL(p || q) = sum_a p (log p - log q), [...], in nats, differentiable in p and q. An action with
/// p = 0 adds 0. The caller must not change the logits before the backward pass. Throws shape_error
/// if the shapes of the logits differ.
///
/// For float32 on a processor with AVX2, the forward and the backward pass are one pass over memory
/// each; there, a probability below e^-87 of the row's largest counts as 0. On an NVIDIA GPU they
/// are one kernel each: see kernels/categorical_kl.hpp.
[[nodiscard]] inline at::Tensor kl(const categorical& p, const categorical& q) {
  if (p.logits.sizes() != q.logits.sizes())
    throw shape_error(detail::concat("kl: logits of shapes ", detail::shape_text(p.logits.sizes()),
                                     " and ", detail::shape_text(q.logits.sizes()),
                                     " do not belong together"));
  if (detail::fuses_kl(p.logits, q.logits)) return detail::kl_function::apply(p.logits, q.logits);
  return detail::kl_by_operations(p, q);
}

}  // namespace retain
