// SPDX-License-Identifier: MIT
// expect: a distillation term needs loss.policy_view, rollout.
#include <retain/compose.hpp>
#include <retain/ewc.hpp>
#include <retain/kickstarting.hpp>

using teacher = retain::categorical (*)(const at::Tensor&);

at::Tensor loss(retain::composition<retain::ewc, retain::kickstarting<teacher>>& keep,
                const std::vector<at::Tensor>& model) {
  return keep.loss(model);
}
