// SPDX-License-Identifier: MIT
// How compose and retention treat one of their terms.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/schedule.hpp>
#include <retain/terms/concepts.hpp>

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

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

/// Returns the name of a term in a set. Throws config_error if it is empty or has a dot, which
/// separates names in a state.
inline std::string checked_name(const char* who, std::string name) {
  if (name.empty() || name.find('.') != std::string::npos)
    throw config_error(
        concat(who, ": '", name, "' cannot name a term: a name must not be empty or have a dot"));
  return name;
}

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

/// Passes a KL that was measured at `progress` to a hold_kl. A schedule of another kind is replaced
/// by one that begins at the current strength. Does nothing for a measurement that was passed
/// before.
inline void hold_at(strength_schedule& schedule, const std::string& name, double kl,
                    double progress, double target) {
  const auto* running = schedule.as<hold_kl>();
  const double strength = schedule.value();
  hold_kl holder = running ? *running : hold_kl{};
  if (!running)
    holder.initial = std::clamp(strength > 0 ? strength : 1.0, holder.minimum, holder.maximum);
  holder.target = target;
  holder.validate();
  if (holder.at == progress) {
    if (holder.last == std::max(kl, 0.0)) return;
    throw config_error(concat("adapt: '", name,
                              "' has been adapted to another probe at this measurement: a term "
                              "follows one probe"));
  }
  if (std::isnan(kl))
    throw config_error(
        concat("adapt: the KL of the probe is NaN, so '", name, "' cannot be adapted to it"));
  holder.observe(kl);
  holder.at = progress;
  schedule.set(holder);
}

}  // namespace detail
}  // namespace retain
