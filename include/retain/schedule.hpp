// SPDX-License-Identifier: MIT
// Schedules: strengths that change during training.
#pragma once

#include <retain/core/schedule.hpp>           // IWYU pragma: export
#include <retain/core/strength_schedule.hpp>  // IWYU pragma: export
