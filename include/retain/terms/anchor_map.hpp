// SPDX-License-Identifier: MIT
// What all weight terms have in common: anchors by parameter name and the importance of each
// weight, their match with a model, and their state.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/finite.hpp>
#include <retain/base/text.hpp>
#include <retain/core/leaf.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/patterns.hpp>
#include <retain/core/state.hpp>
#include <retain/kernels/quadratic.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain {

/// Multiplies the strength of all parameters that `pattern` covers. A pattern matches the name of a
/// parameter or of a module that contains it; `*` stands for any characters, `?` for one character.
/// For example, "encoder" covers "encoder.0.weight", "encoder.0.bias" and so on. Penalties throw
/// config_error if a pattern covers nothing or if the scale is negative or not finite.
struct group_scale {
  std::string pattern;
  double scale = 1.0;
};

namespace detail {

class anchor_map {
 public:
  /// Whether a parameter of this name is penalized while it is trainable.
  bool covers(const std::string& name) const { return entries_.count(name) != 0; }

  /// Returns copies of the importances by name. The list is empty if every weight has importance 1.
  parameter_list importance() const {
    parameter_list list;
    for (const auto& [name, e] : entries_)
      if (e.importance.defined()) list.push_back({name, e.importance.clone()});
    return list;
  }

 protected:
  struct entry {
    at::Tensor anchor;
    at::Tensor importance;  // undefined: 1 everywhere
    double scale = 1.0;
    bool trainable = true;  // whether the parameter was trainable when the penalty was constructed
    // the value at the anchor, before scale and strength; not 0 if one quadratic holds several
    // tasks
    double constant = 0.0;
    bool finite = true;  // whether the anchor is finite; it need not be for a frozen parameter
  };
  using entry_map = std::map<std::string, entry>;

  /// Creates the anchors of a model's parameters that no pattern excludes. The anchors are
  /// `anchors` if given, else the parameters' current values. Throws config_error if a pattern
  /// matches nothing or a scale is invalid. An exclude pattern may also match a name of `anchors`
  /// or of `also`, which the model does not have. Throws shape_error or state_error if `anchors` do
  /// not fit the model or an anchor of a trained parameter is not finite.
  anchor_map(const char* kind, std::vector<std::string> exclude,
             const std::vector<group_scale>& groups, const parameter_list& model,
             const parameter_list* anchors, const parameter_list& also = {})
      : kind_(kind), exclude_(std::move(exclude)) {
    const at::NoGradGuard no_grad;
    check_patterns(kind_, "exclude pattern", exclude_, model, anchors ? *anchors : also);
    for (const auto& [name, tensor] : model) {
      if (excluded(name)) continue;
      entry e{tensor.detach().clone(), {}, 1.0, tensor.requires_grad(), 0.0, true};
      for (const auto& group : groups)
        if (detail::covers(group.pattern, name)) e.scale *= group.scale;
      if (!(e.scale >= 0.0) || !std::isfinite(e.scale))
        throw config_error(concat(kind_, ": the scale of '", name,
                                  "' must be finite and not negative, got ", e.scale));
      entries_.emplace(name, std::move(e));
    }
    std::vector<std::string> names;
    for (const auto& [name, e] : entries_) names.push_back(name);
    for (const auto& group : groups) check_patterns(kind_, "group pattern", {group.pattern}, names);
    if (anchors) set_anchors(*anchors);
    for (auto& [name, e] : entries_)
      check_anchor(anchors ? "the anchor of" : "the model's parameter", name, e,
                   anchors || e.trainable);
  }

  void save_anchors(state& out, const std::string& prefix) const {
    for (const auto& [name, e] : entries_) {
      out.set(prefix + "anchor." + name, e.anchor);
      if (e.importance.defined()) out.set(prefix + "importance." + name, e.importance);
      if (e.constant != 0.0) out.set(prefix + "constant." + name, e.constant);
    }
  }

  /// Returns the anchors of a saved state. Throws state_error or shape_error if they do not fit
  /// these parameters.
  entry_map loaded_anchors(const state& in, const std::string& prefix) const {
    auto loaded = entries_;
    for (auto& [name, e] : loaded) {
      replace(e.anchor, in.tensor(prefix + "anchor." + name), name, "anchor");
      check_anchor("the saved anchor of", name, e, e.trainable);
      const std::string importance = prefix + "importance." + name,
                        constant = prefix + "constant." + name;
      // A parameter that was frozen at construction gets its importance in the first task that
      // trains it.
      if (needs_importance_ && !e.trainable && !in.contains(importance))
        e.importance = at::Tensor();
      else if (needs_importance_ && !e.importance.defined())
        e.importance = laid_out_like(e.anchor, e.anchor);
      if (e.importance.defined()) {
        replace(e.importance, in.tensor(importance), name, "importance");
        check_importance(name, e.importance);
      }
      e.constant = in.contains(constant) ? in.number(constant) : 0.0;
      check_constant(name, e);
    }
    return loaded;
  }

  bool excluded(const std::string& name) const { return covered(exclude_, name); }

  /// Checks an anchor from a model, a list or a state. Throws state_error if the parameter is
  /// trained and the anchor is not finite.
  void check_anchor(const char* what, const std::string& name, entry& e, bool trained) const {
    e.finite = all_finite(e.anchor);
    if (trained && !e.finite)
      throw state_error(concat(kind_, ": ", what, " '", name,
                               "' holds a value that is not finite: take it from a model with "
                               "finite weights, or exclude it by pattern"));
  }

  void check_may_pull(const std::string& name, const entry& e) const {
    if (!e.finite)
      throw state_error(
          concat(kind_, ": the parameter '", name,
                 "' is trained, but it was frozen and not finite when the penalty was constructed: "
                 "construct the penalty from the current model, or exclude it by pattern"));
  }

  void check_constant(const std::string& name, const entry& e) const {
    if (!(e.constant >= 0.0) || !std::isfinite(e.constant))
      throw state_error(concat(kind_, ": the constant of '", name, "' is ", e.constant,
                               ": it must be finite and not negative"));
  }

  /// Throws config_error if the tensor is not a leaf and so has no `.grad`.
  void check_has_gradient(const std::string& name, const at::Tensor& tensor) const {
    check_leaf(kind_, name, tensor,
               ", or use loss(), whose gradient reaches the other tensors; for a layer that has "
               "grown, use retain::grown_importance(importance, model), which does not penalize "
               "its new rows");
  }

  void check_importance(const std::string& name, const at::Tensor& importance) const {
    if (importance.numel() == 0) return;
    const double least = importance.min().item<double>(),
                 sum = importance.sum(at::kDouble).item<double>();
    if (!(least >= 0.0) || !std::isfinite(sum))
      throw state_error(
          concat(kind_, ": the importance of '", name, "' ",
                 !std::isfinite(sum) ? "holds a value that is not finite"
                                     : concat("holds a negative value (", least, ")"),
                 ": look for NaN in the policy's outputs on the data of the estimate"));
  }

  /// Copies the importance to the memory order and type that the fused pass reads: those of the
  /// parameter, but float for half types.
  static at::Tensor laid_out_like(const at::Tensor& anchor, const at::Tensor& importance) {
    const bool reduced = anchor.scalar_type() == at::kHalf || anchor.scalar_type() == at::kBFloat16;
    auto result =
        at::empty_like(anchor, anchor.options().dtype(reduced ? at::kFloat : anchor.scalar_type()));
    return result.copy_(importance);
  }

  /// Calls `visit` with (name, tensor, entry) for every parameter of the model that has an anchor.
  /// Throws state_error if a trainable parameter has no anchor or an anchor has no parameter.
  /// Throws shape_error if a shape differs.
  template <class Visit>
  void pair(const parameter_list& model, entry_map& entries, Visit visit) const {
    std::size_t found = 0;
    for (const auto& [name, tensor] : model) {
      const auto position = entries.find(name);
      if (position == entries.end()) {
        if (excluded(name) || !tensor.requires_grad()) continue;
        throw state_error(concat(kind_, ": the model's parameter '", name, "' ",
                                 shape_text(tensor.sizes()),
                                 " has no anchor, because the penalty was constructed from a model "
                                 "without it: construct the penalty from this model, and exclude "
                                 "the parameter by pattern"));
      }
      ++found;
      check_shape(name, tensor, position->second);
      visit(name, tensor, position->second);
    }
    if (found != entries.size())
      for (const auto& [name, e] : entries) {
        const bool present =
            std::any_of(model.begin(), model.end(), [&](const auto& p) { return p.name == name; });
        if (!present)
          throw state_error(concat(kind_, ": the parameter '", name, "' ",
                                   shape_text(e.anchor.sizes()),
                                   " has an anchor but is missing in the model: exclude it by "
                                   "pattern when the penalty is constructed"));
      }
  }

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

  /// Converts an anchor to the device and type of the parameter, if the model was moved.
  static void follow(entry& e, const at::Tensor& theta) {
    if (e.anchor.device() == theta.device() && e.anchor.scalar_type() == theta.scalar_type())
      return;
    e.anchor = e.anchor.to(theta.options().requires_grad(false));
    if (e.importance.defined())
      e.importance = laid_out_like(e.anchor, e.importance.to(theta.device()));
  }

  void replace(at::Tensor& current, const at::Tensor& saved, const std::string& name,
               const char* what) const {
    if (current.sizes() != saved.sizes())
      throw shape_error(concat(kind_, ": the saved ", what, " of '", name, "' has shape ",
                               shape_text(saved.sizes()), ", but the model's has shape ",
                               shape_text(current.sizes()),
                               ": the state belongs to another network"));
    if (current.scalar_type() != saved.scalar_type())
      throw state_error(concat(kind_, ": the saved ", what, " of '", name, "' is ", saved.dtype(),
                               ", but the model's is ", current.dtype()));
    current = at::empty_like(current).copy_(saved);
  }

  void check_shape(const std::string& name, const at::Tensor& tensor, const entry& e) const {
    if (tensor.sizes() != e.anchor.sizes())
      throw shape_error(concat(kind_, ": the model's parameter '", name, "' has shape ",
                               shape_text(tensor.sizes()), ", but its anchor has shape ",
                               shape_text(e.anchor.sizes()),
                               ": exclude it by pattern, or construct the penalty from this "
                               "model"));
  }

  const char* kind_;
  std::vector<std::string> exclude_;
  // mutable: anchors are converted when the model is moved to another device or type
  mutable entry_map entries_;
  bool needs_importance_ = false;

 private:
  void set_anchors(const parameter_list& anchors) {
    std::map<std::string, at::Tensor> given;
    for (const auto& [name, values] : anchors) {
      if (excluded(name)) continue;
      if (!covers(name))
        throw state_error(concat(kind_, ": there is an anchor for '", name, "' ",
                                 shape_text(values.sizes()),
                                 ", which the model does not have: exclude it by pattern, or use "
                                 "anchors of this model"));
      given[name] = values;
    }
    for (auto& [name, e] : entries_) {
      const at::Tensor values = given[name];
      if (!values.defined())
        throw state_error(
            concat(kind_, ": the model's parameter '", name, "' ", shape_text(e.anchor.sizes()),
                   " has no anchor: exclude it by pattern, or use anchors of this model"));
      if (values.sizes() != e.anchor.sizes())
        throw shape_error(concat(kind_, ": the anchor of '", name, "' has shape ",
                                 shape_text(values.sizes()), ", but the parameter has shape ",
                                 shape_text(e.anchor.sizes()), ": use anchors of this model"));
      e.anchor = at::empty_like(e.anchor).copy_(values);
    }
  }
};

}  // namespace detail
}  // namespace retain
