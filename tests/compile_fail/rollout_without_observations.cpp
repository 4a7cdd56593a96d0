// SPDX-License-Identifier: MIT
// expect: a rollout needs a member observations
#include <retain/steps.hpp>

struct rollout {
  at::Tensor screens;
};

at::Tensor ask(const rollout& steps) {
  return retain::ask([](const at::Tensor& o) { return o; }, steps).logits;
}
