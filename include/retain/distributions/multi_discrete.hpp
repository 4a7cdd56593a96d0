// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/counted.hpp>
#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/distributions/categorical.hpp>

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace retain {

/// A batch of products of K independent categoricals, for actions with K parts. Each distribution
/// is one row of logits [..., A_1 + ... + A_K]. Actions are [..., K], int64 or another integral
/// type, with part k in [0, A_k). Log-probabilities, entropies and divergences are sums over the
/// parts, [...], in nats.
///
///     multi_discrete{net->forward(observations), {5, 3, 2}}
class multi_discrete {
 public:
  /// `sizes` holds A_1 to A_K. Throws shape_error unless a row has A_1 + ... + A_K logits, and
  /// config_error if there is no part or a part has no action.
  multi_discrete(const at::Tensor& logits, const std::vector<std::int64_t>& sizes) {
    std::int64_t total = 0;
    for (const auto size : sizes) {
      if (size < 1)
        throw config_error(detail::concat("multi_discrete: every part needs an action, got sizes ",
                                          detail::shape_text(sizes)));
      total += size;
    }
    if (sizes.empty())
      throw config_error(
          "multi_discrete: there is no part: give the number of actions of each part");
    if (logits.dim() < 1 || logits.size(-1) != total)
      throw shape_error(detail::concat("multi_discrete: sizes ", detail::shape_text(sizes),
                                       " need logits [..., ", total, "], got ",
                                       detail::shape_text(logits.sizes())));
    std::int64_t from = 0;
    for (const auto size : sizes) {
      factors_.emplace_back(logits.narrow(-1, from, size));
      from += size;
    }
  }

  /// Constructs the product from its parts, for example from masked categoricals. Throws
  /// config_error if there is no part, and shape_error if the parts differ in their rows.
  explicit multi_discrete(std::vector<categorical> factors) : factors_(std::move(factors)) {
    if (factors_.empty())
      throw config_error("multi_discrete: there is no part: give at least one categorical");
    for (const auto& factor : factors_)
      if (rows_of(factor) != rows_of(factors_.front()))
        throw shape_error(detail::concat("multi_discrete: parts with logits of shapes ",
                                         detail::shape_text(factors_.front().logits.sizes()),
                                         " and ", detail::shape_text(factor.logits.sizes()),
                                         " do not belong together"));
  }

  /// Returns the product of categoricals with given probabilities [..., A_1 + ... + A_K]. The
  /// probabilities of each part have the sum 1. Throws the exceptions of the first constructor and
  /// of categorical::from_probs.
  [[nodiscard]] static multi_discrete from_probs(const at::Tensor& probabilities,
                                                 const std::vector<std::int64_t>& sizes) {
    multi_discrete result{probabilities, sizes};
    for (auto& factor : result.factors_) factor = categorical::from_probs(factor.logits);
    return result;
  }

  std::int64_t num_factors() const { return static_cast<std::int64_t>(factors_.size()); }
  const categorical& factor(std::int64_t k) const& {
    return factors_.at(static_cast<std::size_t>(k));
  }
  /// For a temporary: returns the part instead of a reference.
  categorical factor(std::int64_t k) const&& { return factors_.at(static_cast<std::size_t>(k)); }
  at::Device device() const { return factors_.front().device(); }
  /// Returns a copy with its parts on another device.
  multi_discrete to(at::Device other) const {
    std::vector<categorical> moved;
    for (const auto& factor : factors_) moved.push_back(factor.to(other));
    return multi_discrete{std::move(moved)};
  }

  /// Returns log pi(a|s), [...]. Throws shape_error unless there is one action of K parts per row,
  /// and config_error if the actions are not of an integral type.
  at::Tensor log_prob(const at::Tensor& actions) const {
    if (actions.sizes() != at::IntArrayRef(event_rows()))
      throw shape_error(
          detail::concat("multi_discrete: actions of shape ", detail::shape_text(actions.sizes()),
                         "; they must have shape ", detail::shape_text(event_rows())));
    const auto parts = detail::counted("multi_discrete", "actions", actions, device());
    return sum([&](std::size_t k) {
      return factors_[k].log_prob(parts.select(-1, static_cast<std::int64_t>(k)));
    });
  }
  at::Tensor entropy() const {
    return sum([&](std::size_t k) { return factors_[k].entropy(); });
  }
  at::Tensor mode() const {
    return stack([&](std::size_t k) { return factors_[k].mode(); });
  }

  /// Returns the actions at given quantiles. `uniform` [..., K] holds numbers in [0, 1), one for
  /// each part.
  at::Tensor at_quantile(const at::Tensor& uniform) const {
    return stack([&](std::size_t k) {
      return factors_[k].at_quantile(uniform.select(-1, static_cast<std::int64_t>(k)));
    });
  }

  /// Draws one action per row.
  at::Tensor sample(const at::Generator& generator = {}) const {
    const auto options = factors_.front().logits.options().dtype(at::kDouble).requires_grad(false);
    return at_quantile(generator.defined() ? at::rand(event_rows(), generator, options)
                                           : at::rand(event_rows(), options));
  }

  /// Returns a copy with uniform distributions in the rows where `mask` is 0. `mask` has the shape
  /// of the rows. Padding in these rows, even NaN, then affects neither values nor gradients.
  multi_discrete where(const at::Tensor& mask) const {
    std::vector<categorical> kept;
    for (const auto& factor : factors_) kept.push_back(factor.where(mask));
    return multi_discrete{std::move(kept)};
  }

  /// The Fisher information is the sum of the squared gradients of scores. The scores of the first
  /// part come first, then those of the second part, and so on. The parts are independent, so the
  /// Fisher information is the sum of the Fisher informations of the parts.
  std::int64_t num_scores() const {
    std::int64_t count = 0;
    for (const auto& factor : factors_) count += factor.num_scores();
    return count;
  }
  at::Tensor score(std::int64_t k) const {
    auto factor = factors_.begin();
    for (; k >= factor->num_scores(); ++factor) k -= factor->num_scores();
    return factor->score(k);
  }

 private:
  static at::IntArrayRef rows_of(const categorical& d) {
    return d.logits.sizes().slice(0, static_cast<std::size_t>(d.logits.dim() - 1));
  }
  std::vector<std::int64_t> event_rows() const {
    auto shape = rows_of(factors_.front()).vec();
    shape.push_back(num_factors());
    return shape;
  }

  template <class Part>
  at::Tensor sum(Part part) const {
    at::Tensor total = part(0);
    for (std::size_t k = 1; k < factors_.size(); ++k) total = total + part(k);
    return total;
  }
  template <class Part>
  at::Tensor stack(Part part) const {
    std::vector<at::Tensor> parts;
    for (std::size_t k = 0; k < factors_.size(); ++k) parts.push_back(part(k));
    return at::stack(parts, -1);
  }

  std::vector<categorical> factors_;
};

/// Returns KL(p || q), [...], in nats, differentiable in p and q: the sum of the KLs of the parts.
/// Throws shape_error if the parts differ in number or shape.
[[nodiscard]] inline at::Tensor kl(const multi_discrete& p, const multi_discrete& q) {
  if (p.num_factors() != q.num_factors())
    throw shape_error(detail::concat("kl: actions of ", p.num_factors(), " and ", q.num_factors(),
                                     " parts do not belong together"));
  at::Tensor total = kl(p.factor(0), q.factor(0));
  for (std::int64_t k = 1; k < p.num_factors(); ++k) total = total + kl(p.factor(k), q.factor(k));
  return total;
}

}  // namespace retain
