// SPDX-License-Identifier: MIT
// The recurrent state of a policy.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace retain {

enum class core_kind : std::uint8_t { none, gru, lstm };

/// A GRU (Cho et al. 2014) or an LSTM (Hochreiter and Schmidhuber 1997) whose state can be reset in
/// the middle of a sequence. The GRU applies the reset gate after the matrix product, like
/// torch::nn::GRU. The core consists of linear layers, so it has a backward pass in eval mode on
/// every device, and the Fisher's graph walk supports it. The gates have the order of torch::nn.
/// Parameters: input.*, hidden.*
class recurrent_core_net : public torch::nn::Cloneable<recurrent_core_net> {
 public:
  /// Throws config_error if the kind is none or a width is below 1.
  recurrent_core_net(core_kind kind, std::int64_t inputs, std::int64_t width)
      : kind_(kind), inputs_(inputs), width_(width) {
    if (kind_ == core_kind::none || inputs_ < 1 || width_ < 1)
      throw config_error(
          detail::concat("recurrent_core: must be a gru or an lstm of widths of at least 1, got ",
                         inputs_, " and ", width_));
    reset();
  }

  void reset() override {
    const std::int64_t gates = kind_ == core_kind::gru ? 3 : 4;
    input_ = register_module("input", torch::nn::Linear(inputs_, gates * width_));
    hidden_ = register_module("hidden", torch::nn::Linear(width_, gates * width_));
    const at::NoGradGuard no_grad;
    // The bias of the forget gate starts at 1, so that the LSTM initially keeps its cell state.
    if (kind_ == core_kind::lstm) hidden_->bias.narrow(0, width_, width_).add_(1);
  }

  std::int64_t output_size() const { return width_; }
  std::int64_t state_width() const { return kind_ == core_kind::gru ? width_ : 2 * width_; }

  /// inputs [N, inputs] for one step, or [T, N, inputs] for T steps -> outputs [..., width] and the
  /// state after the last step, [N, state_width()]. The state of an LSTM is the output, then the
  /// cell. An undefined state counts as zeros. episode_start, [N] or [T, N], bool or 0 and 1, is 1
  /// at the first step of an episode, and the state is reset before this step; an undefined
  /// episode_start marks no step. Throws shape_error if the shapes do not fit.
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& inputs, const at::Tensor& state = {},
                                            const at::Tensor& episode_start = {}) {
    if ((inputs.dim() != 2 && inputs.dim() != 3) || inputs.size(-1) != inputs_)
      throw shape_error(detail::concat("recurrent_core: inputs need the shape [N, ", inputs_,
                                       "] or [T, N, ", inputs_, "], got ",
                                       detail::shape_text(inputs.sizes())));
    const auto n = inputs.size(-2), length = inputs.dim() == 3 ? inputs.size(0) : 1;
    if (episode_start.defined() &&
        episode_start.sizes() !=
            inputs.sizes().slice(0, static_cast<std::size_t>(inputs.dim() - 1)))
      throw shape_error(detail::concat(
          "recurrent_core: episode_start of shape ", detail::shape_text(episode_start.sizes()),
          " for inputs of shape ", detail::shape_text(inputs.sizes())));
    if (state.defined() &&
        (state.dim() != 2 || state.size(0) != n || state.size(1) != state_width()))
      throw shape_error(detail::concat("recurrent_core: the state needs the shape [", n, ", ",
                                       state_width(), "], got ",
                                       detail::shape_text(state.sizes())));

    const auto from = state.defined()
                          ? state
                          : at::zeros({n, state_width()}, inputs.options().requires_grad(false));
    std::vector<at::Tensor> begins;
    if (episode_start.defined())
      begins = episode_start.to(inputs.device(), at::kBool).reshape({length, n, 1}).unbind(0);
    // for all steps at once
    const auto gates =
        input_(inputs.reshape({-1, inputs_})).view({length, n, hidden_->weight.size(0)});
    std::vector<at::Tensor> outputs;
    outputs.reserve(static_cast<std::size_t>(length));
    const auto next = kind_ == core_kind::gru ? gru(gates, begins, from, outputs)
                                              : lstm(gates, begins, from, outputs);
    if (outputs.empty())
      return {at::zeros({length, n, width_}, inputs.options().requires_grad(false)), next};
    return {inputs.dim() == 3 ? at::stack(outputs) : outputs.front(), next};
  }

 private:
  static at::Tensor reset_where(const at::Tensor& carried, const std::vector<at::Tensor>& begins,
                                std::size_t t) {
    // masked_fill also removes NaN, which a product with 0 would keep
    return begins.empty() ? carried : carried.masked_fill(begins[t], 0);
  }

  at::Tensor gru(const at::Tensor& gates, const std::vector<at::Tensor>& begins, at::Tensor h,
                 std::vector<at::Tensor>& outputs) {
    const auto parts = gates.split_with_sizes({2 * width_, width_}, 2);
    const auto gate = parts[0].unbind(0), candidate = parts[1].unbind(0);
    for (std::size_t t = 0; t < gate.size(); ++t) {
      const auto before = reset_where(h, begins, t);
      const auto from_hidden = hidden_(before).split_with_sizes({2 * width_, width_}, 1);
      const auto reset_update = at::sigmoid(gate[t] + from_hidden[0]).chunk(2, 1);
      h = at::lerp(at::tanh(at::addcmul(candidate[t], reset_update[0], from_hidden[1])), before,
                   reset_update[1]);
      outputs.push_back(h);
    }
    return h;
  }

  at::Tensor lstm(const at::Tensor& gates, const std::vector<at::Tensor>& begins,
                  const at::Tensor& state, std::vector<at::Tensor>& outputs) {
    const auto gate = gates.unbind(0);
    auto h = state.narrow(1, 0, width_), c = state.narrow(1, width_, width_);
    for (std::size_t t = 0; t < gate.size(); ++t) {
      // input, forget, candidate, output
      const auto parts = (gate[t] + hidden_(reset_where(h, begins, t))).chunk(4, 1);
      c = at::addcmul(at::sigmoid(parts[1]) * reset_where(c, begins, t), at::sigmoid(parts[0]),
                      at::tanh(parts[2]));
      h = at::sigmoid(parts[3]) * at::tanh(c);
      outputs.push_back(h);
    }
    return at::cat({h, c}, 1);
  }

  core_kind kind_;
  std::int64_t inputs_, width_;
  torch::nn::Linear input_{nullptr}, hidden_{nullptr};
};

/// A shared handle to a recurrent_core_net, like LibTorch's module holders: a copy is the same
/// network.
class recurrent_core : public torch::nn::ModuleHolder<recurrent_core_net> {
 public:
  using torch::nn::ModuleHolder<recurrent_core_net>::ModuleHolder;
};

}  // namespace retain
