// SPDX-License-Identifier: MIT
// The activation after a layer: ReLU, leaky ReLU, ELU or tanh.
#pragma once

#include <retain/kernels/activation.hpp>  // IWYU pragma: export
