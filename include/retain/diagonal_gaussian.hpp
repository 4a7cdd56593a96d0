// SPDX-License-Identifier: MIT
// A normal distribution with a deviation for each dimension.
#pragma once

#include <retain/distributions/diagonal_gaussian.hpp>  // IWYU pragma: export
