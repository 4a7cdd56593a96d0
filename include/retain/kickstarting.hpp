// SPDX-License-Identifier: MIT
#pragma once

#include <retain/core/new_episodes.hpp>
#include <retain/distributions/prediction.hpp>
#include <retain/distributions/probabilities.hpp>
#include <retain/teacher.hpp>
#include <retain/terms/ask.hpp>
#include <retain/terms/distillation.hpp>
#include <retain/terms/rollout.hpp>

#include <ATen/core/grad_mode.h>

#include <concepts>
#include <cstddef>
#include <iterator>
#include <string>
#include <type_traits>
#include <utility>

namespace retain {

struct kickstarting_options {
  strength_schedule strength = 1.0;
  divergence direction = divergence::teacher_student;
  /// the index of this teacher in rollout.teachers, if a rollout has the predictions of several
  /// teachers
  std::size_t teacher_index = 0;
};

namespace detail {
struct no_gate {};

/// Returns the gate's weights. A gate that takes (observations, state, episode_start) gets
/// new_episodes{}, because the rollout's state is the student's.
template <class Gate, class Rollout, class Prediction>
at::Tensor open_gate(Gate& gate, const Rollout& rollout, const Prediction& teacher) {
  const at::NoGradGuard no_grad;
  const auto& observations = rollout.observations;
  using observed = std::remove_cvref_t<decltype(observations)>;
  if constexpr (std::same_as<Gate, no_gate>) {
    return {};
  } else if constexpr (std::invocable<Gate&, const observed&, const Prediction&>) {
    return gate(observations, teacher);
  } else {
    const at::Tensor episode_start = rollout_episode_start(rollout);
    if constexpr (std::invocable<Gate&, const observed&, new_episodes, const at::Tensor&>) {
      if constexpr (std::invocable<Gate&, const observed&>)
        if (!episode_start.defined()) return gate(observations);
      if (!episode_start.defined())
        throw config_error("kickstarting: the gate takes (observations, state, episode_start), but "
                           "the rollout has no episode_start: give 1 at the first step of an "
                           "episode, 0 at every other step");
      return gate(observations, new_episodes{}, episode_start);
    } else {
      return gate(observations);
    }
  }
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
/// A rollout is retain::steps, or any type with a member `observations`. These members are
/// optional, and an undefined tensor is absent:
///
/// - `mask` [...]: 1 for a valid step, 0 for padding. It is combined with the masks of the
///   teacher's and the student's predictions.
/// - `weights` [...]: the weight of each step, not negative.
/// - `episode_start` [...]: 1 at the first step of an episode, where a recurrent student or teacher
///   resets its state. Note that terminated and truncated mark the last step instead.
/// - `state`: the state of a recurrent student before the first step. Without it, the student gets
///   new_episodes{} (see ask and recurrent_policy).
/// - `teacher`: the teacher's prediction for these steps, or its logits. Compute it once per
///   rollout with `target`, so that the teacher is not evaluated again in every epoch. For a
///   recurrent teacher this is required, because every evaluation changes its state.
/// - `teachers`: an array or vector with the predictions of several teachers. Each term uses the
///   prediction at its `teacher_index`.
///
/// Names that look like these, such as `done` or `masks`, are refused when compiling.
///
/// A recurrent teacher is a retain::teacher, which goes on from the end of the previous rollout, or
/// a callable (observations, state, episode_start), which starts anew with every rollout.
///
/// A gate decides on which states the teacher is used. It is a callable (observations),
/// (observations, teacher's prediction) or (observations, state, episode_start) that returns
/// weights [...] in [0, 1] or bool. The last one is for features with memory; they start anew with
/// every rollout. Examples are mahalanobis_gate, entropy_gate and a lambda. A step with gate weight
/// 0 adds nothing to the loss, but N still counts it. Therefore a gate does not change the loss of
/// the other steps. A weight that is NaN or not positive counts as 0.
///
/// Combine several terms with compose. The first example uses kickstarting on states that resemble
/// the pre-training states and behavioral cloning on the pre-training states themselves. The second
/// example has two teachers.
///
///     compose(kickstarting{teacher, {.strength = 0.5}, mahalanobis_gate{seen_states}},
///             behavioral_cloning{seen_states, teacher, {.strength = 2.0}})
///     compose(kickstarting{runner, {.teacher_index = 0}, on_land},
///             kickstarting{swimmer, {.teacher_index = 1}, in_water})
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
        teacher_index_(options.teacher_index) {}

  /// Returns the teacher's prediction for a rollout. A recurrent retain::teacher continues with its
  /// state from the end of the previous rollout. Throws config_error if it needs an episode_start
  /// that is undefined.
  template <class Rollout>
  auto target(const Rollout& rollout) {
    detail::check_rollout<Rollout>();
    const at::NoGradGuard no_grad;
    return detail::ask_along(teacher_, rollout);
  }

  /// Returns a 0-dim tensor in the graph of `student`. `student` is a callable that maps
  /// observations to a prediction, or a recurrent_policy. Throws shape_error if the mask or the
  /// weights have a wrong shape. Throws config_error if rollout.teachers has no entry at this
  /// term's teacher_index, if a recurrent teacher or student lacks an input, and at the first loss
  /// with gradients if the teacher adopted the student's tensors (see teacher).
  template <class Student, class Rollout>
  [[nodiscard]] at::Tensor loss(Student&& student, const Rollout& rollout) {
    detail::check_rollout<Rollout>();
    if (strength() == 0.0) return at::zeros({});
    if constexpr (requires { rollout.teachers[0]; }) {
      if (std::size(rollout.teachers) > 0) {
        if (teacher_index_ >= std::size(rollout.teachers))
          throw config_error(detail::concat(
              "kickstarting: the rollout has the predictions of ", std::size(rollout.teachers),
              " teachers, but this term's teacher_index is ", teacher_index_, " (counted from 0)"));
        return pull(student, rollout, detail::as_prediction(rollout.teachers[teacher_index_]));
      }
    }
    if constexpr (requires { rollout.teacher; })
      if (teacher_index_ > 0)
        throw config_error(detail::concat(
            "kickstarting: this term's teacher_index is ", teacher_index_,
            ", but the rollout has no predictions of several teachers: put them into "
            "rollout.teachers"));
    if constexpr (requires { rollout.teacher.defined(); }) {
      if (rollout.teacher.defined())
        return pull(student, rollout, detail::as_prediction(rollout.teacher));
    }
    if constexpr (requires { rollout.teacher; } && !requires { rollout.teacher.defined(); })
      return pull(student, rollout, detail::as_prediction(rollout.teacher));
    else
      return live(student, rollout);
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
  /// The loss of a rollout that does not hold the teacher's prediction.
  template <class Student, class Rollout>
  at::Tensor live(Student& student, const Rollout& rollout) {
    using observations = std::remove_cvref_t<decltype(rollout.observations)>;
    constexpr bool stored = requires { rollout.teacher; } || requires { rollout.teachers; };
    constexpr bool alone = detail::takes_observations<Teacher, observations>,
                   steps_along = detail::steps_along<Teacher, observations>;
    if constexpr (!alone &&
                  (steps_along || (stored && !detail::takes_state<Teacher, observations>))) {
      static_assert(stored, "every call of a recurrent teacher changes its state: call "
                            "target(rollout) once and store the result as rollout.teacher");
      throw config_error("kickstarting: the rollout has no prediction of the teacher, and the "
                         "teacher cannot be asked in every epoch, because every call of a "
                         "recurrent one changes its state: call target(rollout) once and store the "
                         "result (its logits, in retain::steps) as rollout.teacher");
    } else if constexpr (steps_along) {
      // Of the two ways to call this teacher, this one does not move its state.
      return pull(student, rollout, detail::as_prediction(teacher_(rollout.observations)));
    } else {
      return pull(student, rollout, target(rollout));
    }
  }

  template <class Student, class Rollout, class Prediction>
  at::Tensor pull(Student& student, const Rollout& rollout, const Prediction& said) {
    const at::Tensor weights =
        detail::product(detail::rollout_weights(rollout), detail::open_gate(gate_, rollout, said));
    const auto answer = ask(student, rollout);
    if (!asked_) {
      detail::refuse_probabilities("kickstarting: the teacher", said);
      detail::refuse_probabilities("kickstarting: the student", answer);
      asked_ = true;
    }
    const auto means =
        mean_divergence(name, direction_, said, answer, detail::rollout_mask(rollout), weights);
    last_ = means.divergence.detach();
    if (means.weight.defined()) weight_ = means.weight;
    if (!checked_ && at::GradMode::is_enabled()) {
      detail::check_adopted(name, teacher_, student, means.divergence);
      checked_ = true;
    }
    return means.divergence * strength();
  }

  Teacher teacher_;
  Gate gate_;
  std::size_t teacher_index_;
  bool asked_ = false;
  bool checked_ = false;  // whether the teacher may share tensors with the student
};

}  // namespace retain
