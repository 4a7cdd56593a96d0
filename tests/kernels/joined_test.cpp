// SPDX-License-Identifier: MIT
// What stands in the graph as one node steps aside where each operation counts: in a trace and
// under forward-mode derivatives.
#include <retain/categorical.hpp>
#include <retain/diagonal_gaussian.hpp>
#include <retain/kernels/joined.hpp>
#include <retain/loss/sac.hpp>
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/policy/select_head.hpp>
#include <retain/policy/twin_critic.hpp>
#include <retain/tanh_gaussian.hpp>

#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <string>
#include <vector>

#include "support.hpp"

namespace joined_test {

namespace {

/// x [4, 6] -> any shape.
struct joined_operation {
  std::string name;
  std::function<at::Tensor(const at::Tensor&)> ask;
};

std::vector<joined_operation> joined_operations() {
  using namespace retain;
  const auto half = [](const at::Tensor& x, std::int64_t k) { return x.narrow(-1, 3 * k, 3); };
  const auto other = torch::randn({4, 6});
  const auto target = torch::randn({4}), alpha = torch::full({}, 0.3f);
  const auto stage = torch::tensor({0, 1, 1, 0}, at::kLong);
  const mlp network(6, mlp_options{.hidden = {5, 3}, .activation = activation_kind::tanh});
  const auto critic =
      twin_critic(3, 3, twin_critic_options{.hidden = {7}, .activation = activation_kind::tanh});
  const auto policy = actor_critic{
      mlp(6, mlp_options{.hidden = {5}}), categorical_head{.actions = 3}, {.policy_hidden = {4}}};
  const categorical q{other.narrow(-1, 0, 3)};
  for (auto weights : {network->parameters(), critic->parameters(), policy->parameters()})
    for (auto& weight : weights) weight.requires_grad_(false);  // a trace holds them as constants
  return {
      {"KL of categoricals",
       [=](const at::Tensor& x) { return kl(categorical{half(x, 0)}, categorical{half(x, 1)}); }},
      {"KL of Gaussians",
       [=](const at::Tensor& x) {
         return kl(diagonal_gaussian{half(x, 0), half(x, 1)},
                   diagonal_gaussian{half(other, 0), half(other, 1)});
       }},
      {"mlp", [=](const at::Tensor& x) { return mlp(network)->forward(x); }},
      {"twin_critic",
       [=](const at::Tensor& x) { return twin_critic(critic)->forward(half(x, 0), half(x, 1)); }},
      {"actor_critic", [=](const at::Tensor& x) { return kl(policy(x), q); }},
      {"select_head", [=](const at::Tensor& x) { return select_head(x, 2, stage); }},
      {"Gaussian head",
       [](const at::Tensor& x) { return diagonal_gaussian_head{.dimensions = 3}(x).entropy(); }},
      {"squashed sample",
       [=](const at::Tensor& x) {
         torch::manual_seed(9);
         return tanh_gaussian{half(x, 0), half(x, 1)}.rsample_with_log_prob().log_prob;
       }},
      {"SAC's critics", [=](const at::Tensor& x) { return sac_critic_loss(x.t(), target); }},
      {"SAC's actor",
       [=](const at::Tensor& x) {
         return sac_policy_loss(x.narrow(-1, 0, 2).t(), x.select(-1, 2), alpha).loss;
       }},
  };
}

/// Puts down the level of forward-mode derivatives that it opened.
struct dual_level {
  std::uint64_t index = torch::autograd::ForwardADLevel::get_next_idx();
  dual_level() = default;
  ~dual_level() { torch::autograd::ForwardADLevel::release_idx(index); }
  dual_level(const dual_level&) = delete;
  dual_level& operator=(const dual_level&) = delete;
};

}  // namespace

TEST_CASE("joined operations: a trace answers other inputs as they do", "[joined]") {
  torch::manual_seed(1);
  for (const bool with_graph : {true, false})
    for (const auto& operation : joined_operations()) {
      INFO(operation.name << (with_graph ? ", with a graph" : ", without"));
      const auto first = torch::randn({4, 6}), second = torch::randn({4, 6});
      if (with_graph) {
        first.requires_grad_();
        second.requires_grad_();
      }
      const auto traced = torch::jit::tracer::trace(
          {first},
          [&](torch::jit::Stack inputs) -> torch::jit::Stack {
            return {operation.ask(inputs[0].toTensor())};
          },
          [](const torch::autograd::Variable&) { return std::string(); });
      torch::jit::GraphExecutor graph(traced.first->graph, "traced");
      torch::jit::Stack stack{second};
      torch::manual_seed(9);  // what is drawn in the trace is drawn anew
      graph.run(stack);
      CHECK(support::relative_error(stack[0].toTensor().detach(), operation.ask(second).detach()) <
            1e-5);
    }
}

TEST_CASE("joined operations: their forward-mode derivative is the product of the backward one",
          "[joined]") {
  torch::manual_seed(2);
  for (const auto& operation : joined_operations()) {
    INFO(operation.name);
    const auto x = torch::randn({4, 6}), along = torch::randn({4, 6});
    const auto own = x.clone().requires_grad_();
    operation.ask(own).sum().backward();
    const double expected = (own.grad() * along).sum().item<double>();
    for (const bool with_graph : {true, false}) {
      const at::AutoGradMode graph(with_graph);
      const dual_level level;
      const auto answer =
          operation.ask(at::_make_dual(x, along, static_cast<std::int64_t>(level.index)));
      const auto tangent =
          std::get<1>(at::_unpack_dual(answer, static_cast<std::int64_t>(level.index)));
      REQUIRE(tangent.defined());
      CHECK(tangent.sum().item<double>() == Approx(expected).epsilon(1e-4).margin(1e-5));
    }
  }
}

TEST_CASE("joined operations: a weight's forward-mode derivative passes through layers",
          "[joined]") {
  torch::manual_seed(3);
  retain::mlp network(6, retain::mlp_options{.hidden = {5, 3}});
  const auto policy = retain::actor_critic{retain::mlp(6, retain::mlp_options{.hidden = {5}}),
                                           retain::categorical_head{.actions = 3}};
  retain::twin_critic critic(4, 2, retain::twin_critic_options{.hidden = {7}});
  const auto x = torch::randn({4, 6});
  const auto check = [&](const std::string& name, at::Tensor weight,
                         const std::function<at::Tensor()>& ask) {
    INFO(name);
    const auto along = torch::randn_like(weight);
    weight.mutable_grad() = at::Tensor();
    ask().sum().backward();
    const double expected = (weight.grad() * along).sum().item<double>();
    const dual_level level;
    weight._set_fw_grad(along, level.index, false);
    const auto tangent =
        std::get<1>(at::_unpack_dual(ask(), static_cast<std::int64_t>(level.index)));
    REQUIRE(tangent.defined());
    CHECK(tangent.sum().item<double>() == Approx(expected).epsilon(1e-4).margin(1e-5));
  };
  check("mlp", network->named_parameters()["linear0.weight"], [&] { return network->forward(x); });
  check("actor_critic", policy->named_parameters()["policy_head.out.bias"],
        [&] { return policy(x).logits; });
  check("twin_critic", critic->named_parameters()["out.weight"],
        [&] { return critic->forward(x.narrow(1, 0, 4), x.narrow(1, 4, 2)); });
}

}  // namespace joined_test
