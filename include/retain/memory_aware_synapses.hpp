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
  /// the dimension of the samples in the outputs and in a batch that is a tensor; 1 for sequences
  /// [T, N, ...]
  int sample_dimension = 0;
  std::function<void(std::int64_t samples)> progress = {};  ///< called after every batch
};

/// Estimates how sensitive the outputs of a network are to each weight. It needs no labels, losses
/// or actions.
///
///     Omega_i = 1/n sum_s | d ||f(s)||^2 / d theta_i |,   one value per weight
///
/// The gradient is computed for each state separately. The gradient of the batch mean gives a
/// different result, because gradients with different signs cancel.
///
/// `data` is a batch or a range of batches. `forward(batch)` returns the outputs of the N samples
/// as a tensor [N, ...]. It may also return the same types as for estimate_fisher; the logits of a
/// distribution are then the outputs. Logits that differ by a constant describe the same policy,
/// but they have different sensitivities. If this matters, return log-probabilities. For sequences
/// [T, N, ...] set `sample_dimension`; the steps of a sample are summed. A sample that consists of
/// padding only is not counted.
///
/// Cost: one forward and one backward pass per sample. The sample is sliced out of the batch, if
/// the batch is a tensor or has `narrow(start, length)`. Otherwise each sample needs a backward
/// pass through the whole batch. Therefore use a few hundred to a few thousand states, not all of
/// them.
///
/// Put the policy in eval mode. `.grad` and the buffers of the model do not change. Frozen
/// parameters are left out. Unused parameters get 0. The result can be used as the importance of
/// memory_aware_synapses and ewc.
///
/// Throws config_error if no parameter is trainable, if there is no data, and for an exclude
/// pattern that matches no parameter. Throws config_error if the outputs do not depend on the
/// states only, for example because of batch statistics, dropout or a state that is kept between
/// calls; the check is the same as in estimate_fisher. Throws config_error if the logits of a
/// distribution look like probabilities. Throws shape_error for outputs without a sample dimension,
/// and state_error if the result is not finite or is 0 everywhere.
///
/// Paper: Aljundi et al. 2018, arXiv 1711.09601, section 4.
template <parameter_source M, class Data, class Forward>
[[nodiscard]] parameter_list estimate_sensitivity(const M& model, Data&& data, Forward&& forward,
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
  strength_schedule strength = 1.0;  ///< c in the formula
  /// name patterns of parameters without penalty, for example {"value_head.*"}
  std::vector<std::string> exclude = {};
  /// factors on the strength by name pattern; if several patterns match, their product
  std::vector<group_scale> groups = {};
  double floor = 0.0;             ///< lower bound of each importance
  double clip = detail::no_clip;  ///< upper bound of each importance
};

/// Memory aware synapses: the quadratic penalty of ewc, with the sensitivity of the outputs as the
/// importance of each weight.
///
///     loss = c * sum_i Omega_i (theta_i - theta*_i)^2
///     gradient = 2 c Omega_i (theta_i - theta*_i)
///
/// Omega comes from `estimate_sensitivity`. The estimate only needs states on which the behavior
/// must be kept. Omega depends on the scale of the outputs; the Fisher of the same policy does not.
///
///     memory_aware_synapses keep{*policy, estimate_sensitivity(*policy, states, forward),
///                                {.strength = 10.0}};
///     // another task, summed as in the paper
///     keep.advance(*policy, estimate_sensitivity(*policy, new_states, forward), 1.0);
///
/// Frozen parameters are skipped. Memory: two copies of the parameters.
///
/// Paper: Aljundi et al. 2018, arXiv 1711.09601.
class memory_aware_synapses : public detail::importance_penalty {
 public:
  static constexpr const char* name = "memory_aware_synapses";

  /// `importance` must contain one tensor, with the parameter's shape, for every trainable
  /// parameter that is not excluded. Throws the same exceptions as the constructor of ewc.
  template <parameter_source M>
  memory_aware_synapses(const M& model, const parameter_list& importance,
                        memory_aware_synapses_options options = {})
      : importance_penalty(name, std::move(options.strength), std::move(options.exclude),
                           options.groups, options.floor, options.clip, parameters(model),
                           importance) {}
};

}  // namespace retain
