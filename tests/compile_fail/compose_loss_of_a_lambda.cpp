// SPDX-License-Identifier: MIT
// expect: needs a model that can be called: pass retain::policy_view.model, forward.
#include <retain/compose.hpp>
#include <retain/ewc.hpp>
#include <retain/kickstarting.hpp>

using teacher = retain::categorical (*)(const at::Tensor&);
struct rollout {
  at::Tensor observations;
};

at::Tensor loss(retain::composition<retain::ewc, retain::kickstarting<teacher>>& keep,
                const rollout& steps) {
  return keep.loss([](const at::Tensor& o) { return retain::categorical{o}; }, steps);
}
