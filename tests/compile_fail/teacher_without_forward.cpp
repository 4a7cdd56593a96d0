// SPDX-License-Identifier: MIT
// expect: a teacher needs a module with forward.observations., or a forward function
#include <retain/teacher.hpp>

#include <torch/nn/cloneable.h>

struct trunk : torch::nn::Cloneable<trunk> {
  void reset() override {}
  at::Tensor features(const at::Tensor& observations) { return observations; }
};

auto ask(const retain::teacher<std::shared_ptr<trunk>>& teacher, const at::Tensor& observations) {
  return teacher(observations);
}
