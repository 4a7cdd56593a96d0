// SPDX-License-Identifier: MIT
// The base class of the library's quadratic penalties: value, gradient, strength and state.
#pragma once

#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/core/strength_schedule.hpp>
#include <retain/terms/anchor_map.hpp>
#include <retain/terms/matched_quadratic.hpp>
#include <retain/terms/scheduled_strength.hpp>

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace retain {

namespace detail {

/// A quadratic penalty on the weights: the value, the gradient and the strength.
class quadratic_penalty : protected anchor_map, public scheduled_strength {
 public:
  using anchor_map::covers;
  using anchor_map::importance;

  /// Returns strength * sum F (theta - anchor)^2 in the graph of the parameters, a 0-dim tensor of
  /// their type (float for half types). A parameter may be computed from other tensors, for example
  /// a normalized weight, or the old rows of a layer that has grown; then those tensors get the
  /// gradient. Throws shape_error or state_error if the model does not fit.
  template <parameter_source M>
  [[nodiscard]] at::Tensor loss(const M& model) const {
    return matched_loss(match(parameters(model)), strength());
  }

  /// Adds the gradient of `loss` to every trainable parameter's `.grad` and returns the value as a
  /// 0-dim float64 tensor. This is one pass without autograd and without extra memory. An undefined
  /// `.grad` is created. Call add_gradient() between `backward()` and the optimizer's step.
  ///
  /// Throws the errors of `loss`. Throws config_error if a parameter is computed from another
  /// tensor (for example a view of a parameter), because no optimizer reads its `.grad`. All checks
  /// run before the first `.grad` is changed.
  template <parameter_source M>
  at::Tensor add_gradient(const M& model) const {
    return add_matched_gradient(match(parameters(model), true), strength());
  }

  /// Throws shape_error or state_error if the model does not fit, as `loss` does.
  template <parameter_source M>
  void check(const M& model) const {
    match(parameters(model));
  }

  /// Adds the gradient of `loss` for the parameter model[index] to `gradient`. The penalty must
  /// cover the parameter, and `gradient` must have its memory order. Other parameters are not
  /// checked. Throws shape_error or state_error if the parameter does not fit.
  void add_gradient_of(const parameter_list& model, std::size_t index, at::Tensor& gradient) const {
    const auto& [name, tensor] = model[index];
    add_matched_gradient_of(item_of(name, tensor, entries_.at(name)), strength(), gradient);
  }

  void save_state(state& out, const std::string& prefix) const {
    schedule_.save_state(out, prefix + "schedule.");
    save_anchors(out, prefix);
  }

  /// Throws state_error or shape_error, and changes nothing, if the saved parameters do not fit.
  void load_state(const state& in, const std::string& prefix) {
    auto loaded = loaded_anchors(in, prefix);
    schedule_.load_state(in, prefix + "schedule.");
    entries_ = std::move(loaded);
  }

 protected:
  using anchor_map::entry;
  using anchor_map::entry_map;

  /// `also` has names that an exclude pattern may match although the model does not have them.
  quadratic_penalty(const char* kind, strength_schedule strength, std::vector<std::string> exclude,
                    const std::vector<group_scale>& groups, const parameter_list& model,
                    std::nullptr_t /*no anchors*/, const parameter_list& also)
      : anchor_map(kind, std::move(exclude), groups, model, nullptr, also),
        scheduled_strength(std::move(strength)) {}
  quadratic_penalty(const char* kind, strength_schedule strength, std::vector<std::string> exclude,
                    const std::vector<group_scale>& groups, const parameter_list& model)
      : quadratic_penalty(kind, std::move(strength), std::move(exclude), groups, model, nullptr,
                          {}) {}
  /// Uses the given anchors instead of the model's current values.
  quadratic_penalty(const char* kind, strength_schedule strength, std::vector<std::string> exclude,
                    const std::vector<group_scale>& groups, const parameter_list& model,
                    const parameter_list& anchors)
      : anchor_map(kind, std::move(exclude), groups, model, &anchors),
        scheduled_strength(std::move(strength)) {}
};

}  // namespace detail
}  // namespace retain
