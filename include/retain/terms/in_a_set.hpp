// SPDX-License-Identifier: MIT
// How compose and retention treat one of their terms.
#pragma once

#include <retain/core/parameters.hpp>
#include <retain/terms/concepts.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <cstddef>
#include <string>
#include <type_traits>

namespace retain {

/// The contribution of one term to the last loss or gradient.
struct term_report {
  std::string name;
  /// the value, multiplied by the strength, 0-dim, without gradient; undefined before the first
  /// call
  at::Tensor value;
  double strength = 0;
};

namespace detail {

/// Satisfied if `name` is a non-static member of T.
template <class T>
concept named_by_each_object =
    requires { requires std::is_member_object_pointer_v<decltype(&T::name)>; };

/// A weight term that can compute the gradient of a single parameter, which attach() needs.
template <class T>
concept attachable_term =
    requires(const T& term, const parameter_list& model, const std::string& name, std::size_t index,
             at::Tensor& gradient) {
      term.check(model);
      { term.covers(name) } -> std::convertible_to<bool>;
      term.add_gradient_of(model, index, gradient);
    };

template <class T>
concept steps_itself = requires(T& term, double progress) { term.step(progress); };
/// Whether the checks of a step can be made before the step.
template <class T>
concept checks_steps =
    !steps_itself<std::remove_cvref_t<T>> ||
    requires(const std::remove_cvref_t<T>& term, double progress) { term.check_step(progress); };

/// Returns the schedule of a term. A term's schedule() need not be const.
template <class T>
const strength_schedule& schedule_of(const T& term) {
  return const_cast<T&>(term).schedule();
}
template <class T>
double strength_of(const T& term) {
  return schedule_of(term).value();
}

template <class T>
void step_term(T& term, double progress) {
  if constexpr (steps_itself<T>)
    term.step(progress);
  else
    term.schedule().step(progress);
}
/// Makes the checks of step_term, if the term has them.
template <class T>
void check_step_of(const T& term, double progress) {
  if constexpr (!steps_itself<T>)
    schedule_of(term).check_step(progress);
  else if constexpr (checks_steps<T>)
    term.check_step(progress);
}

}  // namespace detail
}  // namespace retain
