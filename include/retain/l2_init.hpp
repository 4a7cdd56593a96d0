// SPDX-License-Identifier: MIT
#pragma once

#include <retain/terms/weight_penalty.hpp>

namespace retain {

struct l2_init_options {
  strength_schedule strength = 1.0;  ///< c of the formula
  /// name patterns of parameters left free, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; of several that match, the product
  std::vector<group_scale> groups = {};
};

/// L2 distance to where the model stands when this is made, or to an anchor that is given:
///
///     loss = c * sum_g lambda_g ||theta_g - theta*_g||^2,    gradient = 2 c lambda_g (theta_g - theta*_g)
///
/// With pre-trained weights theta* it is L2-SP (Li et al. 2018, arXiv 1802.01483); with a random
/// initialisation it is L2-init, which keeps plasticity (Kumar et al. 2023, arXiv 2308.11958).
/// There is no 1/2 and no mean over weights: c times the squared distance. Frozen parameters are
/// skipped. Memory: one copy of the parameters.
///
///     l2_init keep{*policy, *pretrained, {.strength = 0.1}};   // the policy has moved on, or was loaded from a later checkpoint
class l2_init : public detail::weight_penalty {
 public:
  static constexpr const char* name = "l2_init";

  /// Throws state_error for a parameter that is trained and not finite, config_error for a group
  /// that matches nothing or a negative scale.
  template <parameter_source M>
  explicit l2_init(const M& model, l2_init_options options = {})
      : weight_penalty(name, std::move(options.strength), std::move(options.exclude),
                       options.groups, parameters(model)) {}

  /// With the parameters of `anchor`, copied, in place of where the model stands: a model, or a
  /// list under the model's names. Throws state_error for a missing or extra name and for a value
  /// that is not finite, shape_error for another shape.
  template <parameter_source M, parameter_source Anchor>
  l2_init(const M& model, const Anchor& anchor, l2_init_options options = {})
      : weight_penalty(name, std::move(options.strength), std::move(options.exclude),
                       options.groups, parameters(model), parameters(anchor)) {}
};

}  // namespace retain
