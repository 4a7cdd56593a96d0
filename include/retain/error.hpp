// SPDX-License-Identifier: MIT
// The errors that this library throws.
#pragma once

#include <retain/base/error.hpp>  // IWYU pragma: export
