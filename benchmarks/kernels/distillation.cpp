// SPDX-License-Identifier: MIT
// Benchmarks of KL(teacher ‖ student) over the rows of a batch: the value, and the gradient with
// respect to the student's logits.
#include "subject.hpp"

#include <retain/categorical.hpp>
#include <retain/kickstarting.hpp>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/variable.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kernels {
namespace {

struct rows {
  rows(at::Device device, std::int64_t n, std::int64_t actions)
      : teacher(3 * at::randn({n, actions}, device)),
        student((teacher + at::randn({n, actions}, device)).set_requires_grad(true)) {}

  void ours() {
    student.mutable_grad() = at::Tensor();
    kl(retain::categorical{teacher}, retain::categorical{student}).mean().backward();
  }
  /// The same KL with LibTorch's operations: kl_div of log-probabilities, with the target as
  /// logarithms.
  void usual() {
    student.mutable_grad() = at::Tensor();
    at::kl_div(at::log_softmax(student, -1), at::log_softmax(teacher, -1), at::Reduction::Sum,
               /*log_target=*/true)
        .div(student.size(0))
        .backward();
  }
  double disagreement() {
    ours();
    const auto mine = student.grad().to(at::kDouble);
    usual();
    return (mine - student.grad()).norm().item<double>() / mine.norm().item<double>();
  }
  at::Tensor teacher, student;
};

subject divergence(std::int64_t n, std::int64_t actions, goals reach) {
  reach.error = 1e-5;
  // The least traffic: both logits are read and the gradient is written.
  return {.group = "distillation",
          .name = "KL(teacher ‖ student), value and gradient, " + std::to_string(n) + " x " +
                  std::to_string(actions),
          .limited_by = bound::memory,
          .work = 16.0 * static_cast<double>(n * actions),
          .reach = reach,
          .prepare =
              [=](at::Device device) {
                const auto data = std::make_shared<rows>(device, n, actions);
                return prepared{.run = [data] { data->ours(); },
                                .usual = way{"LibTorch's kl_div", [data] { data->usual(); }},
                                .error = [data] { return data->disagreement(); }};
              },
          .on_gpu = true};
}

}  // namespace

std::vector<subject> distillation_terms() {
  return {divergence(4096, 121, {.usual = 2.5}), divergence(512, 23, {.usual = 1.0}),
          divergence(4096, 18, {.usual = 1.0}), divergence(256, 4096, {.usual = 1.0})};
}

}  // namespace kernels
