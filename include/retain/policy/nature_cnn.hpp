// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/policy/mlp.hpp>

#include <ATen/ATen.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace retain {

struct nature_cnn_options {
  std::int64_t channels = 4;
  std::int64_t height = 84;
  std::int64_t width = 84;
  std::int64_t outputs = 512;
  std::array<std::int64_t, 3> filters = {32, 64, 64};
  std::array<std::int64_t, 3> kernels = {8, 4, 3};
  std::array<std::int64_t, 3> strides = {4, 2, 1};
  activation_kind activation = activation_kind::relu;
  /// false: the last layer is linear, as in the target of random network distillation
  bool output_activation = true;
  double scale = 1.0 / 255;  ///< multiplies the pixels
};

/// The convolutional network of Mnih et al. (Nature, 2015): [..., channels, height, width] of any
/// type -> [..., outputs]. Parameters: convolution0.*, convolution1.*, convolution2.*, linear.*
class nature_cnn_net : public torch::nn::Cloneable<nature_cnn_net> {
 public:
  /// Throws config_error if a kernel is larger than its input.
  explicit nature_cnn_net(nature_cnn_options options = {}) : options_(options) { reset(); }

  void reset() override {
    std::int64_t before = options_.channels, height = options_.height, width = options_.width;
    for (std::size_t i = 0; i < convolutions_.size(); ++i) {
      const auto kernel = options_.kernels[i], stride = options_.strides[i];
      if (kernel > height || kernel > width)
        throw config_error(detail::concat("nature_cnn: a kernel of ", kernel, " does not fit the ",
                                          height, " x ", width, " input of layer ", i));
      convolutions_[i] = register_module(
          detail::concat("convolution", i),
          torch::nn::Conv2d(
              torch::nn::Conv2dOptions(before, options_.filters[i], kernel).stride(stride)));
      before = options_.filters[i];
      height = (height - kernel) / stride + 1;
      width = (width - kernel) / stride + 1;
    }
    linear_ =
        register_module("linear", torch::nn::Linear(before * height * width, options_.outputs));
  }

  std::int64_t output_size() const { return options_.outputs; }

  /// Computes the features. Throws shape_error if the images have another size.
  at::Tensor forward(const at::Tensor& pictures) {
    const std::array<std::int64_t, 3> one{options_.channels, options_.height, options_.width};
    if (pictures.dim() < 3 || pictures.sizes().slice(static_cast<std::size_t>(
                                  pictures.dim() - 3)) != at::IntArrayRef(one))
      throw shape_error(detail::concat("nature_cnn: pictures need the shape [..., ", one[0], ", ",
                                       one[1], ", ", one[2], "], got ",
                                       detail::shape_text(pictures.sizes())));
    auto x = pictures.reshape({-1, one[0], one[1], one[2]}).to(linear_->weight.scalar_type()) *
             options_.scale;
    for (auto& convolution : convolutions_) x = activate(convolution(x), options_.activation);
    x = linear_(x.flatten(1));
    if (options_.output_activation) x = activate(x, options_.activation);
    auto sizes = pictures.sizes().slice(0, static_cast<std::size_t>(pictures.dim() - 3)).vec();
    sizes.push_back(options_.outputs);
    return x.view(sizes);
  }

 private:
  nature_cnn_options options_;
  std::array<torch::nn::Conv2d, 3> convolutions_{{nullptr, nullptr, nullptr}};
  torch::nn::Linear linear_{nullptr};
};

/// A shared handle to a nature_cnn_net, like LibTorch's module holders: a copy is the same network.
class nature_cnn : public torch::nn::ModuleHolder<nature_cnn_net> {
 public:
  using torch::nn::ModuleHolder<nature_cnn_net>::ModuleHolder;
};

}  // namespace retain
