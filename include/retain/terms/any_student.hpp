// SPDX-License-Identifier: MIT
// A student of any type, as the terms of a set call it.
#pragma once

#include <retain/core/concepts.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/terms/student.hpp>

#include <ATen/core/Tensor.h>

#include <concepts>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

namespace retain::detail {

/// Refers to a student whose type the terms do not know. It answers with Distribution and a mask,
/// which is undefined if the student has none. It takes a recurrent state of type State; a student
/// without memory ignores it. The student must outlive this object.
template <class Observations, action_distribution Distribution, class State>
class any_student {
 public:
  using answer = masked<Distribution>;

  template <class Student>
    requires(!std::same_as<std::remove_cvref_t<Student>, any_student>)
  explicit any_student(Student& student)
      : student_(const_cast<void*>(static_cast<const void*>(std::addressof(student)))),
        call_(&call<Student>) {}

  std::tuple<answer, State> operator()(const Observations& observations, const State& state,
                                       const at::Tensor& episode_start) const {
    return call_(student_, observations, state, episode_start);
  }
  /// Independent observations; for a student with memory, the first steps of new episodes.
  answer operator()(const Observations& observations) const {
    return std::get<0>(call_(student_, observations, State{}, at::Tensor()));
  }

 private:
  template <class Prediction>
  static answer answered(Prediction&& prediction) {
    auto said = as_prediction(std::forward<Prediction>(prediction));
    using distribution = std::remove_cvref_t<decltype(distribution_of(said))>;
    static_assert(std::convertible_to<distribution, Distribution>,
                  "retention: the student's distributions are not those of the set; name them: "
                  "retain::retention<Rollout, Distribution>");
    return {Distribution(distribution_of(said)), mask_of(said)};
  }

  template <class Student>
  static std::tuple<answer, State> call(void* object, const Observations& observations,
                                        const State& state, const at::Tensor& episode_start) {
    auto& student = *static_cast<std::remove_reference_t<Student>*>(object);
    if constexpr (std::invocable<Student&, const Observations&, const State&, const at::Tensor&>) {
      auto&& [said, next] = student(observations, state, episode_start);
      return {answered(said), State(next)};
    } else {
      static_assert(std::invocable<Student&, const Observations&>,
                    "retention: the student must be callable with the observations of the set's "
                    "rollout, or with (observations, state, episode_start)");
      return {answered(student(observations)), state};
    }
  }

  void* student_;
  std::tuple<answer, State> (*call_)(void*, const Observations&, const State&, const at::Tensor&);
};

}  // namespace retain::detail
