// SPDX-License-Identifier: MIT
// Calls a policy: with (observations, state, episode_start) or with (observations).
#pragma once

#include <retain/base/error.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/new_episodes.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/terms/rollout.hpp>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <concepts>
#include <type_traits>
#include <utility>

namespace retain {
namespace detail {

template <class Policy, class Observations>
concept takes_observations = std::invocable<Policy&, const Observations&>;
/// Whether a policy takes (observations, state, episode_start) and returns {answer, state}. A
/// callable that takes any number of arguments, such as torch::nn::Sequential, does not count.
template <class Policy, class Observations, class State = new_episodes>
concept takes_state = requires(Policy& policy, const Observations& observations,
                               const State& carried, const at::Tensor& episode_start) {
  next_state(policy(observations, carried, episode_start));
};

struct read_prediction {
  template <class Answer>
  auto operator()(Answer&& answer) const {
    return as_prediction(std::forward<Answer>(answer));
  }
};

/// Calls policy(observations, state, episode_start), or policy(observations) if the policy takes no
/// state. A policy that takes both, such as actor_critic, gets the observations alone if there is
/// neither a state nor an episode_start. Throws config_error if a policy needs an episode_start
/// that is undefined.
template <class Policy, class Observations, class State = new_episodes,
          class Read = read_prediction>
auto call(Policy& policy, const Observations& observations, const State& carried = {},
          const at::Tensor& episode_start = {}, Read read = {}) {
  constexpr bool along = takes_state<Policy, Observations, State>,
                 new_ones = std::same_as<State, new_episodes>;
  if constexpr (!along) {
    static_assert(takes_observations<Policy, Observations>,
                  "a policy must be callable as policy(observations), or as policy(observations, "
                  "state, episode_start), which returns {prediction, state}");
    return read(policy(observations));
  } else if constexpr (!takes_observations<Policy, Observations>) {
    if (new_ones && !episode_start.defined())
      throw config_error("the policy takes (observations, state, episode_start), but there is no "
                         "episode_start: give 1 at the first step of an episode, 0 at every other "
                         "step");
    return read(policy(observations, carried, episode_start));
  } else {
    if constexpr (new_ones &&
                  std::same_as<decltype(read(policy(observations))),
                               decltype(read(policy(observations, carried, episode_start)))>)
      if (!episode_start.defined()) return read(policy(observations));
    return read(policy(observations, carried, episode_start));
  }
}

/// Asks a policy about stored observations. With a sampler of sequences, `episode_start` marks
/// where episodes begin.
template <bool Sequences, class Policy, class Observations>
auto ask_stored(Policy& policy, const Observations& observations,
                const at::Tensor& episode_start = {}) {
  static_assert(
      Sequences || takes_observations<Policy, Observations> || !takes_state<Policy, Observations>,
      "a recurrent policy needs a sampler of sequences, which marks where episodes "
      "begin: stored single states have no history");
  return call(policy, observations, new_episodes{}, episode_start);
}

/// A teacher with a state of its own, which step(observations, episode_start) moves on.
template <class Teacher, class Observations>
concept steps_along =
    requires(Teacher& teacher, const Observations& observations, const at::Tensor& episode_start) {
      teacher.step(observations, episode_start);
    };

/// Asks a teacher or reference about a rollout of the student, whose state is not the teacher's. A
/// retain::teacher that takes a state goes on from its own state. Any other one starts anew.
template <class Teacher, class Rollout>
auto ask_along(Teacher& teacher, const Rollout& rollout) {
  using observations = std::remove_cvref_t<decltype(rollout.observations)>;
  const at::Tensor episode_start = rollout_episode_start(rollout);
  if constexpr (!takes_observations<Teacher, observations>)
    static_assert(
        requires { rollout.episode_start; },
        "a recurrent teacher needs rollout.episode_start: 1 at the first step of an episode");
  if constexpr (steps_along<Teacher, observations>) {
    if constexpr (takes_observations<Teacher, observations>) {
      if (!episode_start.defined()) return as_prediction(teacher(rollout.observations));
    } else if (!episode_start.defined()) {
      throw config_error("a recurrent teacher needs rollout.episode_start, which is undefined: "
                         "give 1 at the first step of an episode, 0 at every other step");
    }
    return as_prediction(teacher.step(rollout.observations, episode_start));
  } else {
    return call(teacher, rollout.observations, new_episodes{}, episode_start);
  }
}

}  // namespace detail

/// Returns the prediction of a policy for its own rollout, in the policy's graph. A policy that
/// takes (observations, state, episode_start) gets rollout.state, or new_episodes{} if there is
/// none. Any other policy gets the observations alone; so does a policy that takes both, such as a
/// feed-forward actor_critic, if the rollout has neither a state nor an episode_start. The rollout
/// is retain::steps or a type of one's own; an undefined tensor counts as absent. Throws
/// config_error if the policy needs an episode_start that is undefined, or takes another type of
/// state than the rollout has.
///
///     at::Tensor my_loss(auto& policy, const auto& rollout) {
///       return retain::ask(policy, rollout).entropy().mean();
///     }
template <class Policy, class Rollout>
auto ask(Policy&& policy, const Rollout& rollout) {
  detail::check_rollout<Rollout>();
  using observations = std::remove_cvref_t<decltype(rollout.observations)>;
  using asked = std::remove_reference_t<Policy>;
  const at::Tensor episode_start = detail::rollout_episode_start(rollout);
  if constexpr (requires { rollout.state; }) {
    using carried = std::remove_cvref_t<decltype(rollout.state)>;
    if constexpr (detail::takes_state<asked, observations, carried>) {
      if constexpr (detail::takes_state<asked, observations> &&
                    std::convertible_to<const carried&, const at::Tensor&>)
        if (!rollout.state.defined())
          return detail::call(policy, rollout.observations, new_episodes{}, episode_start);
      return detail::call(policy, rollout.observations, rollout.state, episode_start);
    } else if constexpr (detail::takes_state<asked, observations>) {
      static_assert(std::convertible_to<const carried&, const at::Tensor&>,
                    "rollout.state has another type than the state that the policy takes");
      if (rollout.state.defined())
        throw config_error("rollout.state is a tensor, but the policy takes another type of state: "
                           "write retain::basic_steps<Observations, State>, or give the rollout "
                           "the policy's state");
    }
  } else if constexpr (!detail::takes_observations<asked, observations>) {
    static_assert(
        requires { rollout.episode_start; } || !detail::takes_state<asked, observations>,
        "the policy takes (observations, state, episode_start): the rollout needs a member "
        "episode_start, 1 at the first step of an episode");
  }
  return detail::call(policy, rollout.observations, new_episodes{}, episode_start);
}

/// Returns the prediction of a teacher for the student's rollout, without a graph. The state of the
/// rollout is the student's, so it is not handed to the teacher: a retain::teacher with memory goes
/// on from its own state, any other one starts anew.
///
///     const auto target = retain::ask_teacher(teacher_, rollout);
template <class Teacher, class Rollout>
auto ask_teacher(Teacher&& teacher, const Rollout& rollout) {
  detail::check_rollout<Rollout>();
  const at::NoGradGuard no_grad;
  return detail::ask_along(teacher, rollout);
}

}  // namespace retain
