// SPDX-License-Identifier: MIT
// The concepts that the library's templates require. A user's type satisfies a concept by its
// member functions; it need not derive from anything.
#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <string>
#include <type_traits>
#include <utility>

namespace retain {

/// A batch of distributions over actions, one per row of the leading dimensions ([N], or [T, N] for
/// sequences).
template <class D>
concept action_distribution = requires(const D& d, const at::Tensor& actions) {
  { d.log_prob(actions) } -> std::convertible_to<at::Tensor>;  // [...]: log pi(a|s)
  { d.entropy() } -> std::convertible_to<at::Tensor>;          // [...]: in nats
  { d.sample() } -> std::convertible_to<at::Tensor>;           // actions, without gradient
  // the most likely actions, or the actions of a deterministic evaluation
  { d.mode() } -> std::convertible_to<at::Tensor>;
  // [...]: KL(first || second), in nats
  { kl(d, d) } -> std::convertible_to<at::Tensor>;
};

/// Distributions with a mask, for batches with padding. `mask` is 1 (or true) in the rows that
/// count and has the shape of the rows. The mask may be on any device.
template <action_distribution D>
struct masked {
  D distribution;
  at::Tensor mask;
};
template <action_distribution D>
masked(D, at::Tensor) -> masked<D>;

namespace detail {
template <class T>
struct is_masked : std::false_type {};
template <class D>
struct is_masked<masked<D>> : std::true_type {};
}  // namespace detail

/// What a policy may return: distributions, or distributions with a mask.
template <class P>
concept prediction =
    action_distribution<std::remove_cvref_t<P>> || detail::is_masked<std::remove_cvref_t<P>>::value;

/// A callable p(observations) -> distributions.
template <class P, class Observations>
concept policy = std::invocable<P, const Observations&> &&
                 prediction<std::invoke_result_t<P, const Observations&>>;

/// A callable p(observations, state, done) -> {distributions, state}. `done` is 1 at the first step
/// of an episode. The state is reset before this step is computed.
template <class P, class Observations, class State>
concept recurrent_policy =
    requires(P& p, const Observations& observations, const State& carried, const at::Tensor& done) {
      { std::get<0>(p(observations, carried, done)) } -> prediction;
      { std::get<1>(p(observations, carried, done)) } -> std::convertible_to<State>;
    };

}  // namespace retain
