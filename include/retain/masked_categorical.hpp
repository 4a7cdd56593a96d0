// SPDX-License-Identifier: MIT
// The same where some actions are illegal.
#pragma once

#include <retain/distributions/masked_categorical.hpp>  // IWYU pragma: export
