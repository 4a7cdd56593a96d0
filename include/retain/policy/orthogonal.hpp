// SPDX-License-Identifier: MIT
#pragma once

#include <retain/parameters.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/init.h>

namespace retain {

/// Orthogonal initialisation (Saxe et al. 2014, arXiv 1312.6120), in place: every parameter of two dimensions or more whose name ends in
/// "weight" becomes `gain` times a matrix with orthonormal rows or columns (a convolution's kernels are its rows), every bias 0. A twin_critic,
/// whose parameters hold a matrix for each critic, has an overload of its own: give it by itself, not inside another module.
template <parameter_source M>
void orthogonal(const M& model, double gain) {
  const at::NoGradGuard no_grad;
  for (auto [name, tensor] : parameters(model)) {
    if (tensor.dim() >= 2 && name.ends_with("weight"))
      torch::nn::init::orthogonal_(tensor, gain);
    else if (name.ends_with("bias"))
      tensor.zero_();
  }
}

}  // namespace retain
