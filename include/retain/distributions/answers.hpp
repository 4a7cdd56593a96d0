// SPDX-License-Identifier: MIT
// Compiler messages for a function of the user's that returns distributions, and for a distribution
// of the user's: each says what to write.
#pragma once

#include <retain/core/concepts.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <type_traits>

namespace retain::detail {

/// Returns function(arguments...). Does not compile if the function cannot be called with these
/// arguments or returns nothing.
template <class Function, class... Arguments>
decltype(auto) answer_of(Function& function, const Arguments&... arguments) {
  static_assert(std::invocable<Function&, const Arguments&...>,
                "forward cannot be called with a batch of the data: let it take the type of the "
                "data, or, if the data is a range of batches, the type of its elements, for "
                "example [&](const at::Tensor& observations) { ... }");
  static_assert(!std::is_void_v<std::invoke_result_t<Function&, const Arguments&...>>,
                "forward returns nothing: return the distributions, for example "
                "[&](const auto& batch) { return retain::categorical{...}; }");
  return function(arguments...);
}

template <class D>
concept has_log_prob = requires(const D& d, const at::Tensor& actions) {
  { d.log_prob(actions) } -> std::convertible_to<at::Tensor>;
};
template <class D>
concept has_entropy = requires(const D& d) {
  { d.entropy() } -> std::convertible_to<at::Tensor>;
};
template <class D>
concept has_sample = requires(const D& d) {
  { d.sample() } -> std::convertible_to<at::Tensor>;
};
template <class D>
concept has_mode = requires(const D& d) {
  { d.mode() } -> std::convertible_to<at::Tensor>;
};
template <class D>
concept has_kl = requires(const D& d) {
  { kl(d, d) } -> std::convertible_to<at::Tensor>;
};

/// Says which member a distribution of the user's lacks. Does nothing for a type without any of
/// them, which is no distribution. A member counts only if it is const. Returns true, so that a
/// static_assert can ask at once.
template <class D>
constexpr bool check_distribution() {
  if constexpr (resembles_distribution<D>) {
    static_assert(has_log_prob<D>,
                  "this distribution has no log_prob: give it `at::Tensor log_prob(const "
                  "at::Tensor& actions) const`, the log-probability of one action per row");
    static_assert(has_entropy<D>, "this distribution has no entropy: give it `at::Tensor entropy() "
                                  "const`, the entropy of each row in nats");
    static_assert(has_sample<D>, "this distribution has no sample: give it `at::Tensor sample() "
                                 "const`, one action per row, without gradient");
    static_assert(has_mode<D>, "this distribution has no mode: give it `at::Tensor mode() const`, "
                               "the most likely action of each row");
    static_assert(has_kl<D>, "this distribution has no kl: write `at::Tensor kl(const D& p, const "
                             "D& q)` for your type D in its namespace or as its friend, KL(p || q) "
                             "of each row in nats");
  }
  return true;
}

}  // namespace retain::detail
