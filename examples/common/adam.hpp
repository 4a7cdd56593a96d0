// SPDX-License-Identifier: MIT
// Adam in one pass over the parameters.
#pragma once

#include "vectorize.hpp"

#include <retain/error.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace training {

namespace detail {

RETAIN_VECTORIZE inline double sum_of_squares(const float* values, std::int64_t count) {
  double total = 0;
  // Sums in float within a block and in double across blocks: exact enough, and fast.
  constexpr std::int64_t block = 4096;
  for (std::int64_t start = 0; start < count; start += block) {
    const std::int64_t stop = start + block < count ? start + block : count;
    float lanes[32] = {};
    std::int64_t i = start;
    for (; i + 32 <= stop; i += 32)
      for (int lane = 0; lane < 32; ++lane) lanes[lane] += values[i + lane] * values[i + lane];
    float rest = 0;
    for (; i < stop; ++i) rest += values[i] * values[i];
    for (const float lane : lanes) rest += lane;
    total += static_cast<double>(rest);
  }
  return total;
}

struct adam_factors {
  float scale, beta1, beta2, step, root, epsilon;
};

RETAIN_VECTORIZE inline void adam_pass(float* __restrict__ parameter,
                                       const float* __restrict__ gradient, float* __restrict__ mean,
                                       float* __restrict__ square, std::int64_t count,
                                       adam_factors f) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * f.scale;
    const float m = f.beta1 * mean[i] + (1.0f - f.beta1) * g;
    const float v = f.beta2 * square[i] + (1.0f - f.beta2) * g * g;
    mean[i] = m;
    square[i] = v;
    parameter[i] -= f.step * m / (std::sqrt(v) * f.root + f.epsilon);
  }
}

}  // namespace detail

struct adam_options {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};

/// The update of torch::optim::Adam without weight decay,
///
///     m ← β1 m + (1−β1) g,   v ← β2 v + (1−β2) g²,
///     θ ← θ − lr · m / (1−β1^n) / (√(v / (1−β2^n)) + ε)
///
/// for float32 parameters on the CPU. torch::optim::Adam makes six passes over memory. For a small
/// network with a large embedding table, these cost as much as the backward pass. This class makes
/// one pass. Like torch::optim::Adam, it does not change a parameter without a gradient.
class adam {
 public:
  adam(std::vector<std::pair<std::string, at::Tensor>> parameters, adam_options options)
      : options_(options) {
    for (auto& [name, parameter] : parameters) {
      if (parameter.scalar_type() != at::kFloat || !parameter.device().is_cpu() ||
          !parameter.is_contiguous())
        throw retain::config_error("adam: parameter '" + name +
                                   "' must be a contiguous float32 tensor on the CPU");
      slots_.push_back({name, parameter,
                        at::zeros_like(parameter, parameter.options().requires_grad(false)),
                        at::zeros_like(parameter, parameter.options().requires_grad(false)), 0});
    }
  }

  void zero_grad() {
    for (auto& one : slots_) one.parameter.mutable_grad().reset();
  }

  double gradient_norm() const {
    double total = 0;
    for (const auto& one : slots_)
      if (const auto gradient = one.gradient(); gradient.defined())
        total += detail::sum_of_squares(gradient.data_ptr<float>(), gradient.numel());
    return std::sqrt(total);
  }

  /// Clips the gradients and makes one Adam step. If the norm of all gradients together exceeds
  /// `longest`, they are scaled to this norm, as in torch::nn::utils::clip_grad_norm_. `longest` =
  /// 0 means no limit. Returns the norm before clipping, or 0 if there is no limit.
  double step(double longest = 0) {
    const double norm = longest > 0 ? gradient_norm() : 0;
    const double scale = longest > 0 ? std::min(1.0, longest / (norm + 1e-6)) : 1.0;
    for (auto& one : slots_) {
      const auto gradient = one.gradient();
      if (!gradient.defined()) continue;
      const auto n = static_cast<double>(++one.steps);
      const detail::adam_factors factors{
          static_cast<float>(scale),
          static_cast<float>(options_.beta1),
          static_cast<float>(options_.beta2),
          static_cast<float>(options_.learning_rate / (1 - std::pow(options_.beta1, n))),
          static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, n))),
          static_cast<float>(options_.epsilon)};
      detail::adam_pass(one.parameter.data_ptr<float>(), gradient.data_ptr<float>(),
                        one.mean.data_ptr<float>(), one.square.data_ptr<float>(),
                        one.parameter.numel(), factors);
    }
    return norm;
  }

  void set_learning_rate(double rate) { options_.learning_rate = rate; }
  double learning_rate() const { return options_.learning_rate; }

  void save_state(retain::state& out, const std::string& prefix) const {
    for (const auto& one : slots_) {
      out.set(prefix + one.name + ".mean", one.mean);
      out.set(prefix + one.name + ".square", one.square);
      out.set(prefix + one.name + ".steps", one.steps);
    }
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    for (auto& one : slots_) {
      for (auto [what, tensor] :
           {std::pair{".mean", &one.mean}, std::pair{".square", &one.square}}) {
        const auto& saved = in.tensor(prefix + one.name + what);
        if (saved.sizes() != tensor->sizes())
          throw retain::shape_error("adam: the saved state of '" + one.name +
                                    "' does not have the shape of the parameter: use the options "
                                    "with which the network was made");
        tensor->copy_(saved);
      }
      one.steps = in.integer(prefix + one.name + ".steps");
    }
  }

 private:
  struct slot {
    std::string name;
    at::Tensor parameter, mean, square;
    std::int64_t steps;

    at::Tensor gradient() const {
      const at::Tensor& gradient = parameter.grad();
      return gradient.defined() ? gradient.contiguous() : gradient;
    }
  };
  adam_options options_;
  std::vector<slot> slots_;
};

}  // namespace training
