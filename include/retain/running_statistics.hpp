// SPDX-License-Identifier: MIT
// The mean and variance of all that was seen so far.
#pragma once

#include <retain/core/running_statistics.hpp>  // IWYU pragma: export
