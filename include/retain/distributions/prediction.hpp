// SPDX-License-Identifier: MIT
// The types that a forward function may return, and access to their distributions and masks.
#pragma once

#include <retain/core/concepts.hpp>
#include <retain/distributions/answers.hpp>
#include <retain/distributions/categorical.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <type_traits>
#include <utility>

namespace retain::detail {

/// Converts the return value of a forward function to a prediction. Distributions stay as they are;
/// a tensor becomes the logits of a categorical.
template <class P>
auto as_prediction(P&& answer) {
  if constexpr (std::convertible_to<P, at::Tensor>) {
    return categorical{std::forward<P>(answer)};
  } else {
    static_assert(check_distribution<std::remove_cvref_t<P>>());
    static_assert(prediction<P> || resembles_distribution<std::remove_cvref_t<P>>,
                  "a policy must return distributions (such as "
                  "retain::categorical), logits as a tensor, or retain::masked");
    return std::forward<P>(answer);
  }
}

template <class P>
decltype(auto) distribution_of(const P& prediction) {
  if constexpr (is_masked<P>::value)
    return (prediction.distribution);
  else
    return (prediction);
}
/// Returns the distributions. In the rows that `mask` drops, fixed distributions replace them, so
/// that NaN in padding does not reach a gradient.
template <class D>
D where(const D& distribution, const at::Tensor& mask) {
  if constexpr (requires {
                  { distribution.where(mask) } -> std::convertible_to<D>;
                })
    if (mask.defined()) return distribution.where(mask);
  return distribution;
}
/// Moves the target's distributions to the device of the answer, if their type has device() and
/// to().
template <class D, class Answer>
D beside(const D& target, const Answer& answer) {
  if constexpr (requires {
                  { target.to(answer.device()) } -> std::convertible_to<D>;
                  target.device() != answer.device();
                })
    if (target.device() != answer.device()) return target.to(answer.device());
  return target;
}
template <class P>
at::Tensor mask_of(const P& prediction) {
  if constexpr (is_masked<P>::value)
    return prediction.mask;
  else
    return {};
}

}  // namespace retain::detail
