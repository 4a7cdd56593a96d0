// SPDX-License-Identifier: MIT
// expect: must be callable as policy.observations., or as policy.observations, state, episode_start
#include <retain/monitor.hpp>

struct stepping_teacher {
  retain::categorical step(const at::Tensor& observations, const at::Tensor&) {
    return retain::categorical{observations};
  }
};

retain::monitor watch{stepping_teacher{}};
