// SPDX-License-Identifier: MIT
// A normal distribution with one standard deviation for each dimension.
#pragma once

#include <retain/distributions/diagonal_gaussian.hpp>  // IWYU pragma: export
