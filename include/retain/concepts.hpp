// SPDX-License-Identifier: MIT
// The concepts that distributions, policies and terms must satisfy.
#pragma once

#include <retain/core/concepts.hpp>   // IWYU pragma: export
#include <retain/terms/concepts.hpp>  // IWYU pragma: export
