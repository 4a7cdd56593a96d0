// SPDX-License-Identifier: MIT
#include <retain/policy/orthogonal.hpp>
#include <retain/policy/twin_critic.hpp>

#include <memory>
#include <string>
#include <vector>

#include "support.hpp"

namespace policy_orthogonal_test {

TEST_CASE("orthogonal: rows or columns are orthogonal and of the length of the gain, biases 0, "
          "scales as they were",
          "[orthogonal]") {
  torch::manual_seed(1);
  torch::nn::Sequential net(torch::nn::Conv2d(2, 4, 3),
                            torch::nn::LayerNorm(torch::nn::LayerNormOptions({6})),
                            torch::nn::Linear(4, 9));
  retain::orthogonal(net, 1.5);
  const auto parameters = net->named_parameters();
  const auto kernels = parameters["0.weight"].detach().view({4, 18});
  CHECK(at::allclose(kernels.mm(kernels.t()), 2.25 * torch::eye(4), 1e-4, 1e-5));
  const auto tall = parameters["2.weight"].detach();
  CHECK(at::allclose(tall.t().mm(tall), 2.25 * torch::eye(4), 1e-4, 1e-5));
  CHECK(parameters["0.bias"].abs().sum().item<double>() == 0);
  CHECK(parameters["1.weight"].equal(torch::ones({6})));
  CHECK(parameters["2.weight"].requires_grad());
}

TEST_CASE("orthogonal: every critic of a twin_critic by itself", "[orthogonal]") {
  torch::manual_seed(3);
  retain::twin_critic critics(
      8, 2, retain::twin_critic_options{.hidden = {16, 16}, .normalized_input = true});
  retain::orthogonal(critics, 1.5);
  for (const auto& item : critics->named_parameters()) {
    INFO(item.key());
    const auto& value = item.value();
    if (item.key().ends_with("bias")) {
      CHECK(value.abs().max().item<double>() == 0);
    } else if (item.key().starts_with("norm")) {
      CHECK(value.eq(1).all().item<bool>());
    } else {
      for (std::int64_t k = 0; k < 2; ++k) {
        const auto one = value[k].detach();  // [in, out]
        const auto square = one.size(0) <= one.size(1) ? one.mm(one.t()) : one.t().mm(one);
        CHECK(torch::allclose(square, torch::eye(square.size(0)) * 2.25, 1e-4, 1e-5));
      }
      CHECK_FALSE(value[0].equal(value[1]));
    }
  }
}

namespace {

struct agent : torch::nn::Module {
  retain::mlp actor = register_module("actor", retain::mlp(3, retain::mlp_options{.hidden = {4}}));
  retain::twin_critic critic = register_module(
      "critic", retain::twin_critic(
                    3, 2, retain::twin_critic_options{.hidden = {6, 6}, .normalized_input = true}));
  torch::nn::LayerNorm norm =
      register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({2, 3})));
};

}  // namespace

TEST_CASE("orthogonal: a twin_critic inside a module is taken critic by critic, and scales of any "
          "shape stay",
          "[orthogonal]") {
  torch::manual_seed(4);
  const auto model = std::make_shared<agent>();
  const agent on_the_stack;
  for (const agent* made : {static_cast<const agent*>(model.get()), &on_the_stack}) {
    if (made == model.get())
      retain::orthogonal(model, 1.5);
    else
      retain::orthogonal(on_the_stack, 1.5);
    int matrices = 0;
    for (const auto& item : made->named_parameters()) {
      INFO(item.key());
      const auto value = item.value().detach();
      if (item.key().ends_with("bias")) {
        CHECK(value.abs().max().item<double>() == 0);
      } else if (item.key().find("norm") != std::string::npos) {
        CHECK(value.eq(1).all().item<bool>());
      } else {
        for (const auto& one :
             value.dim() == 3 ? value.unbind(0) : std::vector<at::Tensor>{value}) {
          const auto square = one.size(0) <= one.size(1) ? one.mm(one.t()) : one.t().mm(one);
          CHECK(torch::allclose(square, torch::eye(square.size(0)) * 2.25, 1e-4, 1e-5));
          ++matrices;
        }
      }
    }
    CHECK(matrices == 7);
  }
  torch::manual_seed(5);
  retain::orthogonal(model->critic, 1);
  const auto alone = model->critic->named_parameters()["out.weight"].detach().clone();
  torch::manual_seed(5);
  retain::orthogonal(*model->critic, 1);
  CHECK(alone.equal(model->critic->named_parameters()["out.weight"]));
}

}  // namespace policy_orthogonal_test
