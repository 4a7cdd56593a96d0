// SPDX-License-Identifier: MIT
// expect: gatherable
#include <retain/behavioral_cloning.hpp>

auto keep = retain::behavioral_cloning{42, at::Tensor()};
