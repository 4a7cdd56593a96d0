// SPDX-License-Identifier: MIT
// Code that all estimates share: which parameters are estimated, and the loop over the batches.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/patterns.hpp>
#include <retain/importance/steady_forward.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace retain::detail {

/// Returns the trainable parameters of a model that no pattern excludes. Throws config_error if
/// there is none, and for a pattern that matches no parameter. `who` is the start of the error
/// text.
template <parameter_source M>
parameter_list estimated_parameters(const char* who, const M& model,
                                    const std::vector<std::string>& exclude) {
  parameter_list chosen;
  const auto list = parameters(model);
  check_patterns(who, "exclude pattern", exclude, list);
  for (const auto& entry : list)
    if (entry.tensor.requires_grad() && !covered(exclude, entry.name)) chosen.push_back(entry);
  if (chosen.empty())
    throw config_error(concat(who, ": the model has no trainable parameter that is not excluded"));
  return chosen;
}

/// Throws state_error for an estimate that is 0 everywhere, with the usual causes.
[[noreturn]] inline void throw_all_zero(const char* who) {
  throw state_error(concat(
      who, ": every importance is 0, so a penalty would hold nothing. Check three causes: the "
           "outputs are saturated on this data, for example a probability that is exactly 1; "
           "forward calls another model, or detaches what it computes, so that no gradient reaches "
           "these parameters; the parameters that matter are frozen or excluded"));
}

/// Calls `add` for one batch, or for every batch of a range. After each batch, calls `progress`
/// with `seen()`. The model's buffers are restored at the end. Throws config_error if a module is a
/// batch normalization in training mode.
template <parameter_source M, class Data, class Add, class Seen>
void for_each_batch(const char* who, const M& model, Data&& data, Add add,
                    const std::function<void(std::int64_t)>& progress, Seen seen) {
  refuse_gathering_modules(model, who);
  const buffers_as_they_were unmoved(model);
  const auto one = [&](const auto& batch) {
    add(batch);
    if (progress) progress(seen());
  };
  if constexpr (requires {
                  data.begin();
                  data.end();
                })
    for (const auto& batch : data) one(batch);
  else
    one(data);
}

template <class Batch>
concept sliceable_batch = std::convertible_to<const Batch&, at::Tensor> ||
                          requires(const Batch& batch, std::int64_t i) { batch.narrow(i, i); };

template <sliceable_batch Batch>
auto slice_of(const Batch& batch, std::int64_t sample_dimension, std::int64_t start,
              std::int64_t length = 1) {
  if constexpr (std::convertible_to<const Batch&, at::Tensor>)
    return at::Tensor(batch).narrow(sample_dimension, start, length);
  else
    return batch.narrow(start, length);
}

/// Whether `dimension` of a batch has the given number of samples. `dimension` is the sample
/// dimension of the log-probabilities. True for a batch that is not a tensor.
template <class Batch>
bool samples_fit(const Batch& batch, std::int64_t dimension, std::int64_t samples) {
  if constexpr (std::convertible_to<const Batch&, at::Tensor>) {
    const at::Tensor tensor(batch);
    return dimension < tensor.dim() && tensor.size(dimension) == samples;
  }
  return true;
}

}  // namespace retain::detail
