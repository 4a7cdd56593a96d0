// SPDX-License-Identifier: MIT
// A distribution over discrete actions.
#pragma once

#include <retain/distributions/categorical.hpp>  // IWYU pragma: export
