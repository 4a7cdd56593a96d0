// SPDX-License-Identifier: MIT
// Accumulates |d ||f(s)||^2 / d theta| over single samples, batch by batch.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/parameters.hpp>
#include <retain/distributions/answers.hpp>
#include <retain/distributions/probabilities.hpp>
#include <retain/importance/batches.hpp>
#include <retain/importance/graph_walk.hpp>
#include <retain/importance/steady_forward.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <vector>

namespace retain::detail {

/// Whether a mask has one value per row of outputs [..., D].
inline bool mask_fits(const at::Tensor& mask, const at::Tensor& outputs) {
  return mask.dim() + 1 == outputs.dim() &&
         mask.sizes() == outputs.sizes().slice(0, static_cast<std::size_t>(mask.dim()));
}

/// Returns the outputs f(s) of a prediction: a tensor itself, or the logits of a distribution, also
/// as the first of several values or as a member. Padded rows are set to 0.
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
  } else if constexpr (is_several<Answer>::value) {
    return outputs_of(std::get<0>(answer));
  } else if constexpr (names_distribution<Answer>) {
    return outputs_of(answer.distribution);
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
    const auto answer = answer_of(forward, batch);
    if constexpr (!std::convertible_to<decltype(answer), at::Tensor>)
      if (steady_.in_doubt()) refuse_probabilities("estimate_sensitivity", answer);
    const at::Tensor whole = norms(outputs_of(answer));
    const std::int64_t count = whole.size(0);
    // throws if the model mixes the samples of a batch
    const graph_walk unmixed({whole}, count, "estimate_sensitivity");
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
    if (all_zero(list)) throw_all_zero("estimate_sensitivity");
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

}  // namespace retain::detail
