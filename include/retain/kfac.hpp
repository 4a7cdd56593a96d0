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
#include <retain/importance/scores.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace retain {

/// A policy's Fisher information in Kronecker factors, layer by layer.
struct kronecker_fisher {
  std::vector<kronecker_layer> layers;
  std::int64_t states = 0;  ///< how many states it is a mean over
  std::string actions;      ///< "sampled", "exact" or "dataset"

  /// A line per layer: its parameters, the sizes of the factors and their traces, whose product is
  /// the trace of the layer's Fisher.
  std::string report() const {
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
    for (const auto& layer : layers) {
      out.set(prefix + "inputs." + layer.weight, layer.inputs);
      out.set(prefix + "outputs." + layer.weight, layer.outputs);
      out.set(prefix + "bias." + layer.weight, layer.bias);
    }
  }
  /// Throws state_error or shape_error, and changes nothing, for what no estimate is; kfac_ewc
  /// looks at the eigenvalues.
  void load_state(const state& in, const std::string& prefix) {
    kronecker_fisher loaded;
    loaded.states = in.integer(prefix + "states");
    if (loaded.states < 0)
      throw state_error(detail::concat("kronecker_fisher: the state at '", prefix, "' is of ",
                                       loaded.states, " states"));
    loaded.actions = in.text(prefix + "actions");
    const std::string head = prefix + "inputs.";
    for (const auto& key : in.tensor_keys(head)) {
      const std::string weight = key.substr(head.size());
      loaded.layers.push_back({weight, in.text(prefix + "bias." + weight), in.tensor(key),
                               in.tensor(prefix + "outputs." + weight)});
      for (const auto& factor : {loaded.layers.back().inputs, loaded.layers.back().outputs}) {
        if (factor.dim() != 2 || factor.size(0) != factor.size(1))
          throw shape_error(detail::concat("kronecker_fisher: a saved factor of '", weight,
                                           "' has shape ", detail::shape_text(factor.sizes()),
                                           ", and is not square"));
        if (!at::isFloatingType(factor.scalar_type()) || !detail::all_finite(factor))
          throw state_error(
              detail::concat("kronecker_fisher: a saved factor of '", weight,
                             "' holds a value that is not finite, or of another type"));
      }
    }
    *this = std::move(loaded);
  }
};

struct kfac_options {
  std::vector<std::string> exclude = {};  ///< name patterns of parameters to leave out
  std::function<void(std::int64_t states)> progress = {};  ///< called after every batch
};

/// The Fisher information of a policy's Linear layers in Kronecker factors, which know how the
/// weights of a layer hang together:
///
///     F_l ~ A (x) G,   A = E_s[a a^T],   G = E_s E_a[g g^T]
///
/// with a the layer's input, and a 1 behind it where the layer has a bias, and g the gradient of
/// log pi(a|s) with respect to its output, for one state each (Martens and Grosse 2015, arXiv
/// 1503.05671; Ritter et al. 2018, arXiv 1805.07810). Exact where a and g are independent, and for
/// a single state. A is [in, in] or [in + 1, in + 1], G [out, out], both float64.
///
/// `data`, `forward` and `actions` are those of estimate_fisher; rows are [N]: give the states of
/// sequences one by one. The cost is about that of estimate_fisher's walk. Every trainable
/// parameter must be the weight or bias of a Linear layer that is used once a state, on an input
/// [N, in] with a row of each state in their order, or be excluded by pattern: any other is refused
/// by name, and is retain::ewc's to keep (compose both). Put the policy in eval mode. `.grad` and
/// buffers stay as they are. Throws config_error as well when there is no data and when answers do
/// not depend on the states alone, as estimate_fisher does and looks for (the first 16 states or
/// more are asked about twice); shape_error for other rows, state_error for a result that is not
/// finite.
template <parameter_source M, class Data, class Forward, class Actions = sampled_actions>
kronecker_fisher estimate_kfac(const M& model, Data&& data, Forward&& forward, Actions actions = {},
                               const kfac_options& options = {}) {
  detail::kronecker_estimator estimator(
      detail::estimated_parameters("estimate_kfac", model, options.exclude));
  auto source = detail::make_action_source(actions);
  detail::for_each_batch(
      "estimate_kfac", model, data,
      [&](const auto& batch) { estimator.add(batch, forward, source); }, options.progress,
      [&] { return estimator.states(); });
  return {estimator.layers(), estimator.states(), source.name};
}

}  // namespace retain
