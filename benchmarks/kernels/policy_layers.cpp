// SPDX-License-Identifier: MIT
// Benchmarks of the small networks of an agent without image inputs, each for the forward and
// backward pass of a batch: the layers of the actor, two critics, the action of soft actor-critic,
// KL of Gaussians, and the losses.
#include "subject.hpp"

#include <retain/diagonal_gaussian.hpp>
#include <retain/loss/sac.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/policy/twin_critic.hpp>
#include <retain/tanh_gaussian.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kernels {
namespace {

constexpr std::int64_t batch = 128, inputs = 19;

void forget(const std::vector<at::Tensor>& parameters) {
  for (const auto& parameter : parameters) parameter.mutable_grad().reset();
}
double relative_error(const at::Tensor& mine, const at::Tensor& theirs) {
  return (mine - theirs).norm().item<double>() / theirs.norm().item<double>();
}

/// The number of operations of the forward pass, of the weight gradients, and of the input
/// gradients of every layer except the first.
double operations(std::int64_t width, std::int64_t outputs) {
  const auto products =
      static_cast<double>(3 * (width * width + width * outputs) + 2 * inputs * width);
  return 2 * static_cast<double>(batch) * products;
}

struct actor_layers {
  explicit actor_layers(std::int64_t width)
      : ours(inputs, retain::mlp_options{.hidden = {width, width}}) {
    const auto weights = ours->parameters();
    usual = torch::nn::Sequential(torch::nn::Linear(inputs, width), torch::nn::ReLU(),
                                  torch::nn::Linear(width, width), torch::nn::ReLU());
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < weights.size(); ++i) usual->parameters()[i].copy_(weights[i]);
    incoming = at::randn({batch, width});
  }
  void run_ours() {
    forget(ours->parameters());
    ours(x).backward(incoming);
  }
  void run_usual() {
    forget(usual->parameters());
    usual->forward(x).backward(incoming);
  }
  double error() {
    run_ours();
    run_usual();
    return relative_error(ours->parameters()[0].grad(), usual->parameters()[0].grad());
  }
  retain::mlp ours;
  torch::nn::Sequential usual;
  at::Tensor x = at::randn({batch, inputs}), incoming;
};

struct critics {
  explicit critics(std::int64_t width)
      : ours(inputs - 2, 2, retain::twin_critic_options{.hidden = {width, width}}) {
    const at::NoGradGuard no_grad;
    for (std::int64_t k = 0; k < 2; ++k) {
      apart.emplace_back(torch::nn::Linear(inputs, width), torch::nn::ReLU(),
                         torch::nn::Linear(width, width), torch::nn::ReLU(),
                         torch::nn::Linear(width, 1));
      for (std::size_t i = 0; i < 6; ++i) {
        const auto own = ours->parameters()[i][k];
        apart.back()->parameters()[i].copy_(i % 2 == 0 ? own.t() : own.squeeze(0));
      }
    }
  }
  void run_ours() {
    forget(ours->parameters());
    ours->forward(observations, actions).backward(incoming);
  }
  void run_usual() {
    const auto seen = at::cat({observations, actions}, 1);
    std::vector<at::Tensor> values;
    for (auto& one : apart) {
      forget(one->parameters());
      values.push_back(one->forward(seen).squeeze(-1));
    }
    at::stack(values).backward(incoming);
  }
  double error() {
    run_ours();
    run_usual();
    return relative_error(ours->parameters()[0].grad()[1], apart[1]->parameters()[0].grad().t());
  }
  retain::twin_critic ours;
  std::vector<torch::nn::Sequential> apart;
  at::Tensor observations = at::randn({batch, inputs - 2}), actions = at::randn({batch, 2}),
             incoming = at::randn({2, batch});
};

struct drawing {
  /// With `ours` = false, computes the action as public code does: normal noise from randn_like,
  /// and the logarithm of the derivative of tanh from softplus.
  static at::Tensor run(const at::Tensor& mean, const at::Tensor& log_std, bool ours) {
    forget({mean, log_std});
    if (ours) {
      const auto drawn = retain::tanh_gaussian(mean, log_std).rsample_with_log_prob();
      return drawn.log_prob.sum() + drawn.action.sum();
    }
    const auto std = log_std.exp(), u = mean + std * at::randn_like(mean);
    const auto density = -0.5 * ((u - mean) / std).square() - log_std - 0.91893853320467274178;
    const auto slope = 2 * (0.69314718055994530942 - u - at::softplus(-2 * u));
    return (density - slope).sum(-1).sum() + u.tanh().sum();
  }
};

struct gaussian_kl {
  /// With `ours` = false, uses the textbook formula with standard deviations.
  double run(bool ours) {
    forget({mean, log_std});
    if (ours) {
      const auto loss = kl(retain::diagonal_gaussian{other_mean, other_log_std},
                           retain::diagonal_gaussian{mean, log_std})
                            .mean();
      loss.backward();
      return loss.item<double>();
    }
    const auto p_std = other_log_std.exp(), q_std = log_std.exp();
    const auto loss = (log_std - other_log_std +
                       (p_std.square() + (other_mean - mean).square()) / (2 * q_std.square()) - 0.5)
                          .sum(-1)
                          .mean();
    loss.backward();
    return loss.item<double>();
  }
  const at::Tensor& compared() const { return log_std; }
  at::Tensor mean = at::randn({batch, 2}).set_requires_grad(true),
             log_std = at::randn({batch, 2}).set_requires_grad(true);
  at::Tensor other_mean = at::randn({batch, 2}), other_log_std = at::randn({batch, 2});
};

struct sac_losses {
  /// Computes the target and the losses of the critics and the actor from given values and
  /// log-densities.
  double run(bool ours) {
    forget({q, log_probs});
    at::Tensor loss;
    if (ours) {
      const auto y = retain::sac_target(rewards, ended, next_q, next_log_probs, alpha);
      loss = retain::sac_critic_loss(q, y) + retain::sac_policy_loss(q, log_probs, alpha).loss;
    } else {
      at::Tensor y;
      {
        const at::NoGradGuard no_grad;
        y = rewards +
            0.99 * (1 - ended) * (at::minimum(next_q[0], next_q[1]) - alpha * next_log_probs);
      }
      loss = 0.5 * (q[0] - y).square().mean() + 0.5 * (q[1] - y).square().mean() +
             (alpha * log_probs - at::minimum(q[0], q[1])).mean();
    }
    loss.backward();
    return loss.item<double>();
  }
  const at::Tensor& compared() const { return q; }
  at::Tensor q = at::randn({2, batch}).set_requires_grad(true),
             log_probs = at::randn({batch}).set_requires_grad(true), next_q = at::randn({2, batch});
  at::Tensor rewards = at::rand({batch}), ended = at::zeros({batch}),
             next_log_probs = at::randn({batch}), alpha = at::rand({batch});
};

/// A benchmark whose error is measured on the gradient of `Step::compared()`.
template <class Step>
subject step(std::string name) {
  return {.group = "policy layers, batch of 128",
          .name = std::move(name),
          .reach = {.usual = 1.5, .error = 1e-5},
          .prepare = [](at::Device) {
            const auto data = std::make_shared<Step>();
            return prepared{.run = [data] { data->run(true); },
                            .usual = way{"LibTorch's operations", [data] { data->run(false); }},
                            .error =
                                [data] {
                                  data->run(true);
                                  const auto mine = data->compared().grad().clone();
                                  data->run(false);
                                  return relative_error(mine, data->compared().grad());
                                }};
          }};
}

template <class Layers>
subject layers(std::string name, std::int64_t width, double work, goals reach) {
  reach.error = 1e-5;
  return {.group = "policy layers, batch of 128",
          .name = std::move(name),
          .limited_by = bound::products,
          .work = work,
          .reach = reach,
          .prepare = [=](at::Device) {
            const auto data = std::make_shared<Layers>(width);
            return prepared{.run = [data] { data->run_ours(); },
                            .usual = way{"torch::nn layers", [data] { data->run_usual(); }},
                            .error = [data] { return data->error(); }};
          }};
}

}  // namespace

std::vector<subject> policy_layers() {
  const goals faster{.usual = 1.5}, no_slower{.usual = 1.0};
  return {layers<actor_layers>("mlp 19-64-64, forward and backward", 64, operations(64, 0), faster),
          layers<actor_layers>("mlp 19-256-256, forward and backward", 256, operations(256, 0),
                               no_slower),
          layers<critics>("two critics 19-64-64-1, forward and backward", 64, 2 * operations(64, 1),
                          faster),
          layers<critics>("two critics 19-256-256-1, forward and backward", 256,
                          2 * operations(256, 1), no_slower),
          {.group = "policy layers, batch of 128",
           .name = "a squashed action of 2 with its log-density, forward and backward",
           .reach = faster,
           .prepare =
               [](at::Device) {
                 const auto mean = at::randn({batch, 2}).set_requires_grad(true),
                            log_std = at::randn({batch, 2}).set_requires_grad(true);
                 return prepared{.run = [=] { drawing::run(mean, log_std, true).backward(); },
                                 .usual = way{"LibTorch's operations", [=] {
                                                drawing::run(mean, log_std, false).backward();
                                              }}};
               }},
          step<gaussian_kl>("KL of Gaussians of 2, forward and backward"),
          step<sac_losses>("target and losses of soft actor-critic, forward and backward")};
}

}  // namespace kernels
