// SPDX-License-Identifier: MIT
// The same, squashed into (-1, 1).
#pragma once

#include <retain/distributions/tanh_gaussian.hpp>  // IWYU pragma: export
