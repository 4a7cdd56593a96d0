// SPDX-License-Identifier: MIT
// expect: rollout.episode_starts: name this member episode_start
#include <retain/steps.hpp>

struct rollout {
  at::Tensor observations, episode_starts;
};

at::Tensor ask(const rollout& steps) {
  return retain::ask([](const at::Tensor& o) { return o; }, steps).logits;
}
