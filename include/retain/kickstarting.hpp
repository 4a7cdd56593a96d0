// SPDX-License-Identifier: MIT
#pragma once

#include <retain/distributions/prediction.hpp>
#include <retain/teacher.hpp>
#include <retain/terms/distillation.hpp>
#include <retain/terms/student.hpp>

#include <ATen/core/grad_mode.h>

#include <concepts>
#include <cstddef>
#include <iterator>
#include <string>
#include <utility>

namespace retain {

struct kickstarting_options {
  strength_schedule strength = 1.0;
  divergence direction = divergence::teacher_student;
  /// the index of this teacher in rollout.teachers, if a rollout has the predictions of several
  /// teachers
  std::size_t place = 0;
};

namespace detail {
struct no_gate {};

template <class Gate, class Observations, class Prediction>
at::Tensor open_gate(Gate& gate, const Observations& observations, const Prediction& teacher) {
  const at::NoGradGuard no_grad;
  if constexpr (std::same_as<Gate, no_gate>)
    return {};
  else if constexpr (std::invocable<Gate&, const Observations&, const Prediction&>)
    return gate(observations, teacher);
  else
    return gate(observations);
}
}  // namespace detail

/// Kickstarting: keeps the student close to the teacher on the states that the student visits.
///
///     loss = c / N * sum over valid steps of w(s) KL(pi*(.|s) || pi(.|s))
///
/// The states s are from the student's own rollout with N valid steps. The strength c usually
/// decreases during training. The weight w is 1 by default. The teacher is evaluated without a
/// graph.
///
/// A rollout is any type with a member `observations`. These members are optional:
///
/// - `mask` [...]: 1 for a valid step, 0 for padding. It is combined with the masks of the
///   teacher's and the student's predictions.
/// - `weights` [...]: the weight of each step, not negative.
/// - `done` [...]: 1 at the first step of an episode, where a recurrent teacher resets its state.
///   Note that gae() marks the last step instead.
/// - `state`: the state of a recurrent student before the first step. If `state` and `done` exist,
///   the term calls student(observations, state, done) -> {prediction, state} and uses the
///   prediction (see recurrent_policy).
/// - `teacher`: the teacher's prediction for these steps, or its logits. Compute it once per
///   rollout with `target`, so that the teacher is not evaluated again in every epoch. For a
///   recurrent teacher this is required, because every evaluation changes its state.
/// - `teachers`: an array or vector with the predictions of several teachers. Each term uses the
///   prediction at its `place`.
///
/// A gate decides on which states the teacher is used. It is a callable (observations) or
/// (observations, teacher's prediction) that returns weights [...] in [0, 1] or bool. Examples are
/// mahalanobis_gate, entropy_gate and a lambda. A step with gate weight 0 adds nothing to the loss,
/// but N still counts it. Therefore a gate does not change the loss of the other steps. A weight
/// that is NaN or not positive counts as 0.
///
/// Combine several terms with compose. The first example uses kickstarting on states that resemble
/// the pre-training states and behavioral cloning on the pre-training states themselves. The second
/// example has two teachers.
///
///     compose(kickstarting{teacher, {.strength = 0.5}, mahalanobis_gate{seen_states}},
///             behavioral_cloning{seen_states, teacher, {.strength = 2.0}})
///     compose(kickstarting{runner, {.place = 0}, on_land},
///             kickstarting{swimmer, {.place = 1}, in_water})
///
/// Each term has its own schedule and saves its state under its own name.
///
/// With direction student_teacher the loss is the exact reverse KL. reference_kl estimates the same
/// KL from the sampled actions.
///
/// At strength 0 the teacher, the student and the gate are not called.
///
/// Paper: Schmitt et al. 2018, arXiv 1803.03835.
template <class Teacher, class Gate = detail::no_gate>
class kickstarting : public detail::distillation_base {
 public:
  static constexpr const char* name = "kickstarting";

  explicit kickstarting(Teacher teacher, kickstarting_options options = {}, Gate gate = {})
      : distillation_base(std::move(options.strength), options.direction),
        teacher_(std::move(teacher)),
        gate_(std::move(gate)),
        place_(options.place) {}

  /// Returns the teacher's prediction for a rollout. A recurrent teacher continues with its state
  /// from the end of the previous rollout.
  template <class Rollout>
  auto target(const Rollout& rollout) {
    const at::NoGradGuard no_grad;
    if constexpr (requires { requires Teacher::recurrent; }) {
      static_assert(
          requires { rollout.done; },
          "a recurrent teacher needs rollout.done: 1 at the first step of an episode");
      return teacher_.step(rollout.observations, rollout.done);
    } else {
      return detail::as_prediction(teacher_(rollout.observations));
    }
  }

  /// Returns a 0-dim tensor in the graph of `student`. `student` is a callable that maps
  /// observations to a prediction, or a recurrent_policy. Throws shape_error if the mask or the
  /// weights have a wrong shape. Throws config_error if rollout.teachers has no entry at this
  /// term's place.
  template <class Student, class Rollout>
  at::Tensor loss(Student&& student, const Rollout& rollout) {
    if (strength() == 0.0) return at::zeros({});
    if constexpr (requires { rollout.teachers[0]; }) {
      if (place_ >= std::size(rollout.teachers))
        throw config_error(detail::concat(
            "kickstarting: the rollout has the predictions of ", std::size(rollout.teachers),
            " teachers, but this term's place is ", place_, " (counted from 0)"));
      return pull(student, rollout, detail::as_prediction(rollout.teachers[place_]));
    } else if constexpr (requires { rollout.teacher; }) {
      return pull(student, rollout, detail::as_prediction(rollout.teacher));
    } else {
      static_assert(
          !requires { requires Teacher::recurrent; },
          "every call of a recurrent teacher changes its state: call target(rollout) once and "
          "store the result as rollout.teacher");
      return pull(student, rollout, target(rollout));
    }
  }

  const Teacher& teacher() const { return teacher_; }
  const Gate& gate() const { return gate_; }

  void save_state(state& out, const std::string& prefix) const {
    schedule_.save_state(out, prefix + "schedule.");
    if constexpr (stateful<Teacher>) teacher_.save_state(out, prefix + "teacher.");
    if constexpr (stateful<Gate>) gate_.save_state(out, prefix + "gate.");
  }
  void load_state(const state& in, const std::string& prefix) {
    auto schedule = schedule_;
    schedule.load_state(in, prefix + "schedule.");
    if constexpr (stateful<Gate>) {
      auto gate = gate_;
      gate.load_state(in, prefix + "gate.");
      if constexpr (stateful<Teacher>) teacher_.load_state(in, prefix + "teacher.");
      gate_ = std::move(gate);
    } else if constexpr (stateful<Teacher>) {
      teacher_.load_state(in, prefix + "teacher.");
    }
    schedule_ = std::move(schedule);
  }

 private:
  template <class Student, class Rollout, class Prediction>
  at::Tensor pull(Student& student, const Rollout& rollout, const Prediction& said) {
    at::Tensor mask, weights;
    if constexpr (requires { rollout.mask; }) mask = rollout.mask;
    if constexpr (requires { rollout.weights; }) weights = rollout.weights;
    weights = detail::product(weights, detail::open_gate(gate_, rollout.observations, said));
    return weighted(name, said, detail::ask_student(student, rollout), mask, weights);
  }

  Teacher teacher_;
  Gate gate_;
  std::size_t place_;
};

}  // namespace retain
