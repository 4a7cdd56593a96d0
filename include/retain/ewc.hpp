// SPDX-License-Identifier: MIT
#pragma once

#include <retain/fisher.hpp>
#include <retain/terms/importance_penalty.hpp>

namespace retain {

struct ewc_options {
  /// c of the formula; the examples came to 1 (Gaussian policy) and up to 3000 (NetHack): try
  /// decades
  strength_schedule strength = 1.0;
  /// name patterns of parameters left free, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; of several that match, the product
  std::vector<group_scale> groups = {};
  double floor = 0.0;             ///< every importance is at least this
  double clip = detail::no_clip;  ///< and at most this
};

/// Elastic weight consolidation: a quadratic pull towards where the model stands when this is made,
/// weighted by how much each weight matters to the policy,
///
///     loss = c * sum_i F_i (theta_i - theta*_i)^2,    gradient = 2 c F_i (theta_i - theta*_i)
///
/// with F the diagonal of the Fisher information from `estimate_fisher` (Kirkpatrick et al. 2017,
/// arXiv 1612.00796, without their factor 1/2, as in Wołczyk et al. 2024). Frozen parameters are
/// skipped. Memory: two copies of the parameters.
///
/// A Fisher estimated where a policy is certain has weights at almost 0, which then drift as if
/// there were no penalty, and a few large ones that make the loss stiff: `floor` and `clip` bound
/// both. (Continual World, Wołczyk et al. 2021, arXiv 2105.10919, bounds the Fisher of each state
/// by 1e-5 from below; `floor` bounds the mean over states.)
///
/// Several tasks in a row, each with a Fisher estimated where it was learnt:
///
///     keep.remember(*policy, fisher_of_this_task);       // this one too: the sum of the tasks' penalties, at the cost of one
///     keep.advance(*policy, fisher_of_this_task, 0.9);   // or: older ones fade, only the newest anchor stays
class ewc : public detail::importance_penalty {
 public:
  static constexpr const char* name = "ewc";

  /// `importance` holds one tensor of the parameter's shape for every trainable parameter that is
  /// not excluded. Throws state_error for a missing or extra name, for negative or non-finite
  /// values and for a trained parameter that is not finite, shape_error for another shape,
  /// config_error for a floor or clip out of range.
  template <parameter_source M>
  ewc(const M& model, const parameter_list& importance, ewc_options options = {})
      : importance_penalty(name, std::move(options.strength), std::move(options.exclude),
                           options.groups, options.floor, options.clip, parameters(model),
                           importance) {}

  template <parameter_source M>
  ewc(const M& model, const fisher& importance, ewc_options options = {})
      : ewc(model, importance.values, std::move(options)) {}
};

}  // namespace retain
