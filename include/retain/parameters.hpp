// SPDX-License-Identifier: MIT
// Lists the named tensors of any kind of model.
#pragma once

#include <retain/core/parameters.hpp>  // IWYU pragma: export
