// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/finite.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/fisher.hpp>
#include <retain/importance/batches.hpp>
#include <retain/importance/kronecker_estimator.hpp>
#include <retain/importance/left_out.hpp>
#include <retain/importance/scores.hpp>

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace retain {

/// A policy's Fisher information in Kronecker factors, layer by layer.
struct kronecker_fisher {
  std::vector<kronecker_layer> layers;
  std::int64_t states = 0;  ///< the number of states in the mean
  std::string actions;      ///< "sampled", "exact" or "dataset"
  /// the patterns of the parameters that were left out; kfac_ewc leaves them out too
  std::vector<std::string> exclude = {};

  /// Returns one line per layer: its parameters, and the sizes and traces of its factors. The
  /// product of both traces is the trace of the layer's Fisher.
  [[nodiscard]] std::string report() const {
    std::string text = detail::concat("Kronecker-factored Fisher over ", states, " states, ",
                                      actions, " actions\n");
    for (const auto& layer : layers)
      text += detail::concat("  ", layer.weight, layer.bias.empty() ? "" : " and ", layer.bias,
                             ": A ", detail::shape_text(layer.inputs.sizes()), " of trace ",
                             layer.inputs.trace().item<double>(), ", G ",
                             detail::shape_text(layer.outputs.sizes()), " of trace ",
                             layer.outputs.trace().item<double>(), '\n');
    return text;
  }

  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "states", states);
    out.set(prefix + "actions", actions);
    detail::save_left_out(out, prefix, exclude);
    for (const auto& layer : layers) {
      out.set(prefix + "inputs." + layer.weight, layer.inputs);
      out.set(prefix + "outputs." + layer.weight, layer.outputs);
      out.set(prefix + "bias." + layer.weight, layer.bias);
    }
  }
  /// Throws state_error or shape_error and changes nothing if the state does not contain a valid
  /// estimate. Does not check the eigenvalues of the factors; kfac_ewc checks them.
  void load_state(const state& in, const std::string& prefix) {
    kronecker_fisher loaded;
    loaded.states = in.integer(prefix + "states");
    if (loaded.states < 0)
      throw state_error(detail::concat("kronecker_fisher: the state at '", prefix, "' has ",
                                       loaded.states, " states, which must not be negative"));
    loaded.actions = in.text(prefix + "actions");
    loaded.exclude = detail::load_left_out(in, prefix);
    const std::string head = prefix + "inputs.";
    for (const auto& key : in.tensor_keys(head)) {
      const std::string weight = key.substr(head.size());
      loaded.layers.push_back({weight, in.text(prefix + "bias." + weight), in.tensor(key),
                               in.tensor(prefix + "outputs." + weight)});
      for (const auto& factor : {loaded.layers.back().inputs, loaded.layers.back().outputs}) {
        if (factor.dim() != 2 || factor.size(0) != factor.size(1))
          throw shape_error(detail::concat("kronecker_fisher: a saved factor of '", weight,
                                           "' has shape ", detail::shape_text(factor.sizes()),
                                           ", but a factor must be square"));
        if (!at::isFloatingType(factor.scalar_type()) || !detail::all_finite(factor))
          throw state_error(detail::concat("kronecker_fisher: a saved factor of '", weight,
                                           "' must have a floating-point type and finite values"));
      }
    }
    *this = std::move(loaded);
  }
};

struct kfac_options {
  std::vector<std::string> exclude = {};  ///< name patterns of parameters to leave out
  std::function<void(std::int64_t states)> progress = {};  ///< called after every batch
};

/// Estimates the Fisher information of a policy's Linear layers in Kronecker factors. The factors
/// include the correlations between the weights of one layer.
///
///     F_l ~ A (x) G,   A = E_s[a a^T],   G = E_s E_a[g g^T]
///
/// For one state, a is the input of the layer; if the layer has a bias, a 1 is appended to a. g is
/// the gradient of log pi(a|s) with respect to the output of the layer. The factorization is exact
/// if a and g are independent, and for a single state. A is [in, in] or [in + 1, in + 1], G is
/// [out, out]. Both are float64.
///
/// `data`, `forward` and `actions` are the same as for estimate_fisher. The rows of the
/// distributions must be [N]: pass the states of a sequence as single states. The cost is about the
/// same as that of estimate_fisher with the graph walk. Put the policy in eval mode. `.grad` and
/// the buffers of the model do not change.
///
/// Every trainable parameter must be excluded by pattern, or be the weight or bias of a Linear
/// layer. The layer must be used once per state, and its input must be [N, in] with one row per
/// state in the order of the states. All other parameters are rejected with an error that names
/// them: exclude them here and use retain::ewc for them (compose both).
///
/// Throws config_error for a parameter that is not supported, for a pattern that matches nothing,
/// if there is no data, if the policy has a single action or logits that look like probabilities,
/// and if the result of `forward` does not depend on the states only. Like estimate_fisher, this
/// function checks `forward` with a second call for at least the first 16 states. Throws
/// shape_error for rows of another shape, and state_error if a factor is not finite or the Fisher
/// of every layer is 0.
///
/// Papers: Martens and Grosse 2015, arXiv 1503.05671; Ritter et al. 2018, arXiv 1805.07810.
template <parameter_source M, class Data, class Forward, class Actions = sampled_actions>
[[nodiscard]] kronecker_fisher estimate_kfac(const M& model, Data&& data, Forward&& forward,
                                             Actions actions = {},
                                             const kfac_options& options = {}) {
  detail::kronecker_estimator estimator(
      detail::estimated_parameters("estimate_kfac", model, options.exclude));
  auto source = detail::make_action_source(actions);
  detail::for_each_batch(
      "estimate_kfac", model, data,
      [&](const auto& batch) { estimator.add(batch, forward, source); }, options.progress,
      [&] { return estimator.states(); });
  return {estimator.layers(), estimator.states(), source.name, options.exclude};
}

}  // namespace retain
