// SPDX-License-Identifier: MIT
// A TorchScript policy saved from Python (tests/data/make_policy.py): loaded, kept and fine-tuned.
#include <retain/retain.hpp>

#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include "support.hpp"

namespace torchscript_test {

namespace {

torch::jit::Module python_policy() { return torch::jit::load(RETAIN_TEST_DATA "/policy.pt"); }

at::Tensor ask(const torch::jit::Module& module, const at::Tensor& observations) {
  return const_cast<torch::jit::Module&>(module).forward({observations}).toTensor();
}

const auto forward = [](auto& module, const at::Tensor& observations) {
  return retain::categorical{ask(module, observations)};
};

std::vector<at::Tensor> tensors_of(const torch::jit::Module& module) {
  std::vector<at::Tensor> result;
  for (const auto& [name, tensor] : retain::parameters(module)) result.push_back(tensor);
  return result;
}

struct rollout {
  at::Tensor observations;
};

}  // namespace

TEST_CASE("torchscript: a policy from Python has its names and answers as in Python",
          "[torchscript]") {
  auto module = python_policy();
  std::vector<std::string> names;
  for (const auto& [name, tensor] : retain::parameters(module)) {
    names.push_back(name);
    CHECK(tensor.requires_grad());
  }
  CHECK(names == std::vector<std::string>{"body.0.weight", "body.0.bias", "body.1.weight",
                                          "body.1.bias", "head.weight", "head.bias"});

  // Saved in training mode, with dropout: the teacher's copy is in eval mode and answers what
  // Python wrote down.
  const retain::teacher teacher{module, forward};
  const auto probe = module.attr("probe").toTensor(), answer = module.attr("answer").toTensor();
  CHECK(support::relative_error(teacher(probe).logits, answer) < 1e-6);
  module.train();
  CHECK(support::relative_error(teacher(probe).logits, answer) < 1e-6);
  // dropout is real in the student
  CHECK(support::relative_error(ask(module, probe), answer) > 1e-2);
}

TEST_CASE("torchscript: the Fisher of a policy from Python by the walk and one sample at a time",
          "[torchscript]") {
  const torch::jit::GraphOptimizerEnabledGuard as_written(false);
  torch::manual_seed(2);
  auto module = python_policy();
  module.eval();
  const auto states = torch::randn({32, 6});
  const auto answer = [&](const at::Tensor& batch) {
    return retain::categorical{ask(module, batch)};
  };
  const auto walked = retain::estimate_fisher(module, states, answer, retain::exact_actions{});
  const auto looped =
      retain::estimate_fisher(module, states, answer, retain::exact_actions{}, {.batched = false});
  for (std::size_t i = 0; i < walked.values.size(); ++i) {
    CHECK(walked.paths.at(walked.values[i].name) == retain::fisher_path::batched);
    CHECK(support::relative_error(walked.values[i].tensor, looped.values[i].tensor) < 1e-5);
  }
}

TEST_CASE(
    "torchscript: plain fine-tuning forgets, retention keeps, and the result goes back to Python",
    "[torchscript]") {
  const torch::jit::GraphOptimizerEnabledGuard as_written(false);
  const support::temporary_folder folder;
  torch::manual_seed(3);
  const auto far = torch::randn({64, 6}), near = torch::randn({64, 6}) + 1.0;

  const auto forgotten = [&](bool retained) {
    auto module = python_policy();
    module.eval();
    const retain::teacher teacher{module, forward};
    const auto student = [&](const at::Tensor& observations) {
      return retain::categorical{ask(module, observations)};
    };
    const auto importance = retain::estimate_fisher(module, far, student, retain::exact_actions{});
    auto keep = retain::compose(
        retain::ewc{module, importance, {.strength = 10.0}},
        retain::behavioral_cloning{far, teacher, {.strength = 1.0, .batch_size = 32}},
        retain::kickstarting{teacher, {.strength = 0.1}});
    const retain::policy_view view{module, student};
    torch::optim::SGD sgd(tensors_of(module), 0.3);
    const auto wanted = torch::zeros({64}, at::kLong);
    for (int step = 0; step < 60; ++step) {
      sgd.zero_grad();
      auto loss = -student(near).log_prob(wanted).mean();
      if (retained) loss = loss + keep.distillation(view, rollout{near});
      loss.backward();
      if (retained) keep.add_gradient(module);
      sgd.step();
    }
    CHECK(student(near).log_prob(wanted).mean().item<double>() > -0.7);  // both learn the new task
    const auto path = folder.file("tuned.pt");
    module.save(path);
    auto again = torch::jit::load(path);
    again.eval();
    CHECK(ask(again, far).equal(ask(module, far)));
    return retain::kl(teacher(far), student(far)).mean().item<double>();
  };
  const double plain = forgotten(false), kept = forgotten(true);
  CHECK(plain > 0.3);
  CHECK(kept < 0.5 * plain);
}

}  // namespace torchscript_test
