// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/parameters.hpp>
#include <retain/importance/fisher_estimator.hpp>
#include <retain/importance/graph_walk.hpp>
#include <retain/importance/steady_forward.hpp>
#include <retain/terms/importance_penalty.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
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

namespace detail {

/// Whether a mask has one value per row of outputs [..., D].
inline bool mask_fits(const at::Tensor& mask, const at::Tensor& outputs) {
  return mask.dim() + 1 == outputs.dim() &&
         mask.sizes() == outputs.sizes().slice(0, static_cast<std::size_t>(mask.dim()));
}

/// Returns the outputs f(s) of a prediction: a tensor itself, or the logits of a distribution.
/// Padded rows are set to 0.
template <class Answer>
at::Tensor outputs_of(const Answer& answer) {
  if constexpr (std::convertible_to<const Answer&, at::Tensor>) {
    return answer;
  } else if constexpr (is_masked<Answer>::value) {
    const at::Tensor outputs = outputs_of(answer.distribution);
    if (!mask_fits(answer.mask, outputs))
      throw shape_error(concat("estimate_sensitivity: a mask of shape ",
                               shape_text(answer.mask.sizes()), " does not fit outputs of shape ",
                               shape_text(outputs.sizes())));
    return outputs.masked_fill(
        answer.mask.to(outputs.device(), at::kBool).bitwise_not().unsqueeze(-1), 0);
  } else {
    static_assert(
        requires {
          { answer.logits } -> std::convertible_to<at::Tensor>;
        }, "estimate_sensitivity: forward must return the outputs as a tensor [N, ...], or a "
           "distribution with logits");
    return answer.logits;
  }
}

class sensitivity_estimator {
 public:
  sensitivity_estimator(const parameter_list& chosen, int sample_dimension)
      : dimension_(sample_dimension) {
    for (const auto& [name, tensor] : chosen) {
      wanted_.push_back(tensor);
      sums_.push_back(
          {name, at::zeros_like(tensor, tensor.options().dtype(at::kDouble).requires_grad(false))});
    }
  }

  std::int64_t samples() const { return samples_; }

  template <class Batch, class Forward>
  void add(const Batch& batch, Forward& forward) {
    const at::AutoGradMode with_grad(true);
    const auto answer = forward(batch);
    const at::Tensor whole = norms(outputs_of(answer));
    const std::int64_t count = whole.size(0);
    // throws if the model mixes the samples of a batch
    graph_walk({whole}, count, "estimate_sensitivity");
    if (steady_.in_doubt() && count > 0) {
      const generators_as_they_were undisturbed(whole.device());
      steady_.check({outputs_of(answer).detach()}, count,
                    [&] { return std::vector<at::Tensor>{outputs_of(forward(batch)).detach()}; });
    }
    bool slices = samples_fit(batch, dimension_, count);
    for (std::int64_t n = 0; n < count; ++n) {
      at::Tensor one = whole[n];
      if constexpr (sliceable_batch<Batch>)
        if (slices && count > 1) {
          const auto single = forward(slice_of(batch, dimension_, n));
          if constexpr (is_masked<std::remove_cvref_t<decltype(single)>>::value)
            // a mask that forward does not take from its argument still has the whole batch
            slices = mask_fits(single.mask, outputs_of(single.distribution));
          if (slices) {
            const at::Tensor alone = norms(outputs_of(single));
            slices = alone.size(0) == 1;
            if (slices) one = alone[0];
          }
        }
      accumulate(one);
    }
    samples_ += counted(answer, count);
  }

  parameter_list means() const {
    if (samples_ == 0) throw config_error("estimate_sensitivity: there is no data");
    parameter_list list;
    for (std::size_t i = 0; i < sums_.size(); ++i) {
      const at::Tensor mean = sums_[i].tensor / static_cast<double>(samples_);
      if (mean.numel() != 0 && !mean.isfinite().all().item<bool>())
        throw state_error(concat("estimate_sensitivity: the sensitivity of '", sums_[i].name,
                                 "' is not finite: look for NaN in the outputs on the data"));
      list.push_back({sums_[i].name,
                      mean.to(wanted_[i].scalar_type() == at::kDouble ? at::kDouble : at::kFloat)});
    }
    return list;
  }

 private:
  /// Returns ||f(s)||^2 of every sample, [N].
  at::Tensor norms(const at::Tensor& outputs) const {
    if (dimension_ < 0 || outputs.dim() <= dimension_)
      throw shape_error(concat("estimate_sensitivity: outputs of shape ",
                               shape_text(outputs.sizes()), " have no sample dimension ",
                               dimension_));
    if (!outputs.requires_grad())
      throw config_error("estimate_sensitivity: the outputs have no gradient: every parameter is "
                         "frozen, or forward runs without autograd");
    const at::Tensor squares = outputs.movedim(dimension_, 0).square();
    return squares.dim() == 1 ? squares : squares.flatten(1).sum(1);
  }

  /// Returns the number of samples that have at least one valid step.
  template <class Answer>
  std::int64_t counted(const Answer& answer, std::int64_t count) const {
    if constexpr (is_masked<Answer>::value) {
      const at::Tensor rows = answer.mask.to(at::kBool).movedim(dimension_, 0);
      return (rows.dim() == 1 ? rows : rows.flatten(1).any(1)).sum().template item<std::int64_t>();
    }
    return count;
  }

  void accumulate(const at::Tensor& norm) {
    const auto gradients = torch::autograd::grad({norm}, wanted_, {}, /*retain_graph=*/true,
                                                 /*create_graph=*/false, /*allow_unused=*/true);
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < wanted_.size(); ++i)
      if (gradients[i].defined()) sums_[i].tensor.add_(gradients[i].to_dense().abs());
  }

  int dimension_;
  steady_forward steady_{"estimate_sensitivity"};
  std::vector<at::Tensor> wanted_;
  parameter_list sums_;
  std::int64_t samples_ = 0;
};

}  // namespace detail

/// Estimates how sensitive the outputs of a network are to each weight. It needs no labels, losses
/// or actions.
///
///     Omega_i = 1/n sum_s | d ||f(s)||^2 / d theta_i |,   one value per weight
///
/// The gradient is computed for each state separately. The gradient of the batch mean would be
/// something else, because gradients of different signs cancel.
///
/// `data` is a batch or a range of batches. `forward(batch)` returns the outputs of the N samples
/// as a tensor [N, ...]. It may also return the same types as for estimate_fisher; the logits of a
/// distribution are then the outputs. Logits that differ by a constant describe the same policy,
/// but have another sensitivity. If this matters, return log-probabilities. For sequences
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
/// Throws config_error if no parameter is trainable or if there is no data. Throws config_error if
/// the outputs do not depend on the states only, for example because of batch statistics, dropout
/// or a state that is kept between calls; the check is the same as in estimate_fisher. Throws
/// shape_error for outputs without a sample dimension, and state_error if the result is not finite.
///
/// Paper: Aljundi et al. 2018, arXiv 1711.09601, section 4.
template <parameter_source M, class Data, class Forward>
parameter_list estimate_sensitivity(const M& model, Data&& data, Forward&& forward,
                                    const sensitivity_options& options = {}) {
  parameter_list chosen;
  for (const auto& entry : parameters(model))
    if (entry.tensor.requires_grad() && !detail::covered(options.exclude, entry.name))
      chosen.push_back(entry);
  if (chosen.empty())
    throw config_error(
        "estimate_sensitivity: the model has no trainable parameter that is not excluded");
  detail::refuse_gathering_modules(model, "estimate_sensitivity");
  const detail::buffers_as_they_were unmoved(model);

  detail::sensitivity_estimator estimator(chosen, options.sample_dimension);
  const auto add = [&](const auto& batch) {
    estimator.add(batch, forward);
    if (options.progress) options.progress(estimator.samples());
  };
  if constexpr (requires {
                  data.begin();
                  data.end();
                })
    for (const auto& batch : data) add(batch);
  else
    add(data);
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
