// SPDX-License-Identifier: MIT
// One process of a group over Gloo: estimates a Fisher on its part of the states, reduces it, and
// takes a step with averaged gradients. It compares both with what one process computes.
//
//     processes_worker well|dies|hangs RANK SIZE FILE
//
// FILE is where the processes find each other. With `dies`, the last rank ends before the first
// call; with `hangs`, it waits. Exit code: 0 all is right, 1 a number is wrong, 3 state_error.
#include <retain/distributed.hpp>
#include <retain/ewc.hpp>

#include <torch/torch.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

namespace {

struct net_impl : torch::nn::Module {
  net_impl() : body(register_module("body", torch::nn::Linear(6, 8))) {
    head = register_module("head", torch::nn::Linear(8, 4));
    to(torch::kDouble);
  }
  torch::Tensor forward(const torch::Tensor& o) { return head(body(o).tanh()); }
  torch::nn::Linear body{nullptr}, head{nullptr};
};
TORCH_MODULE_IMPL(net, net_impl);

net same_net() {
  torch::manual_seed(4);
  return net();
}

retain::fisher fisher_of(net& model, const torch::Tensor& states) {
  return retain::estimate_fisher(
      model, states, [&](const torch::Tensor& o) { return retain::categorical{model->forward(o)}; },
      retain::exact_actions{});
}

/// Gradients of the task on the states, without a step.
void backward(net& model, const torch::Tensor& states) {
  model->zero_grad();
  model->forward(states).square().mean().backward();
}

int run(const std::string& mode, int rank, int size, const std::string& file) {
  torch::set_num_threads(1);
  auto options = c10d::ProcessGroupGloo::Options::create();
  options->timeout = std::chrono::seconds(mode == "well" ? 60 : 2);
  options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
  c10d::ProcessGroupGloo group(c10::make_intrusive<c10d::FileStore>(file, size), rank, size,
                               options);
  if (rank == size - 1 && mode == "dies") std::_Exit(0);
  if (rank == size - 1 && mode == "hangs") {
    std::this_thread::sleep_for(std::chrono::seconds(6));
    std::_Exit(0);
  }

  torch::manual_seed(9);
  const auto states = torch::randn({101, 6}, torch::kDouble);
  auto alone = same_net(), model = same_net();
  const auto whole = fisher_of(alone, states);
  const auto mine = states.slice(0, 101 * rank / size, 101 * (rank + 1) / size);
  const auto reduced = retain::all_reduce(fisher_of(model, mine), group);
  bool right = reduced.states == 101;
  for (std::size_t i = 0; i < whole.values.size(); ++i)
    right =
        right && torch::allclose(reduced.values[i].tensor, whole.values[i].tensor, 1e-11, 1e-14);

  // The same total batch gives the same update; the penalty is added once.
  for (net* one : {&alone, &model}) {
    const bool parted = one == &model;
    retain::ewc keep{*one, parted ? reduced : whole, {.strength = 5.0}};
    torch::optim::Adam optimizer((*one)->parameters(), 1e-2);
    for (int step = 0; step < 5; ++step) {
      backward(*one, parted ? mine : states);
      if (parted) retain::average_gradients(*one, group, static_cast<double>(mine.size(0)));
      (void)keep.add_gradient(*one);
      optimizer.step();
    }
  }
  const auto expected = alone->parameters(), found = model->parameters();
  for (std::size_t i = 0; i < expected.size(); ++i)
    right = right && torch::allclose(found[i], expected[i], 1e-9, 1e-12);
  return right ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) return 2;
  int code = 4;
  try {
    code = run(arguments[1], std::atoi(arguments[2]), std::atoi(arguments[3]), arguments[4]);
  } catch (const retain::state_error& error) {
    std::fprintf(stderr, "state_error: %s\n", error.what());
    code = 3;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  std::fflush(stderr);
  std::_Exit(code);  // a group whose peers are gone must not be waited for
}
