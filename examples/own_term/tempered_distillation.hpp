// SPDX-License-Identifier: MIT
// An output term of your own: distillation at a temperature T (Hinton et al. 2015, arXiv
// 1503.02531).
//
//     loss = c T^2 / N * sum over the N valid steps of KL(softmax(z* / T) || softmax(z / T))
#pragma once

#include <retain/term.hpp>

template <class Teacher>
struct tempered_distillation {
  static constexpr const char* name = "tempered";
  Teacher teacher;
  double temperature = 2;
  retain::strength_schedule strength = 1.0;

  template <class Student, class Rollout>
  at::Tensor loss(Student&& student, const Rollout& rollout) {
    if (strength.value() == 0) return at::zeros({});
    const auto softened = [&](const auto& said) {
      return retain::masked{retain::categorical{retain::distribution_of(said).logits / temperature},
                            retain::mask_of(said)};
    };
    const auto means = retain::mean_divergence(
        name, retain::divergence::teacher_student, softened(retain::ask_teacher(teacher, rollout)),
        softened(retain::ask(student, rollout)), rollout.mask);
    return means.divergence * (strength.value() * temperature * temperature);
  }
  retain::strength_schedule& schedule() { return strength; }

  void save_state(retain::state& out, const std::string& prefix) const {
    strength.save_state(out, prefix + "strength.");
    teacher.save_state(out, prefix + "teacher.");
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    auto loaded = strength;  // so that nothing changes if a part does not fit
    loaded.load_state(in, prefix + "strength.");
    teacher.load_state(in, prefix + "teacher.");
    strength = std::move(loaded);
  }
};
