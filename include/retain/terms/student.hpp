// SPDX-License-Identifier: MIT
// How a student is asked about its own rollout.
#pragma once

#include <retain/core/concepts.hpp>
#include <retain/distributions/prediction.hpp>

#include <concepts>
#include <tuple>
#include <utility>

namespace retain::detail {

/// A rollout that carries the student's recurrent state before its first step, for a student that
/// takes it.
template <class Student, class Rollout>
concept carries_state_for = requires(Student& student, const Rollout& rollout) {
  rollout.state;
  rollout.done;
  requires std::invocable<Student&, decltype((rollout.observations)), decltype((rollout.state)),
                          decltype((rollout.done))>;
};

/// student(observations, state, done) where the rollout carries a state and the student takes one
/// (see recurrent_policy), student(observations) otherwise.
template <class Student, class Rollout>
auto ask_student(Student& student, const Rollout& rollout) {
  if constexpr (carries_state_for<Student, Rollout>)
    return as_prediction(std::get<0>(student(rollout.observations, rollout.state, rollout.done)));
  else
    return as_prediction(student(rollout.observations));
}

}  // namespace retain::detail
