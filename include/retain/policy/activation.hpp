// SPDX-License-Identifier: MIT
// What a layer is followed by: ReLU, leaky ReLU, ELU or tanh.
#pragma once

#include <retain/kernels/activation.hpp>  // IWYU pragma: export
