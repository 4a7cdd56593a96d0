// SPDX-License-Identifier: MIT
// A product of categorical distributions.
#pragma once

#include <retain/distributions/multi_discrete.hpp>  // IWYU pragma: export
