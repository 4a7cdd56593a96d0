// SPDX-License-Identifier: MIT
// expect: rollout.done is ambiguous: name this member episode_start .1 at the first step of an
#include <retain/kickstarting.hpp>

struct rollout {
  at::Tensor observations, done;
};

at::Tensor ask(const rollout& steps) {
  static auto keep = retain::kickstarting{[](const at::Tensor& o) { return o; }};
  return keep.loss([](const at::Tensor& o) { return o; }, steps);
}
