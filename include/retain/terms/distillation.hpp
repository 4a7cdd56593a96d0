// SPDX-License-Identifier: MIT
// The common base of kickstarting and behavioral_cloning: the mean divergence over valid rows, the
// strength schedule and the last values.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/terms/scheduled_strength.hpp>

#include <ATen/ATen.h>

#include <string>
#include <utility>

namespace retain {

/// The divergence that a distillation term minimizes.
enum class divergence {
  /// KL(pi* || pi): the student must give probability to all actions that the teacher takes
  teacher_student,
  /// KL(pi || pi*): the student must avoid actions that the teacher would not take
  student_teacher,
};

/// The mean divergence of two predictions, and the mean weight of its rows.
struct divergence_means {
  at::Tensor divergence;  ///< 0-dim, in the graph of the student's answer
  at::Tensor weight;      ///< 0-dim, without gradient; undefined without weights
};

/// Returns 1 / N * sum over the N valid rows of weight * KL, a part for distillation terms of your
/// own. A row is valid if the mask and the masks of both predictions keep it. Undefined weights
/// count as 1. A row of weight 0 is valid, but may contain arbitrary values, like padding. `target`
/// is moved to the device of `answer`. `who` is the start of the error texts. Throws shape_error if
/// the shapes of masks, weights and rows differ.
///
///     const auto means = mean_divergence("my_term", divergence::teacher_student, teacher_answer,
///                                        student_answer, rollout.mask);
///     return means.divergence * strength_.value();
template <prediction Target, prediction Answer>
divergence_means mean_divergence(const char* who, divergence direction, const Target& target,
                                 const Answer& answer, const at::Tensor& mask = {},
                                 const at::Tensor& weights = {}) {
  using namespace detail;
  // Padded rows may contain arbitrary values, also NaN. They are replaced before the divergence is
  // computed, so that no NaN reaches a gradient.
  const at::Tensor kept =
      common_mask(who, mask_of(answer), common_mask(who, mask, mask_of(target)));
  if (weights.defined() && kept.defined() && weights.sizes() != kept.sizes())
    throw shape_error(concat(who, ": weights of shape ", shape_text(weights.sizes()),
                             " do not fit a mask of shape ", shape_text(kept.sizes())));
  const at::Tensor pulled = weights.defined() ? common_mask(who, kept, weights.gt(0)) : kept;
  const auto p = detail::where(beside(distribution_of(target), distribution_of(answer)), pulled);
  const auto q = detail::where(distribution_of(answer), pulled);
  at::Tensor rows = direction == divergence::teacher_student ? kl(p, q) : kl(q, p);
  if (!weights.defined()) return {masked_mean(rows, kept), {}};
  if (weights.sizes() != rows.sizes())
    throw shape_error(concat(who, ": weights of shape ", shape_text(weights.sizes()),
                             " do not fit rows of shape ", shape_text(rows.sizes())));
  // Set both factors to 0 before the multiplication: NaN times 0 would be NaN in the gradient.
  const auto dropped = pulled.to(rows.device()).bitwise_not();
  const auto counted =
      weights.detach().to(rows.device(), rows.scalar_type()).masked_fill(dropped, 0);
  return {masked_mean(rows.masked_fill(dropped, 0) * counted, kept), masked_mean(counted, kept)};
}

namespace detail {

/// The strength and the last values of the library's distillation terms.
class distillation_base : public scheduled_strength {
 public:
  /// The mean weighted divergence of the last `loss`, not multiplied by the strength, without
  /// gradient. Undefined before the first call of `loss`.
  const at::Tensor& last_divergence() const { return last_; }

  /// The mean weight of the valid rows of the last `loss` with weights, 0-dim. With a gate this is
  /// the fraction of accepted rows. Undefined before the first such call.
  const at::Tensor& last_weight() const { return weight_; }

 protected:
  distillation_base(strength_schedule strength, divergence direction)
      : scheduled_strength(std::move(strength)), direction_(direction) {}

  divergence direction_;
  at::Tensor last_, weight_;
};

}  // namespace detail
}  // namespace retain
