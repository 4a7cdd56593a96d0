// SPDX-License-Identifier: MIT
// Running mean and variance of observations and rewards, for normalization.
#pragma once

#include <retain/core/running_statistics.hpp>  // IWYU pragma: export
