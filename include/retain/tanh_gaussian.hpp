// SPDX-License-Identifier: MIT
// A diagonal Gaussian whose samples tanh maps to (-1, 1).
#pragma once

#include <retain/distributions/tanh_gaussian.hpp>  // IWYU pragma: export
