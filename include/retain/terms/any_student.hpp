// SPDX-License-Identifier: MIT
// A student of any type, as the terms of a set call it.
#pragma once

#include <retain/core/concepts.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/terms/ask.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <memory>
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
  explicit any_student(Student& student)
      : student_(const_cast<void*>(static_cast<const void*>(std::addressof(student)))),
        call_(&call<Student>) {}

  answer operator()(const Observations& observations) const {
    const State none{};
    const at::Tensor no_start;
    return call_(student_, {observations, none, no_start});
  }
  std::tuple<answer, State> operator()(const Observations& observations, const State& state,
                                       const at::Tensor& episode_start) const {
    return {call_(student_, {observations, state, episode_start}), state};
  }

 private:
  struct asked {
    const Observations& observations;
    const State& state;
    const at::Tensor& episode_start;
  };

  template <class Student>
  static answer call(void* object, const asked& rollout) {
    auto& student = *static_cast<std::remove_reference_t<Student>*>(object);
    static_assert(takes_observations<Student, Observations> || takes_state<Student, Observations> ||
                      takes_state<Student, Observations, State>,
                  "retention: the student must be callable with the observations of the set's "
                  "rollout, or with (observations, state, episode_start)");
    const auto said = ask(student, rollout);
    using distribution = std::remove_cvref_t<decltype(distribution_of(said))>;
    static_assert(std::convertible_to<distribution, Distribution>,
                  "retention: the student's distributions are not those of the set; name them: "
                  "retain::retention<Rollout, Distribution>");
    return {Distribution(distribution_of(said)), mask_of(said)};
  }

  void* student_;
  answer (*call_)(void*, const asked&);
};

}  // namespace retain::detail
