// SPDX-License-Identifier: MIT
// Calls a student on its own rollout.
#pragma once

#include <retain/core/concepts.hpp>
#include <retain/distributions/prediction.hpp>

#include <concepts>
#include <tuple>
#include <utility>

namespace retain::detail {

/// Satisfied if the rollout has the student's recurrent state before the first step, and if the
/// student takes a state.
template <class Student, class Rollout>
concept carries_state_for = requires(Student& student, const Rollout& rollout) {
  rollout.state;
  rollout.done;
  requires std::invocable<Student&, decltype((rollout.observations)), decltype((rollout.state)),
                          decltype((rollout.done))>;
};

/// Returns the prediction of student(observations, state, done) if the rollout has a state and the
/// student takes one (see recurrent_policy). Otherwise returns the prediction of
/// student(observations).
template <class Student, class Rollout>
auto ask_student(Student& student, const Rollout& rollout) {
  if constexpr (carries_state_for<Student, Rollout>)
    return as_prediction(std::get<0>(student(rollout.observations, rollout.state, rollout.done)));
  else
    return as_prediction(student(rollout.observations));
}

}  // namespace retain::detail
