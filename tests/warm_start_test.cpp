// SPDX-License-Identifier: MIT
#include <retain/warm_start.hpp>

#include "support.hpp"

namespace warm_start_test {

using retain::warm_start_phase;

namespace {

struct actor_critic : torch::nn::Module {
  actor_critic() {
    trunk = register_module(
        "trunk", torch::nn::Sequential(torch::nn::Linear(3, 4), torch::nn::BatchNorm1d(4),
                                       torch::nn::ReLU()));
    policy_head = register_module("policy_head", torch::nn::Linear(4, 2));
    value_head = register_module(
        "value_head", torch::nn::Sequential(torch::nn::Dropout(0.1), torch::nn::Linear(4, 1)));
  }
  torch::nn::Sequential trunk{nullptr}, value_head{nullptr};
  torch::nn::Linear policy_head{nullptr};
};

}  // namespace

TEST_CASE("warm start: collects, then the critic learns alone, then everything does",
          "[warm_start]") {
  torch::manual_seed(1);
  auto model = std::make_shared<actor_critic>();
  const auto x = torch::randn({8, 3});
  for (int i = 0; i < 5; ++i) model->trunk->forward(x * 2 + 1);
  retain::warm_start warm{*model, {.collect = 10, .critic = 20}};
  torch::optim::Adam adam(model->parameters(), torch::optim::AdamOptions(1e-2));
  const auto acts = [&] { return model->policy_head->forward(model->trunk->forward(x)).detach(); };
  const auto values = [&] { return model->value_head->forward(model->trunk->forward(x)); };
  const auto update = [&](double progress) {
    model->train();
    const bool begun = warm.step(progress);
    if (warm.critic_learns()) {
      adam.zero_grad();
      auto loss = (values() - 1).square().mean();
      if (warm.policy_learns())
        loss = loss + model->policy_head->forward(model->trunk->forward(x)).square().mean();
      loss.backward();
      adam.step();
    }
    return begun;
  };
  const auto before = acts();
  const auto weight = model->value_head->parameters()[0].detach().clone();
  CHECK(warm.phase() == warm_start_phase::collect);
  CHECK(!update(0));
  CHECK(!update(9));
  for (const auto& m : model->modules(false)) CHECK(!m->is_training());
  CHECK(model->value_head->parameters()[0].equal(weight));
  CHECK(update(10));
  CHECK(warm.phase() == warm_start_phase::critic);
  CHECK(!update(29));
  // the critic's own dropout is on, the trunk's BatchNorm stands still
  CHECK(model->value_head[0]->is_training());
  CHECK(!model->trunk[1]->is_training());
  CHECK(!model->value_head->parameters()[0].equal(weight));
  CHECK(acts().equal(before));
  CHECK(update(30));
  CHECK(warm.policy_learns());
  for (const auto& m : model->modules(false)) CHECK(m->is_training());
  for (const auto& p : model->parameters()) CHECK(p.requires_grad());
  model->eval();
  CHECK(!acts().equal(before));
}

TEST_CASE("warm start: without phases everything learns at once; a phase may be left out",
          "[warm_start]") {
  auto model = std::make_shared<actor_critic>();
  CHECK(retain::warm_start{*model}.policy_learns());
  retain::warm_start only_collects{*model, {.collect = 3, .critic_parameters = {}}};
  CHECK(!only_collects.critic_learns());
  CHECK(only_collects.step(3));
  CHECK(only_collects.policy_learns());
  retain::warm_start only_critic{*model, {.critic = 3}};
  CHECK(only_critic.critic_learns());
  CHECK(!only_critic.policy_learns());
}

TEST_CASE("warm start: enforce() freezes what went learning, and a step to nowhere changes nothing",
          "[warm_start]") {
  auto model = std::make_shared<actor_critic>();
  retain::warm_start warm{*model, {.critic = 5}};
  warm.step(2);
  model->train();
  model->policy_head->weight.requires_grad_();
  model->policy_head->forward(torch::ones({1, 4})).sum().backward();
  warm.enforce();
  CHECK(!model->policy_head->weight.requires_grad());
  CHECK(!model->policy_head->weight.grad().defined());
  CHECK(!model->trunk->is_training());
  CHECK(model->value_head->is_training());
  CHECK(model->value_head->parameters()[0].requires_grad());
  for (const double nowhere : {std::nan(""), static_cast<double>(INFINITY)}) {
    CHECK_THROWS_AS(warm.step(nowhere), retain::config_error);
    CHECK(warm.progress() == 2);
    CHECK(warm.phase() == warm_start_phase::critic);
  }
}

TEST_CASE("warm start: saved and resumed", "[warm_start]") {
  const support::temporary_folder folder;
  auto model = std::make_shared<actor_critic>(), other = std::make_shared<actor_critic>();
  retain::warm_start warm{*model, {.collect = 10, .critic = 20}},
      resumed{*other, {.collect = 10, .critic = 20}};
  warm.step(15);
  retain::save(folder.file("w"), warm);
  retain::load(folder.file("w"), resumed);
  CHECK(resumed.phase() == warm_start_phase::critic);
  CHECK(other->value_head->parameters()[0].requires_grad());
  CHECK(!other->policy_head->weight.requires_grad());
  retain::warm_start longer{*other, {.collect = 11, .critic = 20}};
  CHECK_THROWS_WITH(retain::load(folder.file("w"), longer),
                    ContainsSubstring("collect 10") && ContainsSubstring("collect 11"));
}

TEST_CASE("warm start: what makes no sense is refused", "[warm_start]") {
  auto model = std::make_shared<actor_critic>();
  CHECK_THROWS_AS((retain::warm_start{*model, {.collect = -1}}), retain::config_error);
  CHECK_THROWS_AS((retain::warm_start{*model, {.critic = INFINITY}}), retain::config_error);
  CHECK_THROWS_WITH((retain::warm_start{*model, {.critic = 5, .critic_parameters = {"value.*"}}}),
                    ContainsSubstring("'value.*' matches no"));
  CHECK_THROWS_AS((retain::warm_start{*model, {.critic = 5, .critic_parameters = {}}}),
                  retain::config_error);
}

}  // namespace warm_start_test
