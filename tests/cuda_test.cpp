// SPDX-License-Identifier: MIT
// Everything that computes, on a GPU, held to the same on the CPU. Without a GPU each case runs on the CPU alone, so that the
// checks themselves are known to hold, and is reported as SKIPPED.
#include <retain/retain.hpp>

#include <iostream>

#include "support.hpp"

namespace {

/// Calls check(device) for the CPU and for the GPU where there is one.
template <class Check>
void on_devices(Check check) {
  check(at::Device(at::kCPU));
  if (torch::cuda::is_available())
    check(at::Device(at::kCUDA));
  else
    std::cout << "SKIPPED: no GPU that LibTorch can use\n";
}

struct network : torch::nn::Cloneable<network> {
  network() { reset(); }
  void reset() override {
    convolution = register_module("convolution", torch::nn::Conv2d(torch::nn::Conv2dOptions(2, 4, 3)));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({16})));
    head = register_module("head", torch::nn::Linear(16, 5));
  }
  at::Tensor forward(const at::Tensor& x) { return head(torch::tanh(norm(torch::relu(convolution(x)).flatten(1)))); }
  torch::nn::Conv2d convolution{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  torch::nn::Linear head{nullptr};
};
using network_ptr = std::shared_ptr<network>;

network_ptr make_network(at::Device device) {
  torch::manual_seed(4);
  auto net = std::make_shared<network>();
  net->to(device);
  return net;
}
network_ptr moved(const network& net, double by) {
  auto result = std::dynamic_pointer_cast<network>(net.clone());
  const at::NoGradGuard no_grad;
  for (auto& p : result->parameters()) p.add_(by);
  return result;
}
at::Tensor observations(at::Device device) {
  torch::manual_seed(5);
  return torch::randn({12, 2, 4, 4}).to(device);
}

struct rollout {
  at::Tensor observations, mask;
};

}  // namespace

TEST_CASE("cuda: weight penalties, value and both gradients", "[cuda]") {
  std::vector<double> values;
  std::vector<std::vector<at::Tensor>> gradients;
  on_devices([&](at::Device device) {
    const auto net = make_network(device);
    retain::parameter_list importance;
    for (const auto& [name, p] : retain::parameters(net)) importance.push_back({name, p.detach().abs()});
    const retain::ewc keep{net, importance, {.strength = 30.0, .groups = {{"head.*", 0.5}}}};
    const auto now = moved(*net, 0.25);

    const auto value = keep.add_gradient(now);
    CHECK(value.device().type() == device.type());  // reading it is the caller's to decide: nothing here waits for the device
    values.push_back(value.item<double>());
    std::vector<at::Tensor> fused;
    for (auto& p : now->parameters()) {
      CHECK(p.grad().device().type() == device.type());
      fused.push_back(p.grad().cpu().clone());
      p.mutable_grad() = at::Tensor();
    }
    keep.loss(now).backward();
    for (std::size_t i = 0; i < fused.size(); ++i) CHECK(support::relative_error(now->parameters()[i].grad().cpu(), fused[i]) < 1e-6);
    gradients.push_back(fused);
  });
  for (std::size_t d = 1; d < values.size(); ++d) {
    CHECK(values[d] == Approx(values[0]).epsilon(1e-6));
    for (std::size_t i = 0; i < gradients[0].size(); ++i) CHECK(support::relative_error(gradients[d][i], gradients[0][i]) < 1e-6);
  }
}

TEST_CASE("cuda: a penalty follows a model that is moved, and a state goes from one device to the other", "[cuda]") {
  const support::temporary_folder folder;
  on_devices([&](at::Device device) {
    const auto net = make_network(at::Device(at::kCPU));
    retain::l2_init keep{net, {.strength = 2.0}};
    const auto now = moved(*net, 0.5);
    const double expected = keep.loss(now).item<double>();
    now->to(device);
    CHECK(keep.loss(now).item<double>() == Approx(expected).epsilon(1e-6));
    CHECK(keep.add_gradient(now).item<double>() == Approx(expected).epsilon(1e-6));

    retain::save(folder.file("state"), keep);
    retain::l2_init again{now, {.strength = 2.0}};
    retain::load(folder.file("state"), again);
    CHECK(again.loss(now).item<double>() == Approx(expected).epsilon(1e-6));
  });
}

TEST_CASE("cuda: the Fisher, by the walk and one sample at a time", "[cuda]") {
  std::vector<retain::fisher> found;
  on_devices([&](at::Device device) {
    const auto net = make_network(device);
    const auto forward = [&](const at::Tensor& o) { return retain::categorical{net->forward(o)}; };
    for (const bool walk : {true, false}) {
      found.push_back(retain::estimate_fisher(net, observations(device), forward, retain::exact_actions{}, {.walk = walk}));
      for (const auto& [name, path] : found.back().paths)
        CHECK((path == (walk ? retain::fisher_path::graph_walk : retain::fisher_path::per_sample)));
    }
    // Actions are drawn from numbers of the CPU's generator, so that equal seeds draw equal actions on every device.
    found.push_back(retain::estimate_fisher(net, observations(device), forward, retain::sampled_actions{.per_state = 2, .seed = 3}));
  });
  for (std::size_t d = 3; d < found.size(); ++d)
    for (std::size_t i = 0; i < found[d].values.size(); ++i) {
      INFO(found[d].values[i].name);
      CHECK(support::relative_error(found[d].values[i].tensor.cpu(), found[d - 3].values[i].tensor) < 1e-3);
    }
  for (std::size_t i = 0; i < found[0].values.size(); ++i)
    CHECK(support::relative_error(found[0].values[i].tensor, found[1].values[i].tensor) < 1e-4);
}

TEST_CASE("cuda: the Fisher of an LSTM in eval mode", "[cuda]") {
  struct lstm_policy : torch::nn::Module {
    lstm_policy() {
      core = register_module("core", torch::nn::LSTM(3, 6));
      head = register_module("head", torch::nn::Linear(6, 4));
    }
    torch::nn::LSTM core{nullptr};
    torch::nn::Linear head{nullptr};
  };
  std::vector<retain::fisher> found;
  on_devices([&](at::Device device) {
    torch::manual_seed(6);
    lstm_policy net;
    const auto states = torch::randn({5, 3, 3}).to(device);  // [T, N, 3]
    net.to(device);
    net.eval();
    const auto forward = [&](const at::Tensor& o) { return retain::categorical{net.head(std::get<0>(net.core->forward(o)))}; };
    found.push_back(retain::estimate_fisher(net, std::vector{states}, forward, retain::sampled_actions{.per_state = 1, .seed = 1}));
  });
  for (std::size_t d = 1; d < found.size(); ++d)
    for (std::size_t i = 0; i < found[d].values.size(); ++i) {
      INFO(found[d].values[i].name);
      CHECK(support::relative_error(found[d].values[i].tensor.cpu(), found[0].values[i].tensor) < 1e-3);
    }
  CHECK(found[0].states == 15);
}

TEST_CASE("cuda: kickstarting and cloning, value and gradient", "[cuda]") {
  std::vector<double> values;
  std::vector<at::Tensor> gradients;
  on_devices([&](at::Device device) {
    const auto net = make_network(device);
    const retain::teacher teacher{net};
    auto keep = retain::compose(retain::kickstarting{teacher, {.strength = 0.5}},
                                retain::behavioral_cloning{observations(device), teacher, {.strength = 2.0, .batch_size = 7, .seed = 2}});
    const auto now = moved(*net, 0.25);
    const auto student = [&](const at::Tensor& o) { return retain::categorical{now->forward(o)}; };
    auto mask = torch::ones({12});
    mask[3] = 0;
    const auto loss = keep.distillation(student, rollout{observations(device), mask.to(device)});
    CHECK(loss.device().type() == device.type());
    loss.backward();
    values.push_back(loss.item<double>());
    gradients.push_back(now->head->weight.grad().cpu());
  });
  for (std::size_t d = 1; d < values.size(); ++d) {
    CHECK(values[d] == Approx(values[0]).epsilon(1e-4));
    CHECK(support::relative_error(gradients[d], gradients[0]) < 1e-3);
  }
  CHECK(values[0] > 0);
}
