// SPDX-License-Identifier: MIT
// The path of version 0.1.
#pragma once

#include <retain/replay/prioritized.hpp>  // IWYU pragma: export
