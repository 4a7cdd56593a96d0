// SPDX-License-Identifier: MIT
// The base class of the quadratic penalties: value, gradient, strength and state.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/core/strength_schedule.hpp>
#include <retain/kernels/quadratic.hpp>
#include <retain/kernels/quadratic_loss.hpp>
#include <retain/terms/anchors.hpp>

#include <ATen/core/grad_mode.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace retain {

namespace detail {

/// A quadratic penalty on the weights: the value, the gradient and the strength.
class weight_penalty : protected anchor_map {
 public:
  using anchor_map::covers;
  using anchor_map::importance;

  /// Returns strength * sum F (theta - anchor)^2 in the graph of the parameters, a 0-dim tensor of
  /// their type (float for half types). A parameter may be computed from other tensors, for example
  /// a normalized weight, or the old rows of a layer that has grown; then those tensors get the
  /// gradient. Throws shape_error or state_error if the model does not fit.
  template <parameter_source M>
  at::Tensor loss(const M& model) const {
    const auto items = match(parameters(model));
    if (items.empty() || strength() == 0.0) return at::zeros({}, options_of(items));
    return quadratic_loss(items, strength());
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
    const at::NoGradGuard no_grad;
    const auto items = match(parameters(model), true);
    if (items.empty() || strength() == 0.0)
      return at::zeros({}, options_of(items).dtype(at::kDouble));
    std::vector<at::Tensor> gradients;
    for (const auto& item : items) {
      auto& gradient = item.theta.mutable_grad();
      if (!gradient.defined()) gradient = at::zeros_like(item.theta);
      gradients.push_back(gradient);
    }
    auto value = quadratic_pass<gradient_mode::add>(items, gradients, 2.0 * strength());
    // A sparse gradient was replaced by a dense one.
    for (std::size_t i = 0; i < items.size(); ++i)
      if (!gradients[i].is_same(items[i].theta.grad()))
        items[i].theta.mutable_grad() = gradients[i];
    return value.mul_(strength());
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
    const at::NoGradGuard no_grad;
    const auto& [name, tensor] = model[index];
    std::vector<at::Tensor> gradients{gradient};
    quadratic_pass<gradient_mode::add>({item_of(name, tensor, entries_.at(name))}, gradients,
                                       2.0 * strength());
    gradient = gradients.front();
  }

  double strength() const { return schedule_.value(); }
  void step(double progress) { schedule_.step(progress); }
  /// Makes the checks of `step` and throws the same errors, without changing the progress.
  void check_step(double progress) const { schedule_.check_step(progress); }
  void observe(double measurement) { schedule_.observe(measurement); }

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

  weight_penalty(const char* kind, strength_schedule strength, std::vector<std::string> exclude,
                 const std::vector<group_scale>& groups, const parameter_list& model)
      : anchor_map(kind, std::move(exclude), groups, model, nullptr),
        schedule_(std::move(strength)) {}
  /// Uses the given anchors instead of the model's current values.
  weight_penalty(const char* kind, strength_schedule strength, std::vector<std::string> exclude,
                 const std::vector<group_scale>& groups, const parameter_list& model,
                 const parameter_list& anchors)
      : anchor_map(kind, std::move(exclude), groups, model, &anchors),
        schedule_(std::move(strength)) {}

  strength_schedule schedule_;

 private:
  quadratic_item item_of(const std::string& name, const at::Tensor& tensor, entry& e) const {
    check_shape(name, tensor, e);
    if (needs_importance_ && !e.importance.defined())
      throw state_error(
          concat(kind_, ": the parameter '", name,
                 "' is trained, but it was frozen when its importance was estimated: "
                 "unfreeze it before the importance is estimated, or exclude it by pattern"));
    check_may_pull(name, e);
    follow(e, tensor);
    return {tensor, e.anchor, e.importance, e.scale, e.constant};
  }

  /// Returns the model's trainable parameters with their anchors. With `gradients`, throws
  /// config_error if a covered parameter is not a leaf and so has no `.grad`.
  std::vector<quadratic_item> match(const parameter_list& model, bool gradients = false) const {
    std::vector<quadratic_item> items;
    items.reserve(model.size());
    pair(model, entries_, [&](const std::string& name, const at::Tensor& tensor, entry& e) {
      if (gradients) check_has_gradient(name, tensor);
      if (tensor.requires_grad()) items.push_back(item_of(name, tensor, e));
    });
    return items;
  }

  static at::TensorOptions options_of(const std::vector<quadratic_item>& items) {
    if (items.empty()) return {};
    const at::Tensor& theta = items.front().theta;
    return theta.options()
        .dtype(theta.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)
        .requires_grad(false);
  }
};

}  // namespace detail
}  // namespace retain
