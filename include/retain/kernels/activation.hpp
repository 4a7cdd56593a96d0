// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace retain {

enum class activation_kind : std::uint8_t { relu, leaky_relu, elu, tanh };

/// Applies an activation. leaky_relu has slope 0.2 below 0.
inline at::Tensor activate(const at::Tensor& x, activation_kind kind) {
  switch (kind) {
    case activation_kind::leaky_relu: return at::leaky_relu(x, 0.2);
    case activation_kind::elu: return at::elu(x);
    case activation_kind::tanh: return at::tanh(x);
    default: return at::relu(x);
  }
}

namespace detail {

/// Applies an activation in place.
inline at::Tensor activate_in_place(at::Tensor x, activation_kind kind) {
  switch (kind) {
    case activation_kind::leaky_relu: return at::leaky_relu_(x, 0.2);
    case activation_kind::elu: return at::elu_(x);
    case activation_kind::tanh: return at::tanh_(x);
    default: return at::relu_(x);
  }
}

/// Returns the gradient of x from the gradient of y = activate(x). y is sufficient for every
/// activation here; x is not needed.
inline at::Tensor activation_gradient(const at::Tensor& gradient, const at::Tensor& y,
                                      activation_kind kind) {
  switch (kind) {
    case activation_kind::leaky_relu: return at::leaky_relu_backward(gradient, y, 0.2, true);
    case activation_kind::elu: return at::elu_backward(gradient, 1, 1, 1, true, y);
    case activation_kind::tanh: return at::tanh_backward(gradient, y);
    default: return at::threshold_backward(gradient, y, 0);
  }
}

}  // namespace detail
}  // namespace retain
