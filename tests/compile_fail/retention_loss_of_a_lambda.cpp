// SPDX-License-Identifier: MIT
// expect: needs a model that can be called: pass retain::policy_view.model, forward.
#include <retain/retention.hpp>

at::Tensor loss(retain::retention<>& keep, const retain::steps& rollout) {
  return keep.loss([](const at::Tensor& o) { return retain::categorical{o}; }, rollout);
}
