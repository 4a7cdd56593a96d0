// SPDX-License-Identifier: MIT
// expect: the student's distributions are not those of the set; name them:
#include <retain/diagonal_gaussian.hpp>
#include <retain/retention.hpp>

at::Tensor loss(retain::retention<>& keep, const retain::steps& rollout) {
  return keep.distillation([](const at::Tensor& o) { return retain::diagonal_gaussian{o, o}; },
                           rollout);
}
