// SPDX-License-Identifier: MIT
#pragma once

#include <retain/fisher.hpp>
#include <retain/importance/left_out.hpp>
#include <retain/terms/importance_penalty.hpp>

#include <string>
#include <utility>
#include <vector>

namespace retain {

struct ewc_options {
  /// c in the formula. The examples use strengths from 1 (Gaussian policy) to 3000 (NetHack). Try
  /// powers of ten around fisher::strength_for(kl) first
  strength_schedule strength = 1.0;
  /// name patterns of parameters without penalty, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; if several patterns match, their product
  std::vector<group_scale> groups = {};
  double floor = 0.0;             ///< lower bound of each importance
  double clip = detail::no_clip;  ///< upper bound of each importance
};

/// Elastic weight consolidation (EWC): a quadratic penalty on the distance to the current weights
/// of the model, the anchor theta*. The penalty of each weight is multiplied by the importance of
/// this weight for the policy.
///
///     loss = c * sum_i F_i (theta_i - theta*_i)^2,    gradient = 2 c F_i (theta_i - theta*_i)
///
/// F is the diagonal of the Fisher information from `estimate_fisher`. The formula has no factor
/// 1/2, unlike Kirkpatrick et al. 2017 and like Wołczyk et al. 2024. Frozen parameters are skipped.
/// Memory: two copies of the parameters.
///
/// If a policy is nearly deterministic on the data, its Fisher has many values near 0 and a few
/// very large ones. Weights with a value near 0 drift as if there were no penalty, and very large
/// values make the loss badly conditioned. `floor` and `clip` bound both. (Continual World, Wołczyk
/// et al. 2021, arXiv 2105.10919, bounds the Fisher of each state by 1e-5 from below; `floor`
/// bounds the mean over the states.)
///
/// For several tasks in sequence, estimate a Fisher on the data of each task. Then use one of these
/// calls:
///
///     // adds this task: the penalty becomes the sum over all tasks, at the cost of one penalty
///     keep.remember(*policy, fisher_of_this_task);
///     // or: reduces the weight of earlier tasks, and moves the anchor to the current weights
///     keep.advance(*policy, fisher_of_this_task, 0.9);
///
/// Paper: Kirkpatrick et al. 2017, arXiv 1612.00796.
class ewc : public detail::importance_penalty {
 public:
  static constexpr const char* name = "ewc";

  /// `importance` must contain one tensor, with the parameter's shape, for every trainable
  /// parameter that is not excluded. Throws state_error for a missing or extra name, for an
  /// importance that is negative or not finite, and for a trained parameter that is not finite.
  /// Throws shape_error for a wrong shape. Throws config_error for an invalid floor or clip.
  template <parameter_source M>
  ewc(const M& model, const parameter_list& importance, ewc_options options = {})
      : importance_penalty(name, std::move(options.strength), std::move(options.exclude),
                           options.groups, options.floor, options.clip, parameters(model),
                           importance) {}

  /// Also leaves out what the estimate left out (`importance.exclude`).
  template <parameter_source M>
  ewc(const M& model, const fisher& importance, ewc_options options = {})
      : ewc(model, importance.values, leaving_out(importance, std::move(options), model)) {}

 private:
  template <parameter_source M>
  static ewc_options leaving_out(const fisher& estimate, ewc_options options, const M& model) {
    options.exclude =
        detail::all_left_out(std::move(options.exclude), estimate.exclude, parameters(model));
    return options;
  }
};

}  // namespace retain
