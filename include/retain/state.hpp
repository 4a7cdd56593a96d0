// SPDX-License-Identifier: MIT
// What is saved and loaded: named tensors, numbers and texts, and their file.
#pragma once

#include <retain/core/state.hpp>  // IWYU pragma: export
