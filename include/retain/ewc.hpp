// SPDX-License-Identifier: MIT
#pragma once

#include <retain/detail/weight_penalty.hpp>
#include <retain/fisher.hpp>

namespace retain {

struct ewc_options {
  strength_schedule strength = 1.0;       ///< c of the formula; with a per-sample Fisher, 1e2 to 1e3 is a place to start
  std::vector<std::string> exclude = {};  ///< name patterns of parameters left free, for example {"value_head.*"}
  std::vector<group_scale> groups = {};   ///< factors on the strength by name pattern
};

/// Elastic weight consolidation: a quadratic pull towards where the model stands when this is made, weighted by how much
/// each weight matters to the policy,
///
///     loss = c * sum_i F_i (theta_i - theta*_i)^2,    gradient = 2 c F_i (theta_i - theta*_i)
///
/// with F the diagonal of the Fisher information from `estimate_fisher` (Kirkpatrick et al. 2017, arXiv 1612.00796, without
/// their factor 1/2, as in Wołczyk et al. 2024). Frozen parameters are skipped. Memory: two copies of the parameters.
class ewc : public detail::weight_penalty {
 public:
  static constexpr const char* name = "ewc";

  /// `importance` holds one tensor of the parameter's shape for every trainable parameter that is not excluded.
  /// Throws state_error for a missing or extra name and for negative or non-finite values, shape_error for another shape.
  template <parameter_source M>
  ewc(const M& model, const parameter_list& importance, ewc_options options = {})
      : weight_penalty(name, std::move(options.strength), std::move(options.exclude), options.groups, parameters(model)) {
    const at::NoGradGuard no_grad;
    needs_importance_ = true;
    for (const auto& [key, values] : importance) {
      if (excluded(key)) continue;
      const auto position = entries_.find(key);
      if (position == entries_.end())
        throw state_error(detail::concat("ewc: the importance has '", key, "' ", detail::shape_text(values.sizes()),
                                         ", which the model does not have: exclude it by pattern, or estimate it for this model"));
      entry& e = position->second;
      if (values.sizes() != e.anchor.sizes())
        throw shape_error(detail::concat("ewc: the importance of '", key, "' has shape ", detail::shape_text(values.sizes()),
                                         ", the parameter ", detail::shape_text(e.anchor.sizes()), ": estimate it for this model"));
      check_importance(key, values);
      e.importance = laid_out_like(e.anchor, values);
    }
    for (const auto& [key, e] : entries_)
      if (e.trainable && !e.importance.defined())
        throw state_error(detail::concat("ewc: the model's parameter '", key, "' ", detail::shape_text(e.anchor.sizes()),
                                         " has no importance: estimate it for this model, or exclude it by pattern"));
  }

  template <parameter_source M>
  ewc(const M& model, const fisher& importance, ewc_options options = {}) : ewc(model, importance.values, std::move(options)) {}
};

}  // namespace retain
