// SPDX-License-Identifier: MIT
// expect: rollout.masks: name this member mask
#include <retain/reference_kl.hpp>

struct rollout {
  at::Tensor observations, actions, masks;
};

at::Tensor ask(const rollout& steps) {
  static auto keep = retain::reference_kl{[](const at::Tensor& o) { return o; }};
  return keep.loss([](const at::Tensor& o) { return o; }, steps);
}
