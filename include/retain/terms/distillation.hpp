// SPDX-License-Identifier: MIT
// What kickstarting and behavioral_cloning share: the mean divergence over valid rows, and the
// bookkeeping of a term.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/state.hpp>
#include <retain/core/strength_schedule.hpp>
#include <retain/distributions/prediction.hpp>

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

class distillation_base {
 public:
  double strength() const { return schedule_.value(); }
  void step(double progress) { schedule_.step(progress); }
  /// Throws what `step` would, and moves nothing.
  void check_step(double progress) const { schedule_.check_step(progress); }
  void observe(double measurement) { schedule_.observe(measurement); }

  /// The mean divergence of the last `loss`, weights included, before the strength, without
  /// gradient; undefined before the first.
  const at::Tensor& last_divergence() const { return last_; }

  /// The mean weight of the valid rows of the last `loss` that weighed them: with a gate, the share
  /// that it let through. 0-dim; undefined before the first.
  const at::Tensor& last_weight() const { return weight_; }

 protected:
  distillation_base(strength_schedule strength, divergence direction)
      : schedule_(std::move(strength)), direction_(direction) {}

  /// c times the sum over valid rows of weight times divergence, over the number of valid rows;
  /// undefined weights are 1. A row of weight 0 is still a valid row, but like padding it may hold
  /// anything.
  template <prediction Target, prediction Answer>
  at::Tensor weighted(const char* who, const Target& target, const Answer& answer,
                      const at::Tensor& mask, const at::Tensor& weights = {}) {
    // Padded rows may hold anything, NaN too: they are replaced before the divergence, so that no
    // NaN reaches a gradient.
    const at::Tensor kept =
        common_mask(who, mask_of(answer), common_mask(who, mask, mask_of(target)));
    if (weights.defined() && kept.defined() && weights.sizes() != kept.sizes())
      throw shape_error(concat("weights of shape ", shape_text(weights.sizes()),
                               " do not fit a mask of shape ", shape_text(kept.sizes())));
    const at::Tensor pulled = weights.defined() ? common_mask(who, kept, weights.gt(0)) : kept;
    const auto p = where(beside(distribution_of(target), distribution_of(answer)), pulled);
    const auto q = where(distribution_of(answer), pulled);
    at::Tensor rows = direction_ == divergence::teacher_student ? kl(p, q) : kl(q, p);
    if (weights.defined()) {
      if (weights.sizes() != rows.sizes())
        throw shape_error(concat("weights of shape ", shape_text(weights.sizes()),
                                 " do not fit rows of shape ", shape_text(rows.sizes())));
      // Both are cleared before they meet: NaN times 0 would be NaN in the gradient.
      const auto dropped = pulled.to(rows.device()).bitwise_not();
      const auto counted =
          weights.detach().to(rows.device(), rows.scalar_type()).masked_fill(dropped, 0);
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
