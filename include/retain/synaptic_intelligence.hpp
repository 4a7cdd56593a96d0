// SPDX-License-Identifier: MIT
#pragma once

#include <retain/terms/path_penalty.hpp>

#include <ATen/core/Tensor.h>

#include <cmath>

namespace retain {

struct synaptic_intelligence_options {
  strength_schedule strength = 1.0;  ///< c in the formula
  /// name patterns of parameters without penalty, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; if several patterns match, their product
  std::vector<group_scale> groups = {};
  /// xi in the formula, in squared weight. It bounds the importance of weights that hardly moved.
  /// The authors use 0.1 and 0.001
  double damping = 0.1;
};

/// Synaptic intelligence: the quadratic penalty of ewc, with an importance that is measured while a
/// task is trained. The importance of a weight is its contribution to the decrease of the loss.
///
///     during a task         omega_i = sum_t -g_i(t) (theta_i(t+1) - theta_i(t))
///     at the end of a task  Omega_i <- max(0, Omega_i + omega_i / (Delta_i^2 + xi))
///     loss = c * sum_i Omega_i (theta_i - theta*_i)^2
///     gradient = 2 c Omega_i (theta_i - theta*_i)
///
/// Delta_i is the movement of the weight over the whole task. theta* is its value at the end of the
/// task. The maximum is taken over the sum, as in the authors' code. Therefore a task in which the
/// movement of a weight increased the loss reduces the importance from earlier tasks.
///
/// The method needs no data and no extra pass, but it must run during pre-training:
///
///     retain::synaptic_intelligence keep{*policy, {.strength = 1.0}};
///     for (...) {                       // pre-training: Omega is 0, so there is no penalty yet
///       optimizer.zero_grad();
///       loss(...).backward();
///       keep.add_gradient(*policy);
///       optimizer.step();
///       keep.accumulate(*policy);       // after every step, before the next zero_grad
///     }
///     keep.consolidate(*policy);        // end of the task: updates the importances and the anchor
///     for (...) { ... }                 // fine-tuning: the same loop; the penalty is active
///
/// In fine-tuning the same loop measures the importance for a further task. For a policy that is
/// trained already, use ewc or memory_aware_synapses instead.
///
/// Frozen parameters are skipped. Memory: the anchor, Omega and the previous position in the type
/// of the parameters, and omega in float64. For float32 parameters this is five copies.
///
/// Paper: Zenke et al. 2017, arXiv 1703.04200.
class synaptic_intelligence : public detail::path_penalty {
 public:
  static constexpr const char* name = "synaptic_intelligence";

  /// Throws config_error if the damping is not positive or not finite.
  template <parameter_source M>
  explicit synaptic_intelligence(const M& model, synaptic_intelligence_options options = {})
      : path_penalty(name, {"path"}, std::move(options.strength), std::move(options.exclude),
                     options.groups, parameters(model)),
        damping_(options.damping) {
    if (!(damping_ > 0.0) || !std::isfinite(damping_))
      throw config_error(detail::concat(
          "synaptic_intelligence: damping must be positive and finite, got ", damping_));
  }

  /// Adds the last optimizer step to the path. `.grad` must still contain the gradient that was
  /// used for this step. When this gradient was computed, the weights must have been the same as at
  /// the previous accumulate (or at the construction).
  ///
  /// The gradient of the task is `.grad` minus the gradient of this penalty. Therefore `.grad` must
  /// contain the penalty gradient, from `add_gradient`, `attach` or `loss`, with the current
  /// strength. Call `step(progress)` after `accumulate`. All other gradients in `.grad` count as
  /// gradients of the task, for example those of other penalties and entropy terms. If the gradient
  /// norm is clipped, the clip factor also scales the penalty gradient, and a part of the penalty
  /// gradient stays in the path. A parameter with an undefined `.grad` adds nothing. Throws the
  /// exceptions of `add_gradient`. When it throws, nothing has changed.
  template <parameter_source M>
  void accumulate(const M& model) {
    walk(parameters(model),
         [](std::vector<at::Tensor>& sums, const at::Tensor& gradient, const at::Tensor& moved) {
           sums[0].addcmul_(gradient, moved, -1.0);
         });
  }

  /// Ends a task. Computes the importances from the path, sets the anchor to the current weights,
  /// and starts a new path. Throws state_error and changes nothing if the weights moved but no
  /// accumulate() call found a gradient. In this case accumulate() was called after zero_grad() or
  /// was not called.
  template <parameter_source M>
  void consolidate(const M& model) {
    settle(parameters(model), [&](const std::vector<at::Tensor>& sums, const at::Tensor& importance,
                                  const at::Tensor& moved) {
      return (importance + sums[0] / (moved.square() + damping_)).clamp_min(0.0);
    });
  }

 private:
  double damping_;
};

}  // namespace retain
