// SPDX-License-Identifier: MIT
// What kickstarting and behavioral_cloning share: the mean divergence over valid rows, and the bookkeeping of a term.
#pragma once

#include <retain/concepts.hpp>
#include <retain/detail/mean.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>
#include <retain/schedule.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>

#include <string>
#include <utility>

namespace retain {

/// Which divergence a distillation term minimises.
enum class divergence {
  teacher_student,  ///< KL(pi* || pi): the student must cover what the teacher does
  student_teacher,  ///< KL(pi || pi*): the student must not do what the teacher would not
};

namespace detail {

// Masks are bool, and negated and joined bit by bit: LibTorch 1.13 has no logical operations on the meta device, which knows shapes alone.

/// The rows that both masks keep, as bool, on the device of the first; undefined when neither is given. Throws shape_error, which begins with
/// `who`, for masks of two shapes.
inline at::Tensor common_mask(const char* who, const at::Tensor& first, const at::Tensor& second) {
  if (!first.defined()) return second.defined() ? second.to(at::kBool) : at::Tensor();
  if (second.defined() && first.sizes() != second.sizes())
    throw shape_error(concat(who, ": masks of shapes ", shape_text(first.sizes()), " and ", shape_text(second.sizes()), " do not belong together"));
  return second.defined() ? first.to(at::kBool).bitwise_and(second.to(first.device(), at::kBool)) : first.to(at::kBool);
}

/// Mean of `values` over the rows that `kept` (bool, of their shape) keeps; undefined keeps all. 0 when none is kept, so that an
/// empty batch adds nothing instead of NaN.
inline at::Tensor masked_mean(const at::Tensor& values, const at::Tensor& kept) {
  if (!kept.defined()) return mean_of(values);
  if (kept.sizes() != values.sizes())
    throw shape_error(concat("a mask of shape ", shape_text(kept.sizes()), " does not fit rows of shape ", shape_text(values.sizes())));
  const auto counted = kept.to(values.device(), at::kBool);
  return values.masked_fill(counted.bitwise_not(), 0).sum() / counted.sum().clamp_min(1);
}

/// Actions with 0 in the rows that `kept` drops, where there need not be an action: [...] or [..., D] for rows [...]. An undefined mask
/// keeps all; one of another shape is left for the rows themselves to refuse.
inline at::Tensor harmless_actions(const at::Tensor& actions, const at::Tensor& kept) {
  if (!kept.defined() || kept.dim() > actions.dim() || kept.sizes() != actions.sizes().slice(0, static_cast<std::size_t>(kept.dim()))) return actions;
  at::Tensor dropped = kept.to(actions.device(), at::kBool).bitwise_not();
  while (dropped.dim() < actions.dim()) dropped = dropped.unsqueeze(-1);
  return actions.masked_fill(dropped, 0);
}

/// The product of two sets of row weights, either of which may be undefined and then stands for 1.
inline at::Tensor product(const at::Tensor& first, const at::Tensor& second) {
  if (!first.defined() || !second.defined()) return first.defined() ? first : second;
  if (first.sizes() != second.sizes())
    throw shape_error(concat("weights of shapes ", shape_text(first.sizes()), " and ", shape_text(second.sizes()), " do not belong together"));
  return first * second.to(first.device());
}

class distillation_base {
 public:
  double strength() const { return schedule_.value(); }
  void step(double progress) { schedule_.step(progress); }
  /// Throws what `step` would, and moves nothing.
  void check_step(double progress) const { schedule_.check_step(progress); }
  void observe(double measurement) { schedule_.observe(measurement); }

  /// The mean divergence of the last `loss`, weights included, before the strength, without gradient; undefined before the first.
  const at::Tensor& last_divergence() const { return last_; }

  /// The mean weight of the valid rows of the last `loss` that weighed them: with a gate, the share that it let through. 0-dim;
  /// undefined before the first.
  const at::Tensor& last_weight() const { return weight_; }

 protected:
  distillation_base(strength_schedule strength, divergence direction) : schedule_(std::move(strength)), direction_(direction) {}

  /// c times the sum over valid rows of weight times divergence, over the number of valid rows; undefined weights are 1. A row of
  /// weight 0 is still a valid row, but like padding it may hold anything.
  template <prediction Target, prediction Answer>
  at::Tensor weighted(const char* who, const Target& target, const Answer& answer, const at::Tensor& mask, const at::Tensor& weights = {}) {
    // Padded rows may hold anything, NaN too: they are replaced before the divergence, so that no NaN reaches a gradient.
    const at::Tensor kept = common_mask(who, mask_of(answer), common_mask(who, mask, mask_of(target)));
    if (weights.defined() && kept.defined() && weights.sizes() != kept.sizes())
      throw shape_error(concat("weights of shape ", shape_text(weights.sizes()), " do not fit a mask of shape ", shape_text(kept.sizes())));
    const at::Tensor pulled = weights.defined() ? common_mask(who, kept, weights.gt(0)) : kept;
    const auto p = where(beside(distribution_of(target), distribution_of(answer)), pulled);
    const auto q = where(distribution_of(answer), pulled);
    at::Tensor rows = direction_ == divergence::teacher_student ? kl(p, q) : kl(q, p);
    if (weights.defined()) {
      if (weights.sizes() != rows.sizes())
        throw shape_error(concat("weights of shape ", shape_text(weights.sizes()), " do not fit rows of shape ", shape_text(rows.sizes())));
      // Both are cleared before they meet: NaN times 0 would be NaN in the gradient.
      const auto dropped = pulled.to(rows.device()).bitwise_not();
      const auto counted = weights.detach().to(rows.device(), rows.scalar_type()).masked_fill(dropped, 0);
      rows = rows.masked_fill(dropped, 0) * counted;
      weight_ = masked_mean(counted, kept);
    }
    const at::Tensor mean = masked_mean(rows, kept);
    last_ = mean.detach();
    return mean * strength();
  }

  strength_schedule schedule_;
  divergence direction_;
  at::Tensor last_, weight_;
};

}  // namespace detail
}  // namespace retain
