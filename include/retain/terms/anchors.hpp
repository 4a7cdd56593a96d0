// SPDX-License-Identifier: MIT
// A part for weight terms of your own: the anchors, their match with a model, and the fused pass.
#pragma once

#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/terms/anchor_map.hpp>
#include <retain/terms/matched_quadratic.hpp>

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct anchor_options {
  /// name patterns of parameters without anchor, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; if several patterns match, their product
  std::vector<group_scale> groups = {};
};

/// A trainable parameter of a model with its anchor. Members: `theta`, `anchor`, `importance`
/// (undefined: 1 for every weight; float for half types), `scale` (the product of the group scales)
/// and `constant` (the value at the anchor, before scale and strength; 0 here).
using anchored_parameter = detail::quadratic_item;

/// The anchors theta* of a weight term, by parameter name. A weight term of your own holds them as
/// a member. They are copies of the parameters. They are matched with a model by name and shape,
/// follow a model that is moved to another device or type, and are saved and loaded.
///
///     anchors anchors_{"my_term", *policy, {.exclude = {"value_head.*"}}};
///     for (const auto& p : anchors_.match(*policy))
///       sum = sum + p.scale * (p.theta - p.anchor).abs().sum();
///
/// A tied weight has one anchor. A frozen parameter keeps its anchor and is left out while it is
/// frozen. A parameter without an anchor may be in the model only if it is excluded or frozen.
class anchors : detail::anchor_map {
 public:
  using anchor_map::covers;
  using anchor_map::importance;

  /// Copies the parameters of a model that no pattern excludes. `who` is the start of every error
  /// text and must outlive this object, as a literal does. Throws config_error for a pattern that
  /// matches nothing, and for a scale that is negative or not finite. Throws state_error for a
  /// trainable parameter that is not finite.
  template <parameter_source M>
  anchors(const char* who, const M& model, anchor_options options = {})
      : anchor_map(who, std::move(options.exclude), options.groups, parameters(model), nullptr) {}
  /// Uses copies of `values`, by name, instead of the current parameters of the model. Throws
  /// state_error for a missing or extra name and for a value that is not finite. Throws shape_error
  /// if a shape differs.
  template <parameter_source M>
  anchors(const char* who, const M& model, const parameter_list& values,
          anchor_options options = {})
      : anchor_map(who, std::move(options.exclude), options.groups, parameters(model), &values) {}

  /// Returns the trainable parameters of the model with their anchors, which are on the device and
  /// in the type of the model. Throws state_error or shape_error if the model does not fit.
  template <parameter_source M>
  std::vector<anchored_parameter> match(const M& model) const {
    return anchor_map::match(parameters(model));
  }

  /// Gives every parameter with an anchor an importance F of the parameter's shape. Throws
  /// state_error for a missing or extra name and for a value that is negative or not finite. Throws
  /// shape_error if a shape differs. When it throws, nothing has changed.
  void set_importance(const parameter_list& values) {
    auto next = entries_;
    std::size_t given = 0;
    for (const auto& [name, value] : values) {
      if (excluded(name)) continue;
      const auto position = next.find(name);
      if (position == next.end())
        throw state_error(detail::concat(kind_, ": there is an importance for '", name, "' ",
                                         detail::shape_text(value.sizes()),
                                         ", which has no anchor: exclude it by pattern"));
      check_shape(name, value, position->second);
      check_importance(name, value);
      position->second.importance =
          laid_out_like(position->second.anchor, value.to(position->second.anchor.device()));
      ++given;
    }
    if (given != next.size())
      throw state_error(detail::concat(kind_, ": ", given, " importances were given for ",
                                       next.size(), " parameters: every anchor needs one"));
    entries_ = std::move(next);
    needs_importance_ = true;
  }

  /// Returns c * sum_i F_i (theta_i - theta*_i)^2, a 0-dim tensor in the graph of the parameters.
  /// Its backward pass is one pass over memory. At strength 0 it is a zero without a graph.
  template <parameter_source M>
  at::Tensor quadratic_loss(const M& model, double strength) const {
    return detail::matched_loss(match(model), strength);
  }
  /// Adds the gradient of quadratic_loss, 2 c F_i (theta_i - theta*_i), to every `.grad` in one
  /// fused pass without autograd. Returns the loss as a 0-dim float64 tensor. Throws config_error
  /// for a tensor that is computed from others, because no optimizer reads its `.grad`.
  template <parameter_source M>
  at::Tensor add_quadratic_gradient(const M& model, double strength) const {
    return detail::add_matched_gradient(anchor_map::match(parameters(model), true), strength);
  }

  void save_state(state& out, const std::string& prefix) const { save_anchors(out, prefix); }
  /// Throws state_error or shape_error, and changes nothing, if the saved anchors do not fit.
  void load_state(const state& in, const std::string& prefix) {
    entries_ = loaded_anchors(in, prefix);
  }
};

}  // namespace retain
