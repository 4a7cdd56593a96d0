// SPDX-License-Identifier: MIT
// Strengths that change as training goes on.
#pragma once

#include <retain/core/schedule.hpp>           // IWYU pragma: export
#include <retain/core/strength_schedule.hpp>  // IWYU pragma: export
