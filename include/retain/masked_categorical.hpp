// SPDX-License-Identifier: MIT
// A categorical distribution in which some actions are not allowed.
#pragma once

#include <retain/distributions/masked_categorical.hpp>  // IWYU pragma: export
