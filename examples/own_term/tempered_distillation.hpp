// SPDX-License-Identifier: MIT
// An output term of your own: distillation at a temperature T (Hinton et al. 2015, arXiv
// 1503.02531).
//
//     loss = c T^2 / N * sum over the N valid steps of KL(softmax(z* / T) || softmax(z / T))
#pragma once

#include <retain/term.hpp>

template <class Teacher>
class tempered_distillation {
 public:
  static constexpr const char* name = "tempered";

  tempered_distillation(Teacher teacher, double temperature, retain::strength_schedule strength)
      : teacher_(std::move(teacher)), temperature_(temperature), strength_(std::move(strength)) {}

  template <class Student, class Rollout>
  at::Tensor loss(Student&& student, const Rollout& rollout) {
    if (strength_.value() == 0) return at::zeros({});
    const auto target = softened(retain::ask_teacher(teacher_, rollout));
    const auto answer = softened(retain::ask(student, rollout));
    const auto means = retain::mean_divergence(name, retain::divergence::teacher_student, target,
                                               answer, rollout.mask);
    return means.divergence * (strength_.value() * temperature_ * temperature_);
  }
  retain::strength_schedule& schedule() { return strength_; }

  void save_state(retain::state& out, const std::string& prefix) const {
    strength_.save_state(out, prefix + "strength.");
    teacher_.save_state(out, prefix + "teacher.");
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    auto strength = strength_;  // so that nothing changes if a part does not fit
    strength.load_state(in, prefix + "strength.");
    teacher_.load_state(in, prefix + "teacher.");
    strength_ = std::move(strength);
  }

 private:
  template <class Prediction>
  retain::masked<retain::categorical> softened(const Prediction& prediction) const {
    return {retain::categorical{retain::distribution_of(prediction).logits / temperature_},
            retain::mask_of(prediction)};
  }

  Teacher teacher_;
  double temperature_;
  retain::strength_schedule strength_;
};
