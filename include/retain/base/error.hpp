// SPDX-License-Identifier: MIT
// The exceptions retain throws. They are thrown when something is set up, loaded or first matched
// against a model; each text says what is wrong, where, and what to do about it.
#pragma once

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

/// A model and a stored state do not belong together: a parameter is missing, extra or of another
/// kind, or an importance is negative or not finite.
struct state_error : error {
  using error::error;
};

/// A file cannot be read or written, is truncated, or is damaged.
struct io_error : error {
  using error::error;
};

/// An option or an argument is out of its range, or asks for something that has no meaning.
struct config_error : error {
  using error::error;
};

}  // namespace retain
