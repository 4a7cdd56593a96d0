// SPDX-License-Identifier: MIT
// Anchors by parameter name: what a penalty pulls towards, how strongly for each weight, their
// match against a model, and their state.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/finite.hpp>
#include <retain/base/text.hpp>
#include <retain/core/leaf.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>

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

/// Multiplies the strength of the parameters that `pattern` covers, by their names or that of a
/// module they lie in (`*` any run of characters, `?` any one): "encoder" is all of
/// "encoder.0.weight", "encoder.0.bias" and so on. config_error for a pattern that covers nothing,
/// and for a negative scale.
struct group_scale {
  std::string pattern;
  double scale = 1.0;
};

namespace detail {

class anchor_map {
 public:
  /// Whether a parameter of this name is penalised while it is trainable.
  bool covers(const std::string& name) const { return entries_.count(name) != 0; }

  /// The importances by name, as copies; none where every weight counts 1.
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
    bool trainable = true;  // whether the parameter had a gradient when the penalty was made
    // what the penalty is at the anchor, before scale and strength: several tasks in one quadratic
    double constant = 0.0;
    bool finite = true;  // whether the anchor is; a frozen parameter's may be anything
  };
  using entry_map = std::map<std::string, entry>;

  /// The anchors of a model's parameters that no pattern excludes: its own values, or `anchors` if
  /// given. Throws config_error for a group pattern that matches nothing, and shape_error or
  /// state_error if the two do not belong together.
  anchor_map(const char* kind, std::vector<std::string> exclude,
             const std::vector<group_scale>& groups, const parameter_list& model,
             const parameter_list* anchors)
      : kind_(kind), exclude_(std::move(exclude)) {
    const at::NoGradGuard no_grad;
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
    for (const auto& group : groups)
      if (!used(group.pattern))
        throw config_error(
            concat(kind_, ": the group pattern '", group.pattern, "' matches no parameter"));
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

  /// The anchors that a state holds. Throws state_error or shape_error if they are not those of
  /// these parameters.
  entry_map loaded_anchors(const state& in, const std::string& prefix) const {
    auto loaded = entries_;
    for (auto& [name, e] : loaded) {
      replace(e.anchor, in.tensor(prefix + "anchor." + name), name, "anchor");
      check_anchor("the saved anchor of", name, e, e.trainable);
      const std::string importance = prefix + "importance." + name,
                        constant = prefix + "constant." + name;
      // A parameter that was frozen at first has an importance from the task on that it is trained
      // in.
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

  /// What every anchor is held to, whether it comes from a model, a list or a state: that of a
  /// parameter which is trained is finite.
  void check_anchor(const char* what, const std::string& name, entry& e, bool trained) const {
    e.finite = all_finite(e.anchor);
    if (trained && !e.finite)
      throw state_error(concat(kind_, ": ", what, " '", name,
                               "' holds a value that is not finite, which a penalty would pull "
                               "towards: take it from a model "
                               "that is whole, or exclude it by pattern"));
  }

  void check_may_pull(const std::string& name, const entry& e) const {
    if (!e.finite)
      throw state_error(
          concat(kind_, ": the parameter '", name,
                 "' was frozen and held a value that is not finite when its anchor was taken, and "
                 "is trained "
                 "now: make the penalty from the model as it is, or exclude it by pattern"));
  }

  void check_constant(const std::string& name, const entry& e) const {
    if (!(e.constant >= 0.0) || !std::isfinite(e.constant))
      throw state_error(concat(kind_, ": the constant of '", name, "' is ", e.constant,
                               ": it must be finite and not negative"));
  }

  /// Throws for a tensor without a `.grad` of its own.
  void check_has_gradient(const std::string& name, const at::Tensor& tensor) const {
    check_leaf(kind_, name, tensor,
               ", or take loss(), through which the gradient flows on; where a layer has grown, "
               "retain::grown_importance(importance, "
               "model) leaves its new rows free");
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
                 ": look for NaN in the policy's outputs on the data it was estimated from"));
  }

  /// The importance in the type and memory order that the fused pass reads: as the parameter, in
  /// float for half types.
  static at::Tensor laid_out_like(const at::Tensor& anchor, const at::Tensor& importance) {
    const bool reduced = anchor.scalar_type() == at::kHalf || anchor.scalar_type() == at::kBFloat16;
    auto result =
        at::empty_like(anchor, anchor.options().dtype(reduced ? at::kFloat : anchor.scalar_type()));
    return result.copy_(importance);
  }

  /// Visits (name, tensor, entry) for every parameter of the model that has an anchor. Throws
  /// unless the names are the same on both sides and the shapes fit.
  template <class Visit>
  void pair(const parameter_list& model, entry_map& entries, Visit visit) const {
    std::size_t found = 0;
    for (const auto& [name, tensor] : model) {
      const auto position = entries.find(name);
      if (position == entries.end()) {
        if (excluded(name) || !tensor.requires_grad()) continue;
        throw state_error(concat(kind_, ": the model's parameter '", name, "' ",
                                 shape_text(tensor.sizes()),
                                 " has no anchor; it was not in the model this penalty was made "
                                 "from: exclude it by pattern"));
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
                                   "pattern when the penalty is made"));
      }
  }

  /// The anchor follows a model that was moved to another device or type, once.
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
                               shape_text(saved.sizes()), ", the model's is ",
                               shape_text(current.sizes()),
                               ": the state belongs to another network"));
    if (current.scalar_type() != saved.scalar_type())
      throw state_error(concat(kind_, ": the saved ", what, " of '", name, "' is ", saved.dtype(),
                               ", the model's is ", current.dtype()));
    current = at::empty_like(current).copy_(saved);
  }

  void check_shape(const std::string& name, const at::Tensor& tensor, const entry& e) const {
    if (tensor.sizes() != e.anchor.sizes())
      throw shape_error(concat(kind_, ": the model's parameter '", name, "' has shape ",
                               shape_text(tensor.sizes()), ", its anchor ",
                               shape_text(e.anchor.sizes()),
                               ": exclude it by pattern, or make the penalty from this model"));
  }

  const char* kind_;
  std::vector<std::string> exclude_;
  // mutable: anchors follow a model that is moved to another device or type
  mutable entry_map entries_;
  bool needs_importance_ = false;

 private:
  void set_anchors(const parameter_list& anchors) {
    std::map<std::string, at::Tensor> given;
    for (const auto& [name, values] : anchors) {
      if (excluded(name)) continue;
      if (!covers(name))
        throw state_error(concat(kind_, ": the anchor has '", name, "' ",
                                 shape_text(values.sizes()),
                                 ", which the model does not have: exclude it by pattern, or take "
                                 "the anchor of this model"));
      given[name] = values;
    }
    for (auto& [name, e] : entries_) {
      const at::Tensor values = given[name];
      if (!values.defined())
        throw state_error(concat(
            kind_, ": the model's parameter '", name, "' ", shape_text(e.anchor.sizes()),
            " is missing in the anchor: exclude it by pattern, or take the anchor of this model"));
      if (values.sizes() != e.anchor.sizes())
        throw shape_error(concat(kind_, ": the anchor of '", name, "' has shape ",
                                 shape_text(values.sizes()), ", the parameter ",
                                 shape_text(e.anchor.sizes()), ": take the anchor of this model"));
      e.anchor = at::empty_like(e.anchor).copy_(values);
    }
  }

  bool used(const std::string& pattern) const {
    for (const auto& [name, e] : entries_)
      if (detail::covers(pattern, name)) return true;
    return false;
  }
};

}  // namespace detail
}  // namespace retain
