// SPDX-License-Identifier: MIT
// The saved state of an object: named tensors, numbers and texts, and their file format.
#pragma once

#include <retain/core/state.hpp>  // IWYU pragma: export
