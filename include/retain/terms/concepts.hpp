// SPDX-License-Identifier: MIT
// What a retention term is: the concepts that compose, retention and attach require.
#pragma once

#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/core/strength_schedule.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <string>

namespace retain {

/// What every retention term has: a static member `name` that converts to std::string, a strength,
/// and a state. A term whose step moves more than one schedule also has step(progress) and
/// check_step(progress) const; check_step makes the checks of step and changes nothing.
template <class T>
concept retention_term = stateful<T> && requires(T& term) {
  std::string(T::name);
  { term.schedule() } -> std::same_as<strength_schedule&>;
};

/// A term on the weights, such as ewc: it needs the parameters and no data. `loss` is in the graph;
/// `add_gradient` adds its gradient to `.grad` and returns its value. At strength 0 the loss of
/// every term of this library is a zero without a graph, and add_gradient changes nothing.
template <class T>
concept weight_term = retention_term<T> && requires(T& term, const parameter_list& model) {
  { term.loss(model) } -> std::convertible_to<at::Tensor>;
  { term.add_gradient(model) } -> std::convertible_to<at::Tensor>;
};

/// A term on the outputs of a policy, such as kickstarting: it needs a student and a rollout. A
/// term that has its own states ignores the rollout.
template <class T, class Student, class Rollout>
concept output_term =
    retention_term<T> && requires(T& term, Student& student, const Rollout& rollout) {
      { term.loss(student, rollout) } -> std::convertible_to<at::Tensor>;
    };

}  // namespace retain
