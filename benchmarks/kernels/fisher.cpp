// SPDX-License-Identifier: MIT
// Benchmarks of the diagonal Fisher of 256 states (sequences for a recurrent policy). The times
// are compared with one gradient per sample and with one forward and backward pass of the whole
// batch, which every estimate needs.
#include "subject.hpp"

#include <retain/categorical.hpp>
#include <retain/fisher.hpp>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/rnn.h>

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace kernels {
namespace {

/// The activation between layers. The timed networks use ReLU. The comparison with float64 uses
/// the smooth tanh: with ReLU, rounding can change the sign of an input, which changes the
/// derivative for every method.
enum class between { relu, tanh };

struct activation : torch::nn::Module {
  explicit activation(between of) : kind(of) {}
  at::Tensor forward(const at::Tensor& x) {
    return kind == between::relu ? at::relu(x) : at::tanh(x);
  }
  between kind;
};

struct mlp : torch::nn::Module {
  explicit mlp(between of = between::relu)
      : layers(torch::nn::Linear(256, 512), activation(of), torch::nn::Linear(512, 512),
               activation(of), torch::nn::Linear(512, 121)) {
    register_module("layers", layers);
  }
  at::Tensor forward(const at::Tensor& x) { return layers->forward(x); }
  static at::Tensor states(std::int64_t n) { return at::randn({n, 256}); }
  static constexpr std::int64_t sample_dimension = 0;
  torch::nn::Sequential layers;
};

struct lstm : torch::nn::Module {
  explicit lstm(between = between::relu) {  // an LSTM is already smooth
    register_module("core", core);
    register_module("head", head);
  }
  at::Tensor forward(const at::Tensor& x) {
    const auto out = std::get<0>(core->forward(x));
    return head(out.reshape({-1, 128})).view({x.size(0), x.size(1), 18});
  }
  static at::Tensor states(std::int64_t n) { return at::randn({16, n, 64}); }
  static constexpr std::int64_t sample_dimension = 1;
  torch::nn::LSTM core{torch::nn::LSTMOptions(64, 128)};
  torch::nn::Linear head{128, 18};
};

struct nature_cnn : torch::nn::Module {
  explicit nature_cnn(between of = between::relu)
      : pixels(torch::nn::Conv2d(torch::nn::Conv2dOptions(4, 32, 8).stride(4)), activation(of),
               torch::nn::Conv2d(torch::nn::Conv2dOptions(32, 64, 4).stride(2)), activation(of),
               torch::nn::Conv2d(torch::nn::Conv2dOptions(64, 64, 3)), activation(of)),
        layers(torch::nn::Linear(3136, 512), activation(of), torch::nn::Linear(512, 18)) {
    register_module("pixels", pixels);
    register_module("layers", layers);
  }
  at::Tensor forward(const at::Tensor& x) { return layers->forward(pixels->forward(x).flatten(1)); }
  static at::Tensor states(std::int64_t n) { return at::rand({n, 4, 84, 84}); }
  static constexpr std::int64_t sample_dimension = 0;
  torch::nn::Sequential pixels, layers;
};

/// A network, states, and one action per state. The actions are drawn once, so that all
/// implementations use the same gradients.
template <class Network>
struct task {
  task(at::Device device, std::int64_t n, between of = between::relu)
      : network(of), states(Network::states(n).to(device)) {
    network.to(device);
    const at::NoGradGuard no_grad;
    actions = retain::categorical{network.forward(states)}.sample();
    network.eval();
  }

  std::vector<at::Tensor> gradients(const at::Tensor& score) {
    return torch::autograd::grad({score}, network.parameters());
  }

  void forward_backward() {
    gradients(retain::categorical{network.forward(states)}.log_prob(actions).sum());
  }

  /// Computes one gradient per sample, squares it and adds it. This is the definition, and correct
  /// public code does the same.
  std::vector<at::Tensor> loop() {
    std::vector<at::Tensor> sums;
    for (const auto& parameter : network.parameters())
      sums.push_back(at::zeros_like(parameter.detach()));
    constexpr auto dimension = Network::sample_dimension;
    for (std::int64_t n = 0; n < states.size(dimension); ++n) {
      const auto one =
          gradients(retain::categorical{network.forward(states.narrow(dimension, n, 1))}
                        .log_prob(actions.narrow(dimension, n, 1))
                        .sum());
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i].addcmul_(one[i], one[i]);
    }
    for (auto& sum : sums) sum.div_(static_cast<double>(actions.numel()));
    return sums;
  }

  retain::fisher estimate() {
    return retain::estimate_fisher(
        network, states,
        [this](const at::Tensor& x) { return retain::categorical{network.forward(x)}; },
        retain::dataset_actions{[this](const at::Tensor&) { return actions; }});
  }

  /// The largest relative error of a parameter's Fisher against the loop in float64.
  double error() {
    const auto ours = estimate();
    network.to(at::kDouble);
    states = states.to(at::kDouble);
    const auto truth = loop();
    double worst = 0;
    for (std::size_t i = 0; i < truth.size(); ++i)
      worst = std::max(worst, (ours.values[i].tensor - truth[i]).norm().template item<double>() /
                                  truth[i].norm().template item<double>());
    return worst;
  }

  Network network;
  at::Tensor states, actions;
};

template <class Network>
subject diagonal(std::string name, goals reach) {
  reach.error = 1e-5;
  return {
      .group = "diagonal Fisher, 256 states",
      .name = std::move(name),
      .reach = reach,
      .prepare =
          [](at::Device device) {
            const auto t = std::make_shared<task<Network>>(device, 256);
            return prepared{
                .run = [t] { t->estimate(); },
                .usual = way{"one gradient per sample", [t] { t->loop(); }},
                .yardstick = way{"forward + backward", [t] { t->forward_backward(); }},
                .error = [device] { return task<Network>(device, 256, between::tanh).error(); }};
          },
      .on_gpu = !std::is_same_v<Network, lstm>};  // cuDNN has no backward pass in eval mode
}

/// A batch that is large enough for a GPU.
template <class Network>
subject many(std::string name, std::int64_t states) {
  return {.group = "diagonal Fisher of many states",
          .name = name + ", " + std::to_string(states) + " states",
          .prepare =
              [states](at::Device device) {
                const auto t = std::make_shared<task<Network>>(device, states);
                return prepared{
                    .run = [t] { t->estimate(); },
                    .yardstick = way{"forward + backward", [t] { t->forward_backward(); }}};
              },
          .on_cpu = false,
          .on_gpu = true};
}

/// The exact Fisher over 121 actions, compared with 121 backward passes of the whole batch without
/// squares.
subject exact() {
  return {.group = "diagonal Fisher, 256 states",
          .name = "MLP, exact over 121 actions",
          .prepare =
              [](at::Device device) {
                const auto t = std::make_shared<task<mlp>>(device, 256);
                const auto forward = [t](const at::Tensor& x) {
                  return retain::categorical{t->network.forward(x)};
                };
                return prepared{
                    .run =
                        [t, forward] {
                          (void)retain::estimate_fisher(t->network, t->states, forward,
                                                        retain::exact_actions{});
                        },
                    .usual = way{"121 backward passes",
                                 [t] {
                                   const auto scores =
                                       retain::categorical{t->network.forward(t->states)};
                                   for (std::int64_t a = 0; a < 121; ++a)
                                     torch::autograd::grad({scores.score(a).sum()},
                                                           t->network.parameters(), {},
                                                           /*retain_graph=*/true);
                                 }},
                    .yardstick = way{"forward + backward", [t] { t->forward_backward(); }}};
              },
          .on_gpu = true};
}

}  // namespace

std::vector<subject> fisher_estimates() {
  return {diagonal<mlp>("MLP 256-512-512-121, sampled", {.usual = 12.0, .yardstick = 1.4}),
          diagonal<lstm>("LSTM 64-128, 16 steps, sampled", {.usual = 9.0, .yardstick = 1.6}),
          diagonal<nature_cnn>("Nature CNN 4 x 84 x 84, sampled", {.usual = 2.0, .yardstick = 1.6}),
          exact(),
          many<mlp>("MLP 256-512-512-121, sampled", 65'536),
          many<nature_cnn>("Nature CNN 4 x 84 x 84, sampled", 2048)};
}

}  // namespace kernels
