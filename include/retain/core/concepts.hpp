// SPDX-License-Identifier: MIT
// The concepts that the library's templates require. A user's type satisfies a concept by its
// member functions; it need not derive from anything.
#pragma once

#include <retain/core/new_episodes.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <cstddef>
#include <string>
#include <tuple>
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

/// Distributions, or distributions with a mask.
template <class P>
concept prediction =
    action_distribution<std::remove_cvref_t<P>> || detail::is_masked<std::remove_cvref_t<P>>::value;

namespace detail {

/// Whether a type is a tuple or pair: several values, of which the first is the prediction.
template <class T>
struct is_several : std::false_type {};
template <class First, class... Others>
struct is_several<std::tuple<First, Others...>> : std::true_type {};
template <class First, class Second>
struct is_several<std::pair<First, Second>> : std::true_type {};

/// A type with a member function of an action_distribution, const or not. It is meant as a
/// distribution, even if it lacks the others.
template <class D>
concept resembles_distribution =
    requires(D& d, const at::Tensor& actions) { d.log_prob(actions); } || requires(D& d) {
      d.entropy();
    } || requires(D& d) { d.sample(); } || requires(D& d) { d.mode(); };

/// A struct with a member `distribution`, such as actor_critic_answer, or a member `logits`. The
/// logits of an unfinished distribution are not read: it may mean something else by them.
template <class T>
concept names_distribution = requires(const T& answer) { answer.distribution; };
template <class T>
concept names_logits = !resembles_distribution<T> && requires(const T& answer) {
  { answer.logits } -> std::convertible_to<at::Tensor>;
};

template <class Answer>
constexpr bool says_actions() {
  using plain = std::remove_cvref_t<Answer>;
  if constexpr (std::convertible_to<Answer, at::Tensor> || prediction<plain>)
    return true;
  else if constexpr (is_several<plain>::value)
    return says_actions<std::tuple_element_t<0, plain>>();
  else if constexpr (requires(const plain& answer) { answer.mask; })
    return false;
  else if constexpr (names_distribution<plain>)
    return says_actions<decltype(std::declval<const plain&>().distribution)>();
  else
    return names_logits<plain>;
}

/// Returns the state of an answer: the second of several values, or the member `state`.
template <class Answer>
  requires(is_several<std::remove_cvref_t<Answer>>::value &&
           std::tuple_size_v<std::remove_cvref_t<Answer>> >= 2)
decltype(auto) next_state(Answer&& answer) {
  return std::get<1>(std::forward<Answer>(answer));
}
template <class Answer>
  requires requires(const Answer& answer) { answer.state; }
auto next_state(Answer&& answer) {
  return std::forward<Answer>(answer).state;
}

/// {prediction, state}, with a state that converts to State. Any state does for new_episodes.
template <class Answer, class State>
concept recurrent_answer = says_actions<Answer>() && requires(Answer answer) {
  next_state(std::move(answer));
  requires std::same_as<State, new_episodes> ||
               std::convertible_to<decltype(next_state(std::move(answer))), State>;
};

}  // namespace detail

/// What a policy may return:
/// - distributions, or retain::masked distributions;
/// - logits as a tensor;
/// - a tuple or pair whose first element is one of these, such as {distribution, value} or
///   {prediction, state};
/// - a struct with a member `distribution` or `logits`, such as actor_critic_answer. A struct with
///   a member `mask` is refused, because a mask of rows and a mask of actions look alike: return
///   retain::masked or retain::masked_categorical instead.
template <class Answer>
concept policy_answer = detail::says_actions<Answer>();

/// A callable p(observations) -> policy_answer.
template <class P, class Observations>
concept policy = std::invocable<P, const Observations&> &&
                 policy_answer<std::invoke_result_t<P, const Observations&>>;

/// A callable p(observations, state, episode_start) -> {prediction, state}, or a struct with the
/// members `distribution` (or `logits`) and `state`. `episode_start`, [N] or [T, N], bool or 0 and
/// 1, is 1 at the first step of an episode. The state is reset before this step is computed. State
/// is any type. It must be default-initializable if the policy itself makes the first state: the
/// policy then gets new_episodes{}.
template <class P, class Observations, class State = new_episodes>
concept recurrent_policy = requires(P& p, const Observations& observations, const State& carried,
                                    const at::Tensor& episode_start) {
  { p(observations, carried, episode_start) } -> detail::recurrent_answer<State>;
};

}  // namespace retain
