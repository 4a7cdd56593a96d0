// SPDX-License-Identifier: MIT
// A distribution over actions that can be counted.
#pragma once

#include <retain/distributions/categorical.hpp>  // IWYU pragma: export
