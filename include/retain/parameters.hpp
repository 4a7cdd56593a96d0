// SPDX-License-Identifier: MIT
// The named tensors of a model, of whatever kind it is.
#pragma once

#include <retain/core/parameters.hpp>  // IWYU pragma: export
