// SPDX-License-Identifier: MIT
#pragma once

#include <retain/kfac.hpp>
#include <retain/terms/kronecker.hpp>
#include <retain/terms/weight_penalty.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct kfac_ewc_options {
  strength_schedule strength = 1.0;  ///< c of the formula; comparable with that of ewc
  /// name patterns of parameters left free, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; of several that match, the product
  std::vector<group_scale> groups = {};
  /// added to a layer's Fisher along the diagonal, shared between its factors
  double damping = 0.0;
};

/// Elastic weight consolidation with a Fisher that is a block per Linear layer, in Kronecker
/// factors, where ewc's is a diagonal:
///
///     loss = c * sum_l tr(G_l D_l A_l D_l^T),   gradient = 2 c G_l D_l A_l,   D_l = [W_l - W*_l, b_l - b*_l]
///
/// (Ritter et al. 2018, arXiv 1805.07810, without their factor 1/2) with A and G from
/// `estimate_kfac`. Weights that make up for each other may move together; the same movement costs
/// what the diagonal says when they do not. A scale s of `groups` stands before a parameter's
/// movement as sqrt(s).
///
///     kfac_ewc keep{*policy, estimate_kfac(*policy, states, forward), {.strength = 500.0}};
///
/// The factors are taken as second moments: made symmetric, and refused where they have a negative
/// eigenvalue beyond rounding. A frozen parameter counts as not moved. Memory: one copy of the
/// parameters, and (in + 1)^2 + out^2 a layer; time: two products of matrices a layer, out (in +
/// 1)^2 + out^2 (in + 1) multiplications, without autograd in `add_gradient`.
class kfac_ewc : detail::weight_penalty {
 public:
  static constexpr const char* name = "kfac_ewc";

  using weight_penalty::check;
  using weight_penalty::check_step;
  using weight_penalty::covers;
  using weight_penalty::observe;
  using weight_penalty::step;
  using weight_penalty::strength;

  /// Throws state_error for a layer that the model does not have, a trainable parameter without
  /// factors that is not excluded and a factor that is no second moment, shape_error where a factor
  /// does not fit, config_error for a damping out of range.
  template <parameter_source M>
  kfac_ewc(const M& model, const kronecker_fisher& factors, kfac_ewc_options options = {})
      : weight_penalty(name, std::move(options.strength), std::move(options.exclude),
                       options.groups, parameters(model)) {
    if (!(options.damping >= 0.0) || !std::isfinite(options.damping))
      throw config_error(detail::concat("kfac_ewc: damping must be finite and not negative, got ",
                                        options.damping));
    const at::NoGradGuard no_grad;
    for (const auto& given : factors.layers) take(given, options.damping);
    for (const auto& [key, e] : entries_)
      if (e.trainable && position(key) == layers_.size())
        throw state_error(detail::concat(
            "kfac_ewc: the model's parameter '", key, "' ", detail::shape_text(e.anchor.sizes()),
            " has no Kronecker factors: exclude it by pattern, and keep it with retain::ewc"));
  }

  /// In the graph, a 0-dim tensor of the parameters' type (float for half types). Throws
  /// shape_error or state_error when the model does not fit.
  template <parameter_source M>
  at::Tensor loss(const M& model) const {
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

  /// Adds the gradient of `loss` to every trainable parameter's `.grad` without autograd, and
  /// returns the value as a 0-dim float64 tensor. A `.grad` that is undefined is made. Throws as
  /// `loss` does, and config_error for a tensor that is computed from another, whose `.grad` no
  /// optimiser reads; all of it before anything is written.
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

  /// Adds the gradient of `loss` for the one parameter model[index], which is covered, to
  /// `gradient`, a dense tensor of its shape.
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
    weight_penalty::save_state(out, prefix);
    for (const auto& l : layers_) {
      out.set(prefix + "inputs." + l.weight, l.inputs);
      out.set(prefix + "outputs." + l.weight, l.outputs);
    }
  }

  /// Throws state_error or shape_error and changes nothing when the saved parameters are not these.
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
    weight_penalty::load_state(in, prefix);
    layers_ = std::move(loaded);
  }

 private:
  struct layer {
    std::string weight, bias;
    std::int64_t out, in;
    at::Tensor inputs, outputs;  // in the type and on the device that the products are made in
  };
  /// A layer's trainable parameters in a model; undefined where there is none, it is frozen or
  /// excluded.
  struct pair_of_parameters {
    at::Tensor weight, bias;
  };

  void take(const kronecker_layer& given, double damping) {
    const bool no_bias = given.bias.empty();
    if (excluded(given.weight) && (no_bias || excluded(given.bias))) return;
    for (const auto& key : {given.weight, given.bias})
      if (!key.empty() && !excluded(key) && !covers(key))
        throw state_error(
            detail::concat("kfac_ewc: the factors have '", key,
                           "', which the model does not have: exclude it by pattern, or estimate "
                           "them for this model"));
    const at::Tensor inputs = detail::second_moment(
        given.inputs, detail::concat("kfac_ewc: the factor A of '", given.weight, "'"));
    const at::Tensor outputs = detail::second_moment(
        given.outputs, detail::concat("kfac_ewc: the factor G of '", given.weight, "'"));
    const std::int64_t out = outputs.size(0), in = inputs.size(0) - (no_bias ? 0 : 1);
    const auto fits = [&](const std::string& key, at::IntArrayRef shape) {
      if (key.empty() || excluded(key) || entries_.at(key).anchor.sizes() == shape) return;
      throw shape_error(detail::concat("kfac_ewc: the factors are of a '", key, "' of shape ",
                                       detail::shape_text(shape), ", the parameter has ",
                                       detail::shape_text(entries_.at(key).anchor.sizes()),
                                       ": estimate them for this model"));
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

  /// The layer that a parameter belongs to; layers_.size() where there is none.
  std::size_t position(const std::string& key) const {
    std::size_t l = 0;
    while (l < layers_.size() && layers_[l].weight != key && layers_[l].bias != key) ++l;
    return l;
  }

  /// A parameter of the model if it takes part.
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
            "' was frozen when the factors were estimated and is not now: unfreeze it "
            "before estimate_kfac, or exclude it by pattern"));
      check_may_pull(key, e);
      (key == layers_[l].bias ? present[l].bias : present[l].weight) = tensor;
    });
    return present;
  }

  /// D of a layer, [out, in] or [out, in + 1], in the graph of its parameters; undefined when none
  /// of them takes part.
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

  // mutable: factors follow a model that is moved to another device or type
  mutable std::vector<layer> layers_;
};

}  // namespace retain
