// SPDX-License-Identifier: MIT
// What a distribution, a policy and a term must have.
#pragma once

#include <retain/core/concepts.hpp>  // IWYU pragma: export
