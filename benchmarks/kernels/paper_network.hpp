// SPDX-License-Identifier: MIT
// The network of the NetHack experiments of Wolczyk et al. 2024: 32 931 352 parameters, an actor
// and a critic on a convolutional view of the screen and an LSTM.
#pragma once

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/pooling.h>
#include <torch/nn/modules/rnn.h>

#include <cstdint>
#include <memory>
#include <utility>

namespace kernels {

/// The layout of an observation, with one byte per value: the top line, the two bottom lines, the
/// characters and colors of the screen, the characters and colors of the 9 x 9 cells around the
/// cursor, and the last action.
struct screen_bytes {
  static constexpr std::int64_t rows = 21, columns = 80, crop = 9, actions = 121;
  static constexpr std::int64_t top = columns, bottom = 2 * columns, screen = rows * columns,
                                near = crop * crop;
  static constexpr std::int64_t size = top + bottom + 2 * screen + 2 * near + 1;
};

/// Two convolutions with a residual connection.
class residual_block : public torch::nn::Module {
 public:
  explicit residual_block(std::int64_t channels) {
    for (int i = 0; i < 2; ++i) {
      layers_->push_back(
          torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, channels, 3).padding(1)));
      layers_->push_back(torch::nn::BatchNorm2d(channels));
      layers_->push_back(torch::nn::ELU());
    }
    register_module("layers", layers_);
  }
  at::Tensor forward(const at::Tensor& x) { return x + layers_->forward(x); }

 private:
  torch::nn::Sequential layers_;
};

class paper_network : public torch::nn::Module {
 public:
  static constexpr std::int64_t parameter_count = 32'931'352, width = 1738;

  struct answer {
    at::Tensor logits;  ///< [T, N, 121], float32
    at::Tensor value;   ///< [T, N], float32
  };

  paper_network() {
    using namespace torch::nn;
    // one-hot characters times a matrix, computed as a sum of rows
    letters_ = register_module("letters", Embedding(256 * screen_bytes::top, 64));
    letters_bias_ = register_parameter("letters_bias", at::zeros({64}));
    top_ = register_module("top", Linear(64, 64));
    bottom_ =
        register_module("bottom", Sequential(Conv1d(Conv1dOptions(2, 32, 8).stride(4)), ELU(),
                                             Conv1d(Conv1dOptions(32, 64, 4)), ELU(), Flatten(),
                                             Linear(2304, 128), ELU(), Linear(128, 128), ELU()));
    characters_ = register_module("characters", Embedding(256, 16));
    colors_ = register_module("colors", Embedding(128, 16));
    const auto convolution = [](std::int64_t from, std::int64_t to) {
      return Conv2d(Conv2dOptions(from, to, 3).padding(1));
    };
    const auto halve = [] { return MaxPool2d(MaxPool2dOptions(3).stride(2)); };
    screen_ = register_module(
        "screen", Sequential(convolution(32, 16), halve(), residual_block(16), residual_block(16),
                             convolution(16, 32), halve(), residual_block(32), residual_block(32),
                             Flatten(), Linear(2432, 512), ELU()));
    near_ = Sequential();
    for (const auto& [from, to] : {std::pair{32, 16}, {16, 16}, {16, 16}, {16, 16}, {16, 8}}) {
      near_->push_back(convolution(from, to));
      near_->push_back(BatchNorm2d(to));
      near_->push_back(ELU());
    }
    register_module("near", near_);
    trunk_ = register_module("trunk",
                             Sequential(Linear(1473, width), ReLU(), Linear(width, width), ReLU()));
    core_ = register_module("core", LSTM(LSTMOptions(width, width)));
    policy_ = register_module("policy", Linear(width, screen_bytes::actions));
    value_ = register_module("value", Linear(width, 1));
    std::int64_t count = 0;
    for (const auto& parameter : parameters()) count += parameter.numel();
    TORCH_CHECK(count == parameter_count, "the paper's network has ", parameter_count,
                " parameters, but this network has ", count);
  }

  /// Computes logits and values for T steps of N games. `observations` has the type uint8 and the
  /// shape [T, N, screen_bytes::size].
  answer forward(const at::Tensor& observations) {
    const auto steps = observations.size(0), games = observations.size(1);
    const auto seen = observations.view({steps * games, screen_bytes::size});
    const auto parts =
        seen.split_with_sizes({screen_bytes::top, screen_bytes::bottom, screen_bytes::screen,
                               screen_bytes::screen, screen_bytes::near, screen_bytes::near, 1},
                              1);
    const auto place = at::arange(screen_bytes::top, seen.options().dtype(at::kLong)) * 256;
    const auto top =
        at::elu(top_(at::elu(letters_(parts[0].to(at::kLong) + place).sum(1) + letters_bias_)));
    const auto text = parts[1].to(at::kFloat);
    const auto digits = text.gt(44).logical_and(text.lt(58)).to(at::kFloat) * (text - 47) / 10;
    const auto bottom = bottom_->forward(at::stack({(text - 32) / 96, digits}, 1));
    const auto screen =
        screen_->forward(embedded(parts[2], parts[3], screen_bytes::rows, screen_bytes::columns));
    const auto near =
        near_->forward(embedded(parts[4], parts[5], screen_bytes::crop, screen_bytes::crop))
            .flatten(1);
    const auto last =
        at::one_hot(parts[6].squeeze(1).to(at::kLong), screen_bytes::actions).to(at::kFloat);
    const auto trunk = trunk_->forward(at::cat({top, bottom, screen, near, last}, 1));
    const auto hidden = std::get<0>(core_->forward(trunk.view({steps, games, width})));
    return {policy_(hidden).to(at::kFloat), value_(hidden).squeeze(-1).to(at::kFloat)};
  }

 private:
  at::Tensor embedded(const at::Tensor& characters, const at::Tensor& colors, std::int64_t rows,
                      std::int64_t columns) {
    // [n, cells, 32]
    const auto cells =
        at::cat({characters_(characters.to(at::kLong)), colors_(colors.to(at::kLong))}, 2);
    return cells.transpose(1, 2).reshape({characters.size(0), 32, rows, columns});
  }

  torch::nn::Embedding letters_{nullptr}, characters_{nullptr}, colors_{nullptr};
  at::Tensor letters_bias_;
  torch::nn::Linear top_{nullptr}, policy_{nullptr}, value_{nullptr};
  torch::nn::Sequential bottom_{nullptr}, screen_{nullptr}, near_{nullptr}, trunk_{nullptr};
  torch::nn::LSTM core_{nullptr};
};

}  // namespace kernels
