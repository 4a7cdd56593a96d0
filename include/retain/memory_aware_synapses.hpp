// SPDX-License-Identifier: MIT
#pragma once

#include <retain/core/parameters.hpp>
#include <retain/importance/batches.hpp>
#include <retain/importance/sensitivity_estimator.hpp>
#include <retain/terms/importance_penalty.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct sensitivity_options {
  std::vector<std::string> exclude = {};  ///< name patterns of parameters to leave out
  /// of the outputs and of a batch that is a tensor: 1 for sequences [T, N, ...]
  int sample_dimension = 0;
  std::function<void(std::int64_t samples)> progress = {};  ///< called after every batch
};

/// How much each weight matters to what the network answers, without labels, losses or actions,
///
///     Omega_i = 1/n sum_s | d ||f(s)||^2 / d theta_i |,   one value per weight
///
/// per state, always: the gradient of a batch's mean, where signs cancel, is not it (Aljundi et al.
/// 2018, arXiv 1711.09601, section 4).
///
/// `data` is a range of batches, or one batch; `forward(batch)` returns the outputs of its N
/// samples as a tensor [N, ...], or what it returns for estimate_fisher: distributions count by
/// their logits. Logits that differ by a constant are the same policy and not the same here: return
/// log-probabilities where that matters. For sequences [T, N, ...] set `sample_dimension`; a
/// sample's steps are summed. A sample that is all padding does not count.
///
/// Cost: one forward and one backward pass for every single sample, taken out of the batch by
/// `narrow(start, length)` when the batch is a tensor or has that, otherwise a backward pass
/// through the whole batch for each: some hundred to a few thousand states, not all. Put the policy
/// in eval mode. `.grad` and buffers stay as they are. Frozen parameters are left out, unused ones
/// are 0. Returns what memory_aware_synapses and ewc take as importance. Throws config_error when
/// nothing is trainable, when there is no data, and when answers do not depend on the states alone
/// (batch statistics, dropout, what is kept between calls), as estimate_fisher does and looks for;
/// shape_error for outputs without a sample dimension, state_error for a result that is not finite.
template <parameter_source M, class Data, class Forward>
parameter_list estimate_sensitivity(const M& model, Data&& data, Forward&& forward,
                                    const sensitivity_options& options = {}) {
  detail::sensitivity_estimator estimator(
      detail::estimated_parameters("estimate_sensitivity", model, options.exclude),
      options.sample_dimension);
  detail::for_each_batch(
      "estimate_sensitivity", model, data,
      [&](const auto& batch) { estimator.add(batch, forward); }, options.progress,
      [&] { return estimator.samples(); });
  return estimator.means();
}

struct memory_aware_synapses_options {
  strength_schedule strength = 1.0;  ///< c of the formula
  /// name patterns of parameters left free, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; of several that match, the product
  std::vector<group_scale> groups = {};
  double floor = 0.0;             ///< every importance is at least this
  double clip = detail::no_clip;  ///< and at most this
};

/// Memory aware synapses: the pull of ewc, weighted by how sensitive the outputs are to each
/// weight,
///
///     loss = c * sum_i Omega_i (theta_i - theta*_i)^2,    gradient = 2 c Omega_i (theta_i - theta*_i)
///
/// with Omega from `estimate_sensitivity` (Aljundi et al. 2018, arXiv 1711.09601). It needs states
/// and nothing else, from wherever the knowledge is to be kept, and changes with the scale of the
/// outputs, which a Fisher of the same policy does not.
///
///     memory_aware_synapses keep{*policy, estimate_sensitivity(*policy, states, forward), {.strength = 10.0}};
///     keep.advance(*policy, estimate_sensitivity(*policy, new_states, forward), 1.0);   // a further task, summed as in the paper
///
/// Frozen parameters are skipped. Memory: two copies of the parameters.
class memory_aware_synapses : public detail::importance_penalty {
 public:
  static constexpr const char* name = "memory_aware_synapses";

  /// `importance` holds one tensor of the parameter's shape for every trainable parameter that is
  /// not excluded. Throws as ewc does.
  template <parameter_source M>
  memory_aware_synapses(const M& model, const parameter_list& importance,
                        memory_aware_synapses_options options = {})
      : importance_penalty(name, std::move(options.strength), std::move(options.exclude),
                           options.groups, options.floor, options.clip, parameters(model),
                           importance) {}
};

}  // namespace retain
