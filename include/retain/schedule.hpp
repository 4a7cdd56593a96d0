// SPDX-License-Identifier: MIT
// Strengths that change as training goes on.
#pragma once

#include <retain/core/schedule.hpp>  // IWYU pragma: export
