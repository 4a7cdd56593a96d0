// SPDX-License-Identifier: MIT
// expect: a policy must be callable as policy.observations.
#include <retain/kickstarting.hpp>

using teacher = retain::categorical (*)(const at::Tensor&);
struct rollout {
  at::Tensor observations;
};
struct network {
  at::Tensor forward(const at::Tensor& observations) { return observations; }
};

at::Tensor loss(retain::kickstarting<teacher>& keep, network& policy, const rollout& steps) {
  return keep.loss(policy, steps);
}
