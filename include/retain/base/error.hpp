// SPDX-License-Identifier: MIT
// The exceptions that retain throws. The library checks its input when an object is constructed or
// loaded, and when the object is first used with a model. Each text says what is wrong, where, and
// what you can do.
#pragma once

#if (defined(_MSVC_LANG) ? _MSVC_LANG : __cplusplus) < 202002L
#error "retain needs C++20: compile with -std=c++20, in CMake set(CMAKE_CXX_STANDARD 20)"
#endif

#include <stdexcept>

namespace retain {

/// Base of every exception of this library.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Two tensors that belong together have different shapes; the text names the parameter and both
/// shapes.
struct shape_error : error {
  using error::error;
};

/// A stored state does not fit the model: a parameter is missing, does not belong to the model or
/// has another type, or an importance is negative or not finite.
struct state_error : error {
  using error::error;
};

/// A file cannot be read or written, is truncated, or is damaged.
struct io_error : error {
  using error::error;
};

/// An option or an argument is out of its range or makes no sense.
struct config_error : error {
  using error::error;
};

}  // namespace retain
