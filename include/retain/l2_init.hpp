// SPDX-License-Identifier: MIT
#pragma once

#include <retain/terms/quadratic_penalty.hpp>

namespace retain {

struct l2_init_options {
  strength_schedule strength = 1.0;  ///< c in the formula
  /// name patterns of parameters without penalty, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; if several patterns match, their product
  std::vector<group_scale> groups = {};
};

/// The squared L2 distance to an anchor theta*. The anchor is the current weights of the model, or
/// an anchor that the caller passes.
///
///     loss = c * sum_g lambda_g ||theta_g - theta*_g||^2
///     gradient = 2 c lambda_g (theta_g - theta*_g)
///
/// If theta* are pre-trained weights, this is L2-SP. If theta* is a random initialization, this is
/// L2-init, which preserves plasticity. The formula has no factor 1/2 and no mean over the weights.
/// Frozen parameters are skipped. Memory: one copy of the parameters.
///
///     // the anchor is another model, for example an earlier checkpoint
///     l2_init keep{*policy, *pretrained, {.strength = 0.1}};
///
/// Papers: L2-SP, Li et al. 2018, arXiv 1802.01483; L2-init, Kumar et al. 2023, arXiv 2308.11958.
class l2_init : public detail::quadratic_penalty {
 public:
  static constexpr const char* name = "l2_init";

  /// Uses the current weights of the model as the anchor. Throws state_error for a trainable
  /// parameter that is not finite. Throws config_error for a group that matches nothing, and for a
  /// negative scale.
  template <parameter_source M>
  explicit l2_init(const M& model, l2_init_options options = {})
      : quadratic_penalty(name, std::move(options.strength), std::move(options.exclude),
                          options.groups, parameters(model)) {}

  /// Uses copies of the parameters of `anchor` as the anchor. `anchor` is a model, or a list with
  /// the names of the model's parameters. Throws state_error for a missing or extra name and for a
  /// value that is not finite. Throws shape_error if the shapes of a parameter differ.
  template <parameter_source M, parameter_source Anchor>
  l2_init(const M& model, const Anchor& anchor, l2_init_options options = {})
      : quadratic_penalty(name, std::move(options.strength), std::move(options.exclude),
                          options.groups, parameters(model), parameters(anchor)) {}
};

}  // namespace retain
