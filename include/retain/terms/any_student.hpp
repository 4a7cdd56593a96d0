// SPDX-License-Identifier: MIT
// A student of any type, as the terms of a set call it.
#pragma once

#include <retain/base/error.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/parameters.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/terms/ask.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace retain::detail {

/// Refers to a student whose type the terms do not know. It answers with Distribution and a mask,
/// which is undefined if the student has none. It takes a recurrent state of type State and returns
/// it as it is, since no term reads the next one; a student without memory ignores it. The student
/// must outlive this object.
template <class Observations, action_distribution Distribution, class State>
class any_student {
 public:
  using answer = masked<Distribution>;

  template <class Student>
    requires(!std::same_as<std::remove_cvref_t<Student>, any_student>)
  explicit any_student(Student& student) : call_(&call<Student>) {
    if constexpr (std::is_function_v<Student>)
      student_ = reinterpret_cast<void*>(&student);
    else
      student_ = const_cast<void*>(static_cast<const void*>(std::addressof(student)));
    if constexpr (parameter_source<Student> && !std::is_function_v<Student>) list_ = &list<Student>;
  }

  answer operator()(const Observations& observations) const {
    const State none{};
    const at::Tensor no_start;
    return call_(student_, {observations, none, no_start});
  }
  std::tuple<answer, State> operator()(const Observations& observations, const State& state,
                                       const at::Tensor& episode_start) const {
    return {call_(student_, {observations, state, episode_start}), state};
  }

  /// The student's parameters, if it lists them.
  std::optional<parameter_list> listed() const {
    return list_ ? std::optional(list_(student_)) : std::nullopt;
  }

 private:
  struct asked {
    const Observations& observations;
    const State& state;
    const at::Tensor& episode_start;
  };

  template <class Student>
  static answer call(void* object, const asked& rollout) {
    auto& student = student_of<Student>(object);
    static_assert(takes_observations<Student, Observations> || takes_state<Student, Observations> ||
                      takes_state<Student, Observations, State>,
                  "retention: the student must be callable with the observations of the set's "
                  "rollout, or with (observations, state, episode_start)");
    if constexpr (!takes_observations<Student, Observations>)
      if (!rollout.episode_start.defined())
        throw config_error(
            "retention: a student with memory was asked without an episode_start: give the rollout "
            "one, and draw stored states by a sampler of sequences, because single states have no "
            "history");
    const auto said = ask(student, rollout);
    using distribution = std::remove_cvref_t<decltype(distribution_of(said))>;
    static_assert(std::same_as<distribution, Distribution>,
                  "retention: the student's distributions are not those of the set; name them: "
                  "retain::retention<Rollout, Distribution>");
    return {distribution_of(said), mask_of(said)};
  }

  template <class Student>
  static Student& student_of(void* object) {
    if constexpr (std::is_function_v<Student>)
      return *reinterpret_cast<Student*>(object);
    else
      return *static_cast<Student*>(object);
  }
  template <class Student>
  static parameter_list list(void* object) {
    return parameters(student_of<Student>(object));
  }

  void* student_ = nullptr;
  answer (*call_)(void*, const asked&);
  parameter_list (*list_)(void*) = nullptr;
};

}  // namespace retain::detail
