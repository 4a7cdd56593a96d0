// SPDX-License-Identifier: MIT
// The common base of penalties with a given importance. It checks the importance and combines
// several tasks into one quadratic penalty.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/strength_schedule.hpp>
#include <retain/terms/quadratic_penalty.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain {
namespace detail {

inline constexpr double no_clip = std::numeric_limits<double>::infinity();

/// An estimate that has its importances in a member `values`, such as retain::fisher.
template <class T>
concept holds_importance = requires(const T& estimate) {
  { estimate.values } -> std::convertible_to<const parameter_list&>;
};

}  // namespace detail

/// Extends an importance to a model whose layers have grown. The importance of new rows and columns
/// is 0, so they get no penalty. In every dimension the new entries must come after the old ones.
/// Importances of parameters that have not grown, and of names that the model does not have, are
/// copied.
///
///     // grown->head.weight [6, 8] has the 4 rows of the old weight, then 2 new rows
///     ewc keep{*grown, grown_importance(fisher, *grown), {.strength = 500.0}};
///
/// Returns new tensors by name. Throws shape_error if a parameter has another number of dimensions
/// or has become smaller.
template <parameter_source M>
parameter_list grown_importance(const parameter_list& importance, const M& model) {
  const at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> present;
  for (const auto& [name, tensor] : parameters(model)) present.emplace(name, tensor);
  parameter_list list;
  for (const auto& [name, values] : importance) {
    const auto found = present.find(name);
    const at::IntArrayRef old = values.sizes(),
                          now = found == present.end() ? old : found->second.sizes();
    bool fits = old.size() == now.size();
    for (std::size_t d = 0; fits && d < old.size(); ++d) fits = old[d] <= now[d];
    if (!fits)
      throw shape_error(detail::concat(
          "grown_importance: the importance of '", name, "' has shape ", detail::shape_text(old),
          ", but the parameter has the shape ", detail::shape_text(now),
          ", which is not larger: estimate the importance for this model, or exclude it by "
          "pattern"));
    at::Tensor grown = at::zeros(now, values.options().requires_grad(false)), part = grown;
    for (std::size_t d = 0; d < old.size(); ++d)
      part = part.narrow(static_cast<std::int64_t>(d), 0, old[d]);
    part.copy_(values);
    list.push_back({name, grown});
  }
  return list;
}
template <parameter_source M, detail::holds_importance Estimate>
parameter_list grown_importance(const Estimate& estimate, const M& model) {
  return grown_importance(estimate.values, model);
}

namespace detail {

class importance_penalty : public quadratic_penalty {
 public:
  /// Adds a task to the penalty, with the current weights of the model as its anchor. Loss and
  /// gradient become the sums over all tasks. A sum of quadratic functions is a quadratic function.
  /// Therefore the penalty stores only one anchor, one importance and one constant, for any number
  /// of tasks:
  ///
  ///     F <- F + F_new
  ///     theta* <- (F theta* + F_new theta) / (F + F_new)
  ///     constant += sum F F_new / (F + F_new) (theta* - theta)^2, with the old F and theta*
  ///
  /// The computation uses float64, and the results are stored in the parameters' type. A weight
  /// with importance 0 in all tasks keeps its anchor and gets no penalty. Exclusion, groups, floor
  /// and clip are those of the constructor. Throws the exceptions of the constructor. When it
  /// throws, nothing has changed.
  template <parameter_source M>
  void remember(const M& model, const parameter_list& importance) {
    each_new(parameters(model), importance,
             [](entry& e, const at::Tensor& theta, const at::Tensor& added) {
               const at::Tensor from = e.anchor.to(at::kDouble), to = theta.to(at::kDouble);
               const at::Tensor before = e.importance.defined() ? e.importance.to(at::kDouble)
                                                                : at::zeros_like(from),
                                total = before + added;
               const at::Tensor share = (added / total).masked_fill(total == 0, 0);
               const at::Tensor apart = to - from;
               e.constant += (before * share * apart.square()).sum().item<double>();
               // If only one side has importance, the anchor is bit-identical to that side.
               e.anchor =
                   at::empty_like(e.anchor).copy_(at::where(share == 1, to, from + share * apart));
               e.importance = laid_out_like(e.anchor, total);
             });
  }
  template <parameter_source M, holds_importance Estimate>
  void remember(const M& model, const Estimate& estimate) {
    remember(model, estimate.values);
  }

  /// Moves to the next task, with one running importance and the newest anchor ("online EWC").
  ///
  ///     F <- decay F + F_new
  ///     theta* <- the current weights of the model
  ///
  /// `decay` is in [0, 1]; with 0 only the new task is kept. Floor and clip apply to F_new. If
  /// `importance` has no entry for a frozen parameter, its F_new is 0. Everything else is as in
  /// `remember`.
  ///
  /// Paper: Schwarz et al. 2018, arXiv 1805.06370.
  template <parameter_source M>
  void advance(const M& model, const parameter_list& importance, double decay) {
    if (!(decay >= 0.0) || !(decay <= 1.0))
      throw config_error(concat(kind_, ": decay must lie in [0, 1], got ", decay));
    each_new(parameters(model), importance,
             [&](entry& e, const at::Tensor& theta, const at::Tensor& added) {
               e.anchor = at::empty_like(e.anchor).copy_(theta);
               e.importance = laid_out_like(
                   e.anchor,
                   e.importance.defined() ? e.importance.to(at::kDouble) * decay + added : added);
               e.constant = 0.0;
             });
  }
  template <parameter_source M, holds_importance Estimate>
  void advance(const M& model, const Estimate& estimate, double decay) {
    advance(model, estimate.values, decay);
  }

 protected:
  importance_penalty(const char* kind, strength_schedule strength, std::vector<std::string> exclude,
                     const std::vector<group_scale>& groups, double floor, double clip,
                     const parameter_list& model, const parameter_list& importance)
      : quadratic_penalty(kind, std::move(strength), std::move(exclude), groups, model, nullptr,
                          importance),
        floor_(floor),
        clip_(clip) {
    if (!(floor_ >= 0.0) || !std::isfinite(floor_))
      throw config_error(concat(kind_, ": floor must be finite and not negative, got ", floor_));
    if (!(clip_ > 0.0) || !(clip_ >= floor_))
      throw config_error(concat(kind_, ": clip must be positive and not below the floor ", floor_,
                                ", got ", clip_));
    needs_importance_ = true;
    each_new(model, importance, [](entry& e, const at::Tensor&, const at::Tensor& added) {
      e.importance = laid_out_like(e.anchor, added);
    });
    if (all_zero(importance_views()))
      throw state_error(concat(kind_, ": every importance is 0, so the penalty holds nothing: "
                                      "estimate the importance for this model and this data, or "
                                      "set a floor"));
  }

 private:
  parameter_list importance_views() const {
    parameter_list list;
    for (const auto& [name, e] : entries_)
      if (e.importance.defined()) list.push_back({name, e.importance});
    return list;
  }

  /// Checks a model and an importance. Then calls change(entry, theta, importance in float64) for
  /// every parameter that has an importance. The changes are made on a copy, which replaces the
  /// entries of the penalty if nothing throws. If a frozen parameter has an old importance but no
  /// new one, the new one is 0.
  template <class Change>
  void each_new(const parameter_list& model, const parameter_list& importance, Change change) {
    const at::NoGradGuard no_grad;
    const auto given = checked(importance);
    auto next = entries_;
    pair(model, next, [&](const std::string& name, const at::Tensor& tensor, entry& e) {
      const auto found = given.find(name);
      if (found == given.end() && tensor.requires_grad())
        throw state_error(
            concat(kind_, ": the model's parameter '", name, "' ", shape_text(e.anchor.sizes()),
                   " has no importance: estimate one for this model, or exclude it by pattern"));
      if (found == given.end() && !e.importance.defined()) return;
      follow(e, tensor);
      const at::Tensor anchor = e.anchor;
      const at::Tensor added =
          found == given.end()
              ? at::zeros_like(tensor, tensor.options().dtype(at::kDouble).requires_grad(false))
              : found->second.to(tensor.device(), at::kDouble).clamp(floor_, clip_);
      change(e, tensor.detach(), added);
      check_importance(name, e.importance);
      if (!e.anchor.is_same(anchor))
        check_anchor("the model's parameter", name, e, tensor.requires_grad());
      check_constant(name, e);
    });
    entries_ = std::move(next);
  }

  std::map<std::string, at::Tensor> checked(const parameter_list& importance) const {
    std::map<std::string, at::Tensor> given;
    for (const auto& [name, values] : importance) {
      if (excluded(name)) continue;
      const auto position = entries_.find(name);
      if (position == entries_.end())
        throw state_error(concat(kind_, ": the importance has '", name, "' ",
                                 shape_text(values.sizes()),
                                 ", which the model does not have: exclude it by pattern, or "
                                 "estimate the importance for this model"));
      if (values.sizes() != position->second.anchor.sizes())
        throw shape_error(concat(kind_, ": the importance of '", name, "' has shape ",
                                 shape_text(values.sizes()), ", but the parameter has ",
                                 shape_text(position->second.anchor.sizes()),
                                 ": estimate the importance for this model"));
      check_importance(name, values);
      given[name] = values;
    }
    return given;
  }

  double floor_, clip_;
};

}  // namespace detail
}  // namespace retain
