// SPDX-License-Identifier: MIT
// The types that a forward function may return, and access to their distributions and masks.
#pragma once

#include <retain/core/concepts.hpp>
#include <retain/distributions/answers.hpp>
#include <retain/distributions/categorical.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <tuple>
#include <type_traits>
#include <utility>

namespace retain::detail {

/// Converts what a policy returns (see policy_answer) to a prediction. Distributions stay as they
/// are, also those with a member `logits`. A tensor becomes the logits of a categorical.
template <class P>
auto as_prediction(P&& answer) {
  using plain = std::remove_cvref_t<P>;
  if constexpr (std::convertible_to<P, at::Tensor>) {
    return categorical{std::forward<P>(answer)};
  } else if constexpr (prediction<P>) {
    return plain(std::forward<P>(answer));
  } else if constexpr (is_several<plain>::value) {
    return as_prediction(std::get<0>(std::forward<P>(answer)));
  } else if constexpr (requires { answer.mask; }) {
    static_assert(policy_answer<P>, "a policy must not return a struct with a member mask: return "
                                    "retain::masked for a mask of rows, or "
                                    "retain::masked_categorical for a mask of actions");
  } else if constexpr (names_distribution<plain>) {
    return as_prediction(std::forward<P>(answer).distribution);
  } else if constexpr (names_logits<plain>) {
    return as_prediction(std::forward<P>(answer).logits);
  } else {
    static_assert(check_distribution<plain>());
    static_assert(policy_answer<P> || resembles_distribution<plain>,
                  "a policy must return distributions (such as retain::categorical), logits as a "
                  "tensor, or retain::masked, alone, as the first of several values, or as a "
                  "member distribution or logits");
  }
}

/// Calls kl by argument-dependent lookup. Inside monitor, the member monitor::kl would hide this
/// function.
template <action_distribution D>
at::Tensor divergence_rows(const D& p, const D& q) {
  return kl(p, q);
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
