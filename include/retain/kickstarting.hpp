// SPDX-License-Identifier: MIT
#pragma once

#include <retain/detail/distillation.hpp>
#include <retain/teacher.hpp>

namespace retain {

struct kickstarting_options {
  strength_schedule strength = 1.0;
  divergence direction = divergence::teacher_student;
};

/// Kickstarting: stay close to the teacher on the states that the student visits,
///
///     loss = c * mean over valid steps of KL(pi*(.|s) || pi(.|s)),   s from the student's own rollout
///
/// (Schmitt et al. 2018, arXiv 1803.03835), usually with c annealed. The teacher is asked without a graph.
///
/// A rollout is any type with a member `observations`, and optionally
///   mask     [...] 1 where a step counts (padding is 0),
///   done     [...] 1 at the first step of an episode, where a recurrent teacher forgets the last one; note that gae() marks the last,
///   teacher  the teacher's prediction for these steps (or its logits), asked once a rollout with `target` and not once an epoch;
///            a recurrent teacher must be asked so, since it moves on with every question.
///
/// At strength 0 neither teacher nor student is asked.
template <class Teacher>
class kickstarting : public detail::distillation_base {
 public:
  static constexpr const char* name = "kickstarting";

  explicit kickstarting(Teacher teacher, kickstarting_options options = {})
      : distillation_base(std::move(options.strength), options.direction), teacher_(std::move(teacher)) {}

  /// The teacher's prediction for a rollout. A recurrent teacher goes on from where the last rollout ended.
  template <class Rollout>
  auto target(const Rollout& rollout) {
    const at::NoGradGuard no_grad;
    if constexpr (requires { requires Teacher::recurrent; }) {
      static_assert(requires { rollout.done; }, "a recurrent teacher needs rollout.done: 1 at the first step of an episode");
      return teacher_.step(rollout.observations, rollout.done);
    } else {
      return detail::as_prediction(teacher_(rollout.observations));
    }
  }

  /// A 0-dim tensor in the graph of `student`, a callable from observations to a prediction.
  template <class Student, class Rollout>
  at::Tensor loss(Student&& student, const Rollout& rollout) {
    if (strength() == 0.0) return at::zeros({});
    at::Tensor mask;
    if constexpr (requires { rollout.mask; }) mask = rollout.mask;
    if constexpr (requires { rollout.teacher; }) {
      return weighted(detail::as_prediction(rollout.teacher), detail::as_prediction(student(rollout.observations)), mask);
    } else {
      static_assert(!requires { requires Teacher::recurrent; },
                    "a recurrent teacher moves on with every question: ask target(rollout) once and keep its answer as rollout.teacher");
      return weighted(target(rollout), detail::as_prediction(student(rollout.observations)), mask);
    }
  }

  const Teacher& teacher() const { return teacher_; }

  void save_state(state& out, const std::string& prefix) const {
    schedule_.save_state(out, prefix + "schedule.");
    if constexpr (stateful<Teacher>) teacher_.save_state(out, prefix + "teacher.");
  }
  void load_state(const state& in, const std::string& prefix) {
    if constexpr (stateful<Teacher>) teacher_.load_state(in, prefix + "teacher.");
    schedule_.load_state(in, prefix + "schedule.");
  }

 private:
  Teacher teacher_;
};

}  // namespace retain
