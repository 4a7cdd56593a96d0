// SPDX-License-Identifier: MIT
#pragma once

#include <retain/importance/left_out.hpp>
#include <retain/kfac.hpp>
#include <retain/terms/kronecker.hpp>
#include <retain/terms/quadratic_penalty.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct kfac_ewc_options {
  strength_schedule strength = 1.0;  ///< c in the formula; comparable with the strength of ewc
  /// name patterns of parameters without penalty, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; if several patterns match, their product
  std::vector<group_scale> groups = {};
  /// added to the diagonal of a layer's Fisher; distributed over both factors
  double damping = 0.0;
};

/// Elastic weight consolidation with a block-diagonal Fisher in Kronecker factors, one block per
/// Linear layer. (The Fisher of ewc is diagonal.)
///
///     loss = c * sum_l tr(G_l D_l A_l D_l^T),   gradient = 2 c G_l D_l A_l
///     D_l = [W_l - W*_l, b_l - b*_l]
///
/// A and G come from `estimate_kfac`. The formula has no factor 1/2, unlike the paper. The penalty
/// is small for changes of several weights whose effects cancel each other. The diagonal Fisher of
/// ewc ignores such a cancellation. A scale s of `groups` multiplies the difference D of the
/// parameter by sqrt(s).
///
///     kfac_ewc keep{*policy, estimate_kfac(*policy, states, forward), {.strength = 500.0}};
///
/// The factors must be second moments. They are made symmetric. A factor with a negative eigenvalue
/// beyond rounding errors is rejected. For a frozen parameter D is 0.
///
/// Memory: one copy of the parameters, plus (in + 1)^2 + out^2 numbers per layer. Time: two matrix
/// products per layer with out (in + 1)^2 + out^2 (in + 1) multiplications; `add_gradient` does not
/// use autograd.
///
/// Paper: Ritter et al. 2018, arXiv 1805.07810.
class kfac_ewc : detail::quadratic_penalty {
 public:
  static constexpr const char* name = "kfac_ewc";

  using quadratic_penalty::check;
  using quadratic_penalty::check_step;
  using quadratic_penalty::covers;
  using quadratic_penalty::observe;
  using quadratic_penalty::schedule;
  using quadratic_penalty::set_strength;
  using quadratic_penalty::step;
  using quadratic_penalty::strength;

  /// Also leaves out what `factors` left out. Throws state_error for a layer that the model does
  /// not have, for a trainable parameter that has no factors and is not excluded, and for a factor
  /// that is not a second moment. Throws shape_error for a factor of a wrong shape. Throws
  /// config_error for a damping that is negative or not finite.
  template <parameter_source M>
  kfac_ewc(const M& model, const kronecker_fisher& factors, kfac_ewc_options options = {})
      : quadratic_penalty(
            name, std::move(options.strength),
            detail::all_left_out(std::move(options.exclude), factors.exclude, parameters(model)),
            options.groups, parameters(model), nullptr, names_of(factors)) {
    if (!(options.damping >= 0.0) || !std::isfinite(options.damping))
      throw config_error(detail::concat("kfac_ewc: damping must be finite and not negative, got ",
                                        options.damping));
    const at::NoGradGuard no_grad;
    for (const auto& given : factors.layers) take(given, options.damping);
    for (const auto& [key, e] : entries_)
      if (e.trainable && position(key) == layers_.size())
        throw state_error(detail::concat(
            "kfac_ewc: the model's parameter '", key, "' ", detail::shape_text(e.anchor.sizes()),
            " has no Kronecker factors: exclude it by pattern, and use retain::ewc for it"));
  }

  /// Returns a 0-dim tensor in the graph, of the parameters' type (float for half types). Throws
  /// shape_error or state_error if the model does not match the penalty.
  template <parameter_source M>
  [[nodiscard]] at::Tensor loss(const M& model) const {
    const auto list = parameters(model);
    const auto present = matched(list);
    at::Tensor sum;
    for (std::size_t l = 0; l < layers_.size() && strength() != 0.0; ++l) {
      const at::Tensor moved = movement(l, present[l]);
      if (!moved.defined()) continue;
      const at::Tensor value = (layers_[l].outputs.mm(moved).mm(layers_[l].inputs) * moved).sum();
      sum = sum.defined() ? sum + value.to(sum.options()) : value;
    }
    return sum.defined() ? sum * strength() : at::zeros({}, options_of(list));
  }

  /// Adds the gradient of `loss` to the `.grad` of every trainable parameter, without autograd. If
  /// a `.grad` is undefined, creates it. Returns the value of the loss as a 0-dim float64 tensor.
  /// Throws the exceptions of `loss`. Throws config_error for a tensor that is computed from other
  /// tensors, because no optimizer reads its `.grad`. When it throws, no gradient has changed.
  template <parameter_source M>
  at::Tensor add_gradient(const M& model) const {
    const at::NoGradGuard no_grad;
    const auto list = parameters(model);
    const auto present = matched(list, true);
    at::Tensor sum;
    for (std::size_t l = 0; l < layers_.size() && strength() != 0.0; ++l) {
      const at::Tensor moved = movement(l, present[l]);
      if (!moved.defined()) continue;
      const at::Tensor pull = layers_[l].outputs.mm(moved).mm(layers_[l].inputs);
      const at::Tensor value = (pull * moved).sum(at::kDouble);
      sum = sum.defined() ? sum + value.to(sum.device()) : value;
      const std::int64_t in = layers_[l].in;
      if (present[l].weight.defined())
        add_to_gradient(present[l].weight, pull.narrow(1, 0, in), layers_[l].weight);
      if (present[l].bias.defined())
        add_to_gradient(present[l].bias, pull.select(1, in), layers_[l].bias);
    }
    return sum.defined() ? sum * strength() : at::zeros({}, options_of(list).dtype(at::kDouble));
  }

  /// Adds the gradient of `loss` for a single parameter, model[index], to `gradient`. The penalty
  /// must cover this parameter. `gradient` is a dense tensor of the parameter's shape.
  void add_gradient_of(const parameter_list& model, std::size_t index, at::Tensor& gradient) const {
    const at::NoGradGuard no_grad;
    const auto& [key, tensor] = model[index];
    const std::size_t l = position(key);
    if (l == layers_.size() || !tensor.requires_grad()) return;
    const layer& own = layers_[l];
    const at::Tensor moved = movement(
        l, {find(model, own.weight), own.bias.empty() ? at::Tensor() : find(model, own.bias)});
    const bool is_bias = key == own.bias;
    const at::Tensor columns = own.inputs.narrow(1, is_bias ? own.in : 0, is_bias ? 1 : own.in);
    if (gradient.layout() != at::kStrided) gradient = gradient.to_dense();
    gradient.add_(scaled(own.outputs.mm(moved.mm(columns)).reshape(tensor.sizes()), key)
                      .to(gradient.scalar_type()));
  }

  void save_state(state& out, const std::string& prefix) const {
    quadratic_penalty::save_state(out, prefix);
    for (const auto& l : layers_) {
      out.set(prefix + "inputs." + l.weight, l.inputs);
      out.set(prefix + "outputs." + l.weight, l.outputs);
    }
  }

  /// Throws state_error or shape_error and changes nothing if the saved parameters do not match
  /// this object's parameters.
  void load_state(const state& in, const std::string& prefix) {
    auto loaded = layers_;
    for (auto& l : loaded) {
      replace(l.inputs, in.tensor(prefix + "inputs." + l.weight), l.weight, "factor A");
      replace(l.outputs, in.tensor(prefix + "outputs." + l.weight), l.weight, "factor G");
      for (const auto& factor : {l.inputs, l.outputs})
        if (!detail::all_finite(factor))
          throw state_error(
              detail::concat("kfac_ewc: a saved factor of '", l.weight, "' is not finite"));
      detail::check_second_moment(
          l.inputs, detail::concat("kfac_ewc: the saved factor A of '", l.weight, "'"));
      detail::check_second_moment(
          l.outputs, detail::concat("kfac_ewc: the saved factor G of '", l.weight, "'"));
    }
    quadratic_penalty::load_state(in, prefix);
    layers_ = std::move(loaded);
  }

 private:
  struct layer {
    std::string weight, bias;
    std::int64_t out, in;
    at::Tensor inputs, outputs;  // in the type and on the device of the matrix products
  };
  /// The trainable parameters of a layer in a model. A parameter is undefined if the layer does not
  /// have it, or if it is frozen or excluded.
  struct pair_of_parameters {
    at::Tensor weight, bias;
  };

  static parameter_list names_of(const kronecker_fisher& factors) {
    parameter_list names;
    for (const auto& layer : factors.layers)
      for (const auto& key : {layer.weight, layer.bias})
        if (!key.empty()) names.push_back({key, {}});
    return names;
  }

  void take(const kronecker_layer& given, double damping) {
    const bool no_bias = given.bias.empty();
    if (excluded(given.weight) && (no_bias || excluded(given.bias))) return;
    for (const auto& key : {given.weight, given.bias})
      if (!key.empty() && !excluded(key) && !covers(key))
        throw state_error(
            detail::concat("kfac_ewc: the factors have '", key,
                           "', which the model does not have: exclude it by pattern, or estimate "
                           "the factors for this model"));
    const at::Tensor inputs = detail::second_moment(
        given.inputs, detail::concat("kfac_ewc: the factor A of '", given.weight, "'"));
    const at::Tensor outputs = detail::second_moment(
        given.outputs, detail::concat("kfac_ewc: the factor G of '", given.weight, "'"));
    const std::int64_t out = outputs.size(0), in = inputs.size(0) - (no_bias ? 0 : 1);
    const auto fits = [&](const std::string& key, at::IntArrayRef shape) {
      if (key.empty() || excluded(key) || entries_.at(key).anchor.sizes() == shape) return;
      throw shape_error(detail::concat("kfac_ewc: the factors of '", key, "' are for the shape ",
                                       detail::shape_text(shape), ", but the parameter has shape ",
                                       detail::shape_text(entries_.at(key).anchor.sizes()),
                                       ": estimate the factors for this model"));
    };
    fits(given.weight, {out, in});
    fits(given.bias, {out});
    detail::damp(inputs, outputs, damping);
    const auto options =
        working(entries_.at(excluded(given.weight) ? given.bias : given.weight).anchor);
    layers_.push_back({given.weight, given.bias, out, in, inputs.to(options), outputs.to(options)});
  }

  static at::TensorOptions working(const at::Tensor& theta) {
    return theta.options()
        .dtype(theta.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)
        .requires_grad(false);
  }
  static at::TensorOptions options_of(const parameter_list& model) {
    return model.empty() ? at::TensorOptions() : working(model.front().tensor);
  }

  /// Returns the index of the layer that has the parameter `key`, or layers_.size() if there is no
  /// such layer.
  std::size_t position(const std::string& key) const {
    std::size_t l = 0;
    while (l < layers_.size() && layers_[l].weight != key && layers_[l].bias != key) ++l;
    return l;
  }

  /// Returns a parameter of the model, or an undefined tensor if the parameter is frozen or not
  /// covered.
  at::Tensor find(const parameter_list& model, const std::string& key) const {
    if (!covers(key)) return {};
    for (const auto& [other, tensor] : model)
      if (other == key) return tensor.requires_grad() ? tensor : at::Tensor();
    return {};
  }

  std::vector<pair_of_parameters> matched(const parameter_list& model,
                                          bool gradients = false) const {
    std::vector<pair_of_parameters> present(layers_.size());
    pair(model, entries_, [&](const std::string& key, const at::Tensor& tensor, entry& e) {
      if (gradients) check_has_gradient(key, tensor);
      if (!tensor.requires_grad()) return;
      const std::size_t l = position(key);
      if (l == layers_.size())
        throw state_error(detail::concat(
            "kfac_ewc: the parameter '", key,
            "' was frozen when the factors were estimated, but is trainable in this model: "
            "unfreeze it before estimate_kfac, or exclude it by pattern"));
      check_may_pull(key, e);
      (key == layers_[l].bias ? present[l].bias : present[l].weight) = tensor;
    });
    return present;
  }

  /// Returns D of a layer, [out, in] or [out, in + 1], in the graph of the layer's parameters.
  /// Returns an undefined tensor if both parameters are undefined.
  at::Tensor movement(std::size_t index, const pair_of_parameters& present) const {
    layer& l = layers_[index];
    if (!present.weight.defined() && !present.bias.defined()) return {};
    const auto options = working(present.weight.defined() ? present.weight : present.bias);
    l.inputs = l.inputs.to(options);
    l.outputs = l.outputs.to(options);
    const auto moved = [&](const std::string& key, const at::Tensor& theta, at::IntArrayRef shape) {
      if (!theta.defined()) return at::zeros(shape, options);
      entry& e = entries_.at(key);
      follow(e, theta);
      return (theta.to(options.dtype()) - e.anchor.to(options.dtype())) * std::sqrt(e.scale);
    };
    const at::Tensor weight = moved(l.weight, present.weight, {l.out, l.in});
    return l.bias.empty() ? weight
                          : at::cat({weight, moved(l.bias, present.bias, {l.out}).unsqueeze(1)}, 1);
  }

  at::Tensor scaled(const at::Tensor& pull, const std::string& key) const {
    return pull * (2.0 * strength() * std::sqrt(entries_.at(key).scale));
  }

  void add_to_gradient(const at::Tensor& theta, const at::Tensor& pull,
                       const std::string& key) const {
    auto& gradient = theta.mutable_grad();
    if (!gradient.defined()) gradient = at::zeros_like(theta);
    if (gradient.layout() != at::kStrided) gradient = gradient.to_dense();
    gradient.add_(scaled(pull, key).to(gradient.scalar_type()));
  }

  // mutable: the factors are moved to the device and type of the model
  mutable std::vector<layer> layers_;
};

}  // namespace retain
