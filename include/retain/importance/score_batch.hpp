// SPDX-License-Identifier: MIT
// One batch of an estimate: the result of the forward function, and the scores to differentiate.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/distributions/answers.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/distributions/probabilities.hpp>
#include <retain/importance/batches.hpp>
#include <retain/importance/scores.hpp>
#include <retain/importance/steady_forward.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain::detail {

/// Runs a backward pass. If cuDNN refuses it, throws config_error with a text that says what to do.
template <class Backward>
std::invoke_result_t<Backward> explained(Backward backward) {
  try {
    return backward();
  } catch (const c10::Error& e) {
    if (std::string(e.what_without_backtrace()).find("cudnn RNN backward") == std::string::npos)
      throw;
    throw config_error(
        "estimate_fisher: cuDNN differentiates a recurrent layer in training mode only. Call "
        "at::globalContext().setUserEnabledCuDNN(false) before the estimate and turn it on again "
        "after it; the policy stays in eval mode");
  }
}

/// Returns the gradients of a scalar. The gradient of a tensor that the scalar does not depend on
/// is undefined. Keeps the graph.
inline std::vector<at::Tensor> gradients_of(const at::Tensor& root,
                                            const std::vector<at::Tensor>& wanted) {
  return explained([&] {
    return torch::autograd::grad({root}, wanted, {}, /*retain_graph=*/true,
                                 /*create_graph=*/false, /*allow_unused=*/true);
  });
}

/// Returns 1 for every row of the distributions, [N] or [T, N], without a graph.
template <class Distribution>
at::Tensor ones_per_row(const Distribution& d) {
  const at::NoGradGuard no_grad;
  return at::ones_like(d.log_prob(d.mode()));
}

/// The result of `forward` for a batch, the rows that are valid, and the scores computed from them.
/// The object keeps references to the batch, the forward function and the source of actions. They
/// must stay valid.
template <class Batch, class Forward, class Source>
class score_batch {
 public:
  /// Calls `forward`. `sample_dimension` is the sample dimension of the log-probabilities; -1 means
  /// 0 for [N] and 1 for [T, N]. Throws shape_error or config_error if the rows or the mask do not
  /// fit. `who` is the start of the error text.
  score_batch(const char* who, const Batch& batch, Forward& forward, Source& source,
              std::int64_t sample_dimension)
      : who_(who),
        batch_(batch),
        forward_(forward),
        source_(source),
        answer_(as_prediction(answer_of(forward, batch))),
        valid_(ones_per_row(distribution_of(answer_))),
        dimension_(dimension_of(sample_dimension)) {
    check_mask(answer_);
    if (const at::Tensor mask = mask_of(answer_); mask.defined() && !empty())
      valid_ = mask.to(valid_.options());
  }

  bool empty() const { return valid_.numel() == 0; }
  /// [N] or [T, N]: 1 for a valid row, 0 for padding.
  const at::Tensor& valid() const { return valid_; }
  std::int64_t dimension() const { return dimension_; }
  std::int64_t samples() const { return valid_.size(dimension_); }
  std::int64_t steps() const { return valid_.dim() == 2 ? valid_.size(1 - dimension_) : 1; }
  const score_passes& passes() const { return passes_; }

  /// Draws actions, or lists the rows of the exact Fisher, and computes their scores. Throws
  /// config_error if no score has a gradient.
  void take_scores() {
    const auto unpadded = where(distribution_of(answer_), mask_of(answer_));
    const auto& d = Source::scored(unpadded);
    passes_ = score_passes(source_(d, batch_, valid_, dimension_), dimension_,
                           Source::steps_apart ? steps() : 1);
    passes_.take(d);
    if (passes_.count() == 0)
      throw config_error(concat(who_, ": the policy's log-probabilities have no gradient: every "
                                      "parameter is frozen, or forward runs without autograd"));
    slices_ = samples_fit(batch_, dimension_, samples());
  }

  /// Throws config_error if the policy has a single action, or if its logits look like
  /// probabilities.
  void check_policy() const {
    refuse_single_action(who_, distribution_of(answer_));
    refuse_probabilities(who_, answer_);
  }

  /// Calls `forward` a second time. If `few` is true and the batch can be sliced, the second call
  /// gets only the first samples, which is cheap. Otherwise the call gets the whole batch. Throws
  /// config_error if the results differ. Restores the state of the random generators.
  void check_steady(steady_forward& steady, bool few) {
    const generators_as_they_were undisturbed(valid_.device());
    if constexpr (sliceable_batch<Batch>) {
      constexpr std::int64_t first = steady_forward::enough;
      if (few && slices_ && samples() > 2 * first) {
        const auto part = slice_of(batch_, dimension_, 0, first);
        const auto ask = [&] { return numbers_of(as_prediction(forward_(part)), first); };
        if (const auto numbers = ask(); !numbers.empty()) return steady.check(numbers, first, ask);
      }
    }
    steady.check(numbers_of(answer_, samples()), samples(),
                 [&] { return numbers_of(as_prediction(forward_(batch_)), samples()); });
  }

  /// Calls `receive` with the gradients of sample n for each pass in [first, last). Returns true if
  /// the sample was sliced out of the batch. Otherwise each pass is a backward pass through the
  /// whole batch.
  template <class Receive>
  bool each_gradient(std::int64_t n, const std::vector<at::Tensor>& wanted, std::size_t first,
                     std::size_t last, Receive receive) {
    if constexpr (sliceable_batch<Batch>) {
      if (slices_) {
        const auto single = as_prediction(forward_(slice_of(batch_, dimension_, n)));
        slices_ = rows_fit(single, 1);
        if (slices_) {
          const auto unpadded = where(distribution_of(single), mask_of(single));
          const auto& alone = Source::scored(unpadded);
          for (std::size_t p = first; p < last; ++p)
            receive(gradients_of(passes_.of_sample(alone, p, n).sum(), wanted));
          return true;
        }
      }
    }
    for (std::size_t p = first; p < last; ++p)
      receive(gradients_of(passes_.of_batch(p, n).sum(), wanted));
    return false;
  }

 private:
  using answer_type =
      decltype(as_prediction(answer_of(std::declval<Forward&>(), std::declval<const Batch&>())));

  std::int64_t dimension_of(std::int64_t given) const {
    if (valid_.dim() < 1 || valid_.dim() > 2)
      throw shape_error(concat(who_, ": log-probabilities need the shape [N] or [T, N], got ",
                               shape_text(valid_.sizes())));
    if (given >= valid_.dim())
      throw config_error(concat(who_, ": there is no sample_dimension ", given,
                                " in log-probabilities of shape ", shape_text(valid_.sizes())));
    return given >= 0 ? given : valid_.dim() - 1;
  }

  void check_mask(const answer_type& answer) const {
    const at::Tensor mask = mask_of(answer);
    if (mask.defined() && mask.sizes() != valid_.sizes())
      throw shape_error(concat(who_, ": a mask of shape ", shape_text(mask.sizes()),
                               " does not fit log-probabilities of shape ",
                               shape_text(valid_.sizes())));
  }

  /// Whether an answer has the rows of `count` samples. A mask that forward does not take from its
  /// argument may still have the rows of the whole batch.
  template <prediction Prediction>
  bool rows_fit(const Prediction& answer, std::int64_t count) const {
    auto rows = valid_.sizes().vec();
    rows[static_cast<std::size_t>(dimension_)] = count;
    const at::Tensor mask = mask_of(answer);
    return ones_per_row(distribution_of(answer)).sizes() == at::IntArrayRef(rows) &&
           (!mask.defined() || mask.sizes() == at::IntArrayRef(rows));
  }

  /// Returns the scores and the mask of an answer for the first `count` samples. Returns an empty
  /// list if the rows of the answer do not fit these samples.
  template <prediction Prediction>
  std::vector<at::Tensor> numbers_of(const Prediction& answer, std::int64_t count) const {
    if (!rows_fit(answer, count)) return {};
    const at::Tensor mask = mask_of(answer);
    const auto unpadded = where(distribution_of(answer), mask);
    auto numbers = passes_.of_first(Source::scored(unpadded), count);
    if (mask.defined()) numbers.push_back(mask);
    return numbers;
  }

  const char* who_;
  const Batch& batch_;
  Forward& forward_;
  Source& source_;
  answer_type answer_;
  at::Tensor valid_;
  std::int64_t dimension_;
  score_passes passes_;
  bool slices_ = false;
};

}  // namespace retain::detail
