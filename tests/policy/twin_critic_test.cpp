// SPDX-License-Identifier: MIT
#include <retain/loss/sac.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/policy/twin_critic.hpp>
#include <retain/polyak.hpp>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "support.hpp"

namespace policy_twin_critic_test {

using retain::twin_critic;
using retain::twin_critic_options;

namespace {

/// One critic of the ensemble as a network of its own.
struct alone {
  retain::mlp hidden;
  torch::nn::Linear out;
  at::Tensor operator()(const at::Tensor& x) { return out(hidden(x)); }
};

alone taken_out(const twin_critic& critics, std::int64_t k, std::int64_t inputs,
                const twin_critic_options& options) {
  alone one{retain::mlp(inputs, retain::mlp_options{.hidden = options.hidden,
                                                    .activation = options.activation,
                                                    .normalized_input = options.normalized_input}),
            torch::nn::Linear(options.hidden.back(), options.stages)};
  one.hidden->to(at::kDouble);
  one.out->to(at::kDouble);
  const torch::NoGradGuard no_grad;
  const auto from = critics->named_parameters();
  const auto copy = [&](at::Tensor& to, const std::string& name) {
    const auto own = from[name][k];
    to.copy_(to.dim() == 2 ? own.t() : own.squeeze(0));
  };
  for (auto& entry : one.hidden->named_parameters()) copy(entry.value(), entry.key());
  for (auto& entry : one.out->named_parameters()) copy(entry.value(), "out." + entry.key());
  return one;
}

}  // namespace

TEST_CASE(
    "twin_critic: it is K separate networks, in values and in the gradients of weights and actions",
    "[twin_critic]") {
  torch::manual_seed(1);
  for (const bool normalized : {false, true}) {
    const twin_critic_options options{.hidden = {6, 5},
                                      .activation = retain::activation_kind::leaky_relu,
                                      .normalized_input = normalized,
                                      .critics = 3};
    twin_critic critics(4, 2, options);
    critics->to(at::kDouble);
    {
      const torch::NoGradGuard no_grad;
      // norms that are not the identity
      for (auto& parameter : critics->parameters())
        parameter.add_(0.1 * torch::randn_like(parameter));
    }
    const auto s = torch::randn({7, 4}, at::kDouble), weight = torch::randn({3, 7}, at::kDouble);
    const auto a = torch::randn({7, 2}, at::kDouble).requires_grad_(),
               b = a.detach().clone().requires_grad_();
    const auto q = critics(s, a);
    REQUIRE(q.sizes() == at::IntArrayRef({3, 7}));
    (q * weight).sum().backward();
    for (std::int64_t k = 0; k < 3; ++k) {
      auto one = taken_out(critics, k, 6, options);
      const auto own = one(at::cat({s, b}, 1)).squeeze(-1);
      CHECK(at::allclose(q[k], own, 1e-10));
      (own * weight[k]).sum().backward();
      CHECK(at::allclose(critics->named_parameters()["linear0.weight"].grad()[k].t(),
                         one.hidden->named_parameters()["linear0.weight"].grad(), 1e-8));
      CHECK(at::allclose(critics->named_parameters()["out.bias"].grad()[k].squeeze(0),
                         one.out->bias.grad(), 1e-8));
    }
    CHECK(at::allclose(a.grad(), b.grad(), 1e-8));
  }
}

TEST_CASE(
    "twin_critic: the stage picks the head and is seen by nothing else, for any leading dimensions",
    "[twin_critic]") {
  torch::manual_seed(2);
  const twin_critic_options options{.hidden = {6}, .stages = 3};
  twin_critic critics(4, 2, options);
  critics->to(at::kDouble);
  const auto s = torch::randn({5, 2, 4}, at::kDouble), a = torch::randn({5, 2, 2}, at::kDouble);
  const auto stage = torch::randint(0, 3, {5, 2}, at::kLong);
  const auto q = critics(at::cat({s, at::one_hot(stage, 3).to(at::kDouble)}, -1), a);
  REQUIRE(q.sizes() == at::IntArrayRef({2, 5, 2}));
  for (std::int64_t k = 0; k < 2; ++k) {
    auto one = taken_out(critics, k, 6, options);
    CHECK(at::allclose(q[k], one(at::cat({s, a}, -1)).gather(-1, stage.unsqueeze(-1)).squeeze(-1),
                       1e-10));
  }
}

TEST_CASE("twin_critic: a target is a copy that follows; the losses take it as it is",
          "[twin_critic]") {
  torch::manual_seed(3);
  twin_critic critics(4, 2, twin_critic_options{.hidden = {32, 32}, .normalized_input = true});
  const twin_critic target(std::dynamic_pointer_cast<retain::twin_critic_net>(critics->clone()));
  const auto s = torch::randn({64, 4}), a = torch::rand({64, 2}) * 2 - 1;
  const auto before = target.ptr()->forward(s, a).detach();
  CHECK(before.equal(critics(s, a)));
  CHECK(!before[0].equal(before[1]));  // two critics, not one twice
  const auto value = -(s.narrow(1, 0, 2) - a).square().sum(-1);
  torch::optim::Adam adam(critics->parameters(), torch::optim::AdamOptions(1e-2));
  double last = 0;
  for (int i = 0; i < 200; ++i) {
    adam.zero_grad();
    const auto loss = retain::sac_critic_loss(critics(s, a), value);
    loss.backward();
    adam.step();
    last = loss.item<double>();
  }
  CHECK(last < 0.05);
  CHECK(target.ptr()->forward(s, a).equal(before));
  retain::polyak_update(target, critics, 1);
  CHECK(target.ptr()->forward(s, a).equal(critics(s, a)));
}

TEST_CASE("twin_critic: what does not fit is named", "[twin_critic]") {
  twin_critic critics(4, 2);
  CHECK_THROWS_WITH(critics(torch::zeros({3, 5}), torch::zeros({3, 2})),
                    ContainsSubstring("[..., 4]") && ContainsSubstring("[3, 5]"));
  CHECK_THROWS_AS(critics(torch::zeros({3, 4}), torch::zeros({2, 2})), retain::shape_error);
  CHECK(critics(torch::zeros({0, 4}), torch::zeros({0, 2})).sizes() == at::IntArrayRef({2, 0}));
  CHECK_THROWS_AS(twin_critic(0, 2), retain::config_error);
  CHECK_THROWS_AS(twin_critic(4, 2, twin_critic_options{.critics = 0}), retain::config_error);
}

TEST_CASE("twin_critic: its layers as one node are its layers one by one, in float too, with heads "
          "and for a gradient of the action alone",
          "[twin_critic]") {
  torch::manual_seed(7);
  for (const std::int64_t rows : {1, 5, 64}) {
    twin_critic critics(4, 2, twin_critic_options{.hidden = {20, 17}, .critics = 3, .stages = 3});
    const auto s = at::cat({torch::randn({rows, 4}),
                            at::one_hot(torch::randint(0, 3, {rows}, at::kLong), 3).to(at::kFloat)},
                           1)
                       .requires_grad_();
    const auto a = torch::randn({rows, 2}).requires_grad_();
    const auto run = [&](bool apart, bool action_only) {
      std::optional<retain::detail::separate_nodes> scope;
      if (apart) scope.emplace();
      auto wanted = action_only ? std::vector<at::Tensor>{} : critics->parameters();
      if (!action_only) wanted.push_back(s);
      wanted.push_back(a);
      const auto q = critics(s, a);
      auto result =
          torch::autograd::grad({q}, wanted, {torch::linspace(-1, 1, q.numel()).view_as(q)});
      result.push_back(q.detach());
      return result;
    };
    for (const bool action_only : {false, true}) {
      const auto joined = run(false, action_only), apart = run(true, action_only);
      REQUIRE(joined.size() == (action_only ? 2U : 9U));
      for (std::size_t i = 0; i < joined.size(); ++i)
        CHECK(at::allclose(joined[i], apart[i], 1e-4, 1e-5));
    }
  }
}

}  // namespace policy_twin_critic_test
