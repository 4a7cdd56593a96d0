// SPDX-License-Identifier: MIT
// Computes the Kronecker factors of a policy's Linear layers from the autograd graph of its
// log-probabilities, batch by batch.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/random.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/importance/batches.hpp>
#include <retain/importance/graph_walk.hpp>
#include <retain/importance/per_sample_squares.hpp>
#include <retain/importance/score_batch.hpp>
#include <retain/importance/scores.hpp>
#include <retain/importance/steady_forward.hpp>
#include <retain/kernels/joined.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace retain {

/// The factors of one Linear layer.
struct kronecker_layer {
  std::string weight;  ///< [out, in]
  std::string bias;    ///< [out]; empty if the layer has no bias
  at::Tensor inputs;   ///< A, [in, in], or [in + 1, in + 1] with the bias last
  at::Tensor outputs;  ///< G, [out, out]
};

namespace detail {

class kronecker_estimator {
 public:
  explicit kronecker_estimator(const parameter_list& chosen) : chosen_(chosen) {}

  std::int64_t states() const {
    return static_cast<std::int64_t>(states_.defined() ? states_.item<double>() : 0.0);
  }

  template <class Batch, class Forward, class Source>
  void add(const Batch& batch, Forward& forward, Source& source) {
    const at::AutoGradMode with_grad(true);
    const separate_nodes as_written;
    score_batch asked("estimate_kfac", batch, forward, source, -1);
    if (asked.valid().dim() != 1)
      throw shape_error(concat("estimate_kfac: log-probabilities need the shape [N], got ",
                               shape_text(asked.valid().sizes()),
                               ": pass the states of a sequence as single states"));
    if (asked.empty()) return;
    if (steady_.in_doubt()) asked.check_policy();
    asked.take_scores();
    const score_passes& passes = asked.passes();
    graph_walk walk(passes.scores(), asked.samples(), "estimate_kfac");
    if (steady_.in_doubt()) asked.check_steady(steady_, /*few=*/false);
    const auto found = layers_in(walk, asked.samples());
    if (!walk.places_rows_by_shape()) refuse_moved_rows(walk, passes, found, asked.samples());

    std::vector<at::Tensor> outputs(found.size());
    for (std::size_t p = 0; p < passes.count(); ++p) {
      walk.capture(passes.of_batch(p).sum());
      const at::NoGradGuard no_grad;
      for (std::size_t l = 0; l < found.size(); ++l)
        if (const at::Tensor g = *found[l].use.gradient; g.defined())
          add_apart(outputs[l], moment(g));
    }
    add_factors(asked.valid(), found, outputs);
  }

  std::vector<kronecker_layer> layers() const {
    if (states() == 0) throw config_error("estimate_kfac: the data has no valid state");
    std::vector<kronecker_layer> result;
    for (const auto& s : sums_) {
      const named_tensor& weight = chosen_[s.weight];
      const std::string bias = s.bias < chosen_.size() ? chosen_[s.bias].name : std::string();
      const at::Tensor total =
          s.outputs.defined()
              ? s.outputs
              : at::zeros({weight.tensor.size(0), weight.tensor.size(0)}, s.inputs.options());
      result.push_back({weight.name, bias, s.inputs / states_.to(s.inputs.device()),
                        total / states_.to(total.device())});
      if (!result.back().inputs.isfinite().all().template item<bool>() ||
          !result.back().outputs.isfinite().all().template item<bool>())
        throw state_error(
            concat("estimate_kfac: a factor of '", weight.name,
                   "' is not finite: look for NaN in the policy's outputs or in the data"));
    }
    // The Fisher of a layer is 0 if one of its factors is.
    if (std::all_of(result.begin(), result.end(), [](const kronecker_layer& layer) {
          return all_zero({{"", layer.inputs}}) || all_zero({{"", layer.outputs}});
        }))
      throw_all_zero("estimate_kfac");
    return result;
  }

 private:
  struct found_layer {
    std::size_t weight = 0, bias = 0;  // indices in chosen_; bias is chosen_.size() without a bias
    parameter_use use;
  };
  struct sums {
    std::size_t weight = 0, bias = 0;
    at::Tensor inputs, outputs;
  };

  /// Returns sum_n x_n x_n^T in float64. The product is computed in the type of x; half types are
  /// computed in float.
  static at::Tensor moment(const at::Tensor& rows) {
    const at::Tensor x = rows.scalar_type() == at::kDouble ? rows : rows.to(at::kFloat);
    return x.t().mm(x).to(at::kDouble);
  }
  /// Adds `value` to `sum` in a new tensor.
  static void add_apart(at::Tensor& sum, const at::Tensor& value) {
    sum = sum.defined() ? sum + value : value;
  }

  /// Adds a batch's second moments of each layer's inputs and of the gradients of its outputs.
  void add_factors(const at::Tensor& valid, const std::vector<found_layer>& found,
                   const std::vector<at::Tensor>& outputs) {
    const at::NoGradGuard no_grad;
    add_apart(states_, valid.sum(at::kDouble));
    if (sums_.empty()) sums_.resize(found.size());
    const at::Tensor row = valid.unsqueeze(1);
    for (std::size_t l = 0; l < found.size(); ++l) {
      at::Tensor a = found[l].use.input.detach();
      a = a.masked_fill(row.to(a.device()) == 0, 0);
      if (found[l].bias < chosen_.size()) a = at::cat({a, row.to(a.options())}, 1);
      sums& s = sums_[l];
      if (!s.inputs.defined()) {
        s.weight = found[l].weight;
        s.bias = found[l].bias;
      }
      if (s.weight != found[l].weight || s.bias != found[l].bias)
        throw config_error(concat("estimate_kfac: '", chosen_[found[l].weight].name,
                                  "' is not used in the same way in all batches"));
      add_apart(s.inputs, moment(a));
      if (outputs[l].defined()) add_apart(s.outputs, outputs[l]);
    }
  }

  /// Returns the Linear weights with their inputs, and with the bias that the same operation adds.
  /// Throws config_error for every other parameter.
  std::vector<found_layer> layers_in(graph_walk& walk, std::int64_t samples) const {
    std::vector<found_layer> found;
    std::vector<bool> taken(chosen_.size());
    std::vector<std::vector<parameter_use>> uses;
    for (const auto& [name, tensor] : chosen_) {
      if (!walk.reaches(tensor))
        throw config_error(
            concat("estimate_kfac: the policy's log-probabilities do not depend on '", name,
                   "': exclude it by pattern"));
      uses.push_back(walk.uses_of(tensor));
    }
    for (std::size_t i = 0; i < chosen_.size(); ++i) {
      if (uses[i].size() != 1) continue;
      const parameter_use& use = uses[i].front();
      if (use.kind != use_kind::matrix || !use.transposed || use.input.dim() != 2 ||
          use.input.size(0) != samples)
        continue;
      found_layer layer{i, chosen_.size(), use};
      for (std::size_t b = 0; b < chosen_.size(); ++b)
        if (uses[b].size() == 1 && uses[b].front().kind == use_kind::bias &&
            uses[b].front().gradient == use.gradient)
          layer.bias = b;
      taken[i] = true;
      if (layer.bias < chosen_.size()) taken[layer.bias] = true;
      found.push_back(std::move(layer));
    }
    for (std::size_t i = 0; i < chosen_.size(); ++i)
      if (!taken[i])
        throw config_error(concat("estimate_kfac: '", chosen_[i].name, "' ",
                                  shape_text(chosen_[i].tensor.sizes()),
                                  " is not the weight or bias of a Linear layer that is used once "
                                  "per state: exclude it by pattern, and use retain::ewc for it"));
    return found;
  }

  /// Throws config_error if the rows of a layer's input are not one row per state, in the order of
  /// the states. See walked_batch::orders_of_rows.
  void refuse_moved_rows(graph_walk& walk, const score_passes& passes,
                         const std::vector<found_layer>& found, std::int64_t samples) {
    const at::Tensor mixture = passes.mixture(random_), weights = random_factors(random_, samples);
    walk.capture(mixture.sum());
    std::vector<at::Tensor> plain;
    for (const auto& layer : found) plain.push_back(*layer.use.gradient);
    walk.capture((mixture * weights.to(mixture.options().requires_grad(false))).sum());
    for (std::size_t l = 0; l < found.size(); ++l) {
      const named_tensor& weight = chosen_[found[l].weight];
      if (!per_sample_squares::belong(found[l].use, plain[l], weights, row_order::sample_major,
                                      rows_tolerance(weight.tensor)))
        throw config_error(
            concat("estimate_kfac: the input of '", weight.name,
                   "' must have one row per state, in the order of the states: exclude "
                   "the layer by pattern, and use retain::ewc for it"));
    }
  }

  parameter_list chosen_;
  steady_forward steady_{"estimate_kfac"};
  splitmix64 random_{0};
  std::vector<sums> sums_;
  at::Tensor states_;
};

}  // namespace detail
}  // namespace retain
