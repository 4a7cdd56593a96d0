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
  /// which of rollout.teachers is this teacher's, where a rollout keeps the answers of several
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

/// Kickstarting: stay close to the teacher on the states that the student visits,
///
///     loss = c / N * sum over valid steps of w(s) KL(pi*(.|s) || pi(.|s)),   s from the student's own rollout of N valid steps
///
/// (Schmitt et al. 2018, arXiv 1803.03835), usually with c annealed; w is 1 unless you say
/// otherwise. The teacher is asked without a graph.
///
/// A rollout is any type with a member `observations`, and optionally
///   mask     [...] 1 where a step counts (padding is 0), beside what teacher and student mask themselves,
///   weights  [...] not negative: how much each step counts,
///   done     [...] 1 at the first step of an episode, where a recurrent teacher forgets the last one; note that gae() marks the last,
///   state    a recurrent student's state before the first step; with `done`, the student is called as
///            student(observations, state, done) -> {prediction, state}, see recurrent_policy, and its answer is what counts here,
///   teacher  the teacher's prediction for these steps (or its logits), asked once a rollout with `target` and not once an epoch;
///            a recurrent teacher must be asked so, since it moves on with every question,
///   teachers the same of several teachers, an array or vector: each term takes the one at its `place`.
///
/// A gate says where the teacher is to be trusted, as a callable (observations) or (observations,
/// the teacher's prediction) -> weights [...] in [0, 1] or bool: mahalanobis_gate, entropy_gate, or
/// a lambda. A step that it rejects loses its pull and the others keep theirs: N counts it still,
/// so that c means the same whatever the gate lets through. Anything but a positive weight counts
/// as 0, NaN too. Kickstarting where the teacher knows its way, cloning where it came from, and
/// several teachers are compositions:
///
///     compose(kickstarting{teacher, {.strength = 0.5}, mahalanobis_gate{seen_states}},
///             behavioral_cloning{seen_states, teacher, {.strength = 2.0}})
///     compose(kickstarting{runner, {.place = 0}, on_land}, kickstarting{swimmer, {.place = 1}, in_water})
///
/// where every term keeps its own schedule, and its state under its own name. With direction
/// student_teacher this is the whole reverse KL; reference_kl estimates that from the sampled
/// actions.
///
/// At strength 0 neither teacher nor student nor gate is asked.
template <class Teacher, class Gate = detail::no_gate>
class kickstarting : public detail::distillation_base {
 public:
  static constexpr const char* name = "kickstarting";

  explicit kickstarting(Teacher teacher, kickstarting_options options = {}, Gate gate = {})
      : distillation_base(std::move(options.strength), options.direction),
        teacher_(std::move(teacher)),
        gate_(std::move(gate)),
        place_(options.place) {}

  /// The teacher's prediction for a rollout. A recurrent teacher goes on from where the last
  /// rollout ended.
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

  /// A 0-dim tensor in the graph of `student`, a callable from observations to a prediction, or a
  /// recurrent_policy. Throws shape_error when mask or weights do not fit, config_error when
  /// rollout.teachers has no such place.
  template <class Student, class Rollout>
  at::Tensor loss(Student&& student, const Rollout& rollout) {
    if (strength() == 0.0) return at::zeros({});
    if constexpr (requires { rollout.teachers[0]; }) {
      if (place_ >= std::size(rollout.teachers))
        throw config_error(detail::concat(
            "kickstarting: the rollout keeps the answers of ", std::size(rollout.teachers),
            " teachers, this term's place is ", place_, " (counted from 0)"));
      return pull(student, rollout, detail::as_prediction(rollout.teachers[place_]));
    } else if constexpr (requires { rollout.teacher; }) {
      return pull(student, rollout, detail::as_prediction(rollout.teacher));
    } else {
      static_assert(
          !requires { requires Teacher::recurrent; },
          "a recurrent teacher moves on with every question: ask target(rollout) once and keep its "
          "answer as rollout.teacher");
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
