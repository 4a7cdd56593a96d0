// SPDX-License-Identifier: MIT
#pragma once

#include <retain/terms/path_penalty.hpp>

#include <cmath>

namespace retain {

struct synaptic_intelligence_options {
  strength_schedule strength = 1.0;  ///< c of the formula
  /// name patterns of parameters left free, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; of several that match, the product
  std::vector<group_scale> groups = {};
  /// xi, in squared weight: bounds the importance of weights that hardly moved; the authors' are
  /// 0.1 and 0.001
  double damping = 0.1;
};

/// Synaptic intelligence: the pull of ewc with an importance gathered while a task is learnt, by
/// how much of the fall of its loss each weight's movement brought about,
///
///     omega_i = sum_t -g_i(t) (theta_i(t+1) - theta_i(t)),   at a task's end Omega_i <- max(0, Omega_i + omega_i / (Delta_i^2 + xi))
///     loss = c * sum_i Omega_i (theta_i - theta*_i)^2,       gradient = 2 c Omega_i (theta_i - theta*_i)
///
/// with Delta_i the movement over the whole task and theta* where it ended (Zenke et al. 2017,
/// arXiv 1703.04200). The maximum is of the sum, as in the authors' code: a task that a weight's
/// movement harmed takes from the importance of those before. It needs no data and no extra pass,
/// but has to be there while the knowledge is acquired:
///
///     retain::synaptic_intelligence keep{*policy, {.strength = 1.0}};
///     for (...) {                                              // pre-training: Omega is 0 and does not pull yet
///       optimizer.zero_grad();
///       loss(...).backward();
///       keep.add_gradient(*policy);
///       optimizer.step();
///       keep.observe(*policy);                                 // after every step, before the next zero_grad
///     }
///     keep.consolidate(*policy);                               // the task ends: importances and anchor move
///     for (...) { ... }                                        // fine-tuning: the same loop pulls now, and gathers for a third task
///
/// A policy that is already trained has no path left to observe: use ewc or memory_aware_synapses.
///
/// Frozen parameters are skipped. Memory: anchor, Omega, the last position and omega in float64,
/// five copies in float32.
class synaptic_intelligence : public detail::path_penalty {
 public:
  static constexpr const char* name = "synaptic_intelligence";

  /// Throws config_error when the damping is not positive and finite.
  template <parameter_source M>
  explicit synaptic_intelligence(const M& model, synaptic_intelligence_options options = {})
      : path_penalty(name, {"path"}, std::move(options.strength), std::move(options.exclude),
                     options.groups, parameters(model)),
        damping_(options.damping) {
    if (!(damping_ > 0.0) || !std::isfinite(damping_))
      throw config_error(detail::concat(
          "synaptic_intelligence: damping must be positive and finite, got ", damping_));
  }

  using path_penalty::observe;

  /// Adds the step that was just made to the path. `.grad` must still hold the gradient that the
  /// step was made with, and the model must have stood at the last observe (or at the construction)
  /// when it was taken.
  ///
  /// This penalty's own pull, which is known from there, is taken out of `.grad` again: it must be
  /// in it, by `add_gradient`, `attach` or `loss`, at the present strength, so that
  /// `step(progress)` comes after this. What else is in `.grad` counts as the task's: other
  /// penalties, entropy terms, and the factor of a clipped norm, which then scales the pull too and
  /// leaves a part of it in the path. A parameter whose `.grad` is undefined adds nothing. Throws
  /// as `add_gradient` does, before anything is changed.
  template <parameter_source M>
  void observe(const M& model) {
    walk(parameters(model),
         [](std::vector<at::Tensor>& sums, const at::Tensor& gradient, const at::Tensor& moved) {
           sums[0].addcmul_(gradient, moved, -1.0);
         });
  }

  /// Ends a task: its path becomes importance, the anchor moves to where the model stands, and a
  /// new path begins there. Throws state_error, and changes nothing, where the weights moved and no
  /// observe() saw a gradient: it came after zero_grad() or not at all.
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
