// SPDX-License-Identifier: MIT
// expect: the teacher of a monitor must map observations to a prediction without a state; wrap a
#include <retain/monitor.hpp>

struct recurrent_teacher {
  static constexpr bool recurrent = true;
  retain::categorical step(const at::Tensor& observations, const at::Tensor&) {
    return retain::categorical{observations};
  }
};

retain::monitor watch{recurrent_teacher{}};
