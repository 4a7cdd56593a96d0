// SPDX-License-Identifier: MIT
// An optional recurrent layer of the policy between its trunk and its heads. It carries a state
// from step to step.
#pragma once

#include <retain/error.hpp>

#include <ATen/ATen.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/linear.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nethack {

enum class core_kind : std::uint8_t { none, gru, lstm };

inline const char* name(core_kind kind) {
  return kind == core_kind::gru ? "gru" : kind == core_kind::lstm ? "lstm" : "none";
}
inline core_kind core_of_name(std::string_view text) {
  for (const auto kind : {core_kind::none, core_kind::gru, core_kind::lstm})
    if (text == name(kind)) return kind;
  throw retain::config_error("there is no core '" + std::string(text) + "': use none, gru or lstm");
}

/// x ↦ x + h of a GRU (Cho et al. 2014, with the reset gate after the matrix, as torch::nn::GRU) or
/// an LSTM (Hochreiter and Schmidhuber 1997). Without a core x ↦ x, with no parameters and an empty
/// state. Parameters: input.*, hidden.*
class recurrent_core : public torch::nn::Cloneable<recurrent_core> {
 public:
  recurrent_core(core_kind kind, int width) : kind_(kind), width_(width) { reset(); }

  void reset() override {
    if (kind_ == core_kind::none) return;
    const int gates = kind_ == core_kind::gru ? 3 : 4;
    input_ = register_module("input", torch::nn::Linear(width_, gates * width_));
    hidden_ = register_module("hidden", torch::nn::Linear(width_, gates * width_));
    const at::NoGradGuard no_grad;
    // a positive forget bias, so that the cell remembers at first
    if (kind_ == core_kind::lstm) hidden_->bias.narrow(0, width_, width_).add_(1);
  }

  std::int64_t state_width() const {
    return kind_ == core_kind::none ? 0 : kind_ == core_kind::gru ? width_ : 2 * width_;
  }

  /// inputs [steps · n, width], step by step. first [steps, n], or [n] for one step: 1 if the state
  /// is reset before the step. state [n, state_width()]; undefined for n new games. Returns the
  /// outputs and the state after the last step.
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& inputs, const at::Tensor& first,
                                            const at::Tensor& state) {
    if (kind_ == core_kind::none) return {inputs, state};
    const auto n = first.size(-1), steps = first.numel() / n;
    const auto kept = (1 - first.to(inputs.scalar_type())).view({steps, n, 1}).unbind(0);
    const auto gates = input_(inputs).view({steps, n, -1});  // for all steps at once
    const auto from = state.defined()
                          ? state
                          : at::zeros({n, state_width()}, inputs.options().requires_grad(false));
    TORCH_CHECK(from.dim() == 2 && from.size(0) == n && from.size(1) == state_width(),
                "a state of shape ", from.sizes(), " for ", n, " games of width ", state_width());
    std::vector<at::Tensor> outputs;
    outputs.reserve(static_cast<std::size_t>(steps));
    auto next = kind_ == core_kind::gru ? gru(gates, kept, from, outputs)
                                        : lstm(gates, kept, from, outputs);
    return {inputs + at::cat(outputs), std::move(next)};
  }

 private:
  at::Tensor gru(const at::Tensor& gates, const std::vector<at::Tensor>& kept, at::Tensor h,
                 std::vector<at::Tensor>& outputs) {
    const auto parts = gates.split_with_sizes({2 * width_, width_}, 2);
    const auto gate = parts[0].unbind(0), candidate = parts[1].unbind(0);
    for (std::size_t t = 0; t < kept.size(); ++t) {
      const auto before = h * kept[t];
      const auto from_hidden = hidden_(before).split_with_sizes({2 * width_, width_}, 1);
      const auto reset_update = at::sigmoid(gate[t] + from_hidden[0]).chunk(2, 1);
      h = at::lerp(at::tanh(at::addcmul(candidate[t], reset_update[0], from_hidden[1])), before,
                   reset_update[1]);
      outputs.push_back(h);
    }
    return h;
  }

  at::Tensor lstm(const at::Tensor& gates, const std::vector<at::Tensor>& kept,
                  const at::Tensor& state, std::vector<at::Tensor>& outputs) {
    const auto gate = gates.unbind(0);
    auto h = state.narrow(1, 0, width_), c = state.narrow(1, width_, width_);
    for (std::size_t t = 0; t < kept.size(); ++t) {
      // input, forget, candidate, output
      const auto parts = (gate[t] + hidden_(h * kept[t])).chunk(4, 1);
      c = at::addcmul(at::sigmoid(parts[1]) * (c * kept[t]), at::sigmoid(parts[0]),
                      at::tanh(parts[2]));
      h = at::sigmoid(parts[3]) * at::tanh(c);
      outputs.push_back(h);
    }
    return at::cat({h, c}, 1);
  }

  core_kind kind_;
  std::int64_t width_;
  torch::nn::Linear input_{nullptr}, hidden_{nullptr};
};

}  // namespace nethack
