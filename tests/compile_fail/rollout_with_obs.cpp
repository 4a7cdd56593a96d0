// SPDX-License-Identifier: MIT
// expect: rollout.obs: name this member observations
#include <retain/steps.hpp>

struct rollout {
  at::Tensor obs;
};

at::Tensor ask(const rollout& steps) {
  return retain::ask([](const at::Tensor& o) { return o; }, steps).logits;
}
