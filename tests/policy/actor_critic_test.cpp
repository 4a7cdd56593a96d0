// SPDX-License-Identifier: MIT
#include <retain/compose.hpp>
#include <retain/ewc.hpp>
#include <retain/fisher.hpp>
#include <retain/kickstarting.hpp>
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>
#include <retain/teacher.hpp>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "support.hpp"

namespace policy_actor_critic_test {

using retain::actor_critic;
using retain::actor_critic_options;
using retain::categorical_head;
using retain::core_kind;
using retain::critic_kind;
using retain::mlp;
using retain::mlp_options;

namespace {

actor_critic<mlp, categorical_head> made(actor_critic_options options = {},
                                         std::int64_t inputs = 3) {
  return {mlp(inputs, mlp_options{.hidden = {6}}), categorical_head{.actions = 4},
          std::move(options)};
}
using policy_type = decltype(made());

static_assert(retain::policy<policy_type&, at::Tensor>);
static_assert(retain::recurrent_policy<policy_type, at::Tensor, at::Tensor>);
static_assert(retain::parameter_source<policy_type>);

std::vector<std::string> names(const policy_type& policy) {
  std::vector<std::string> list;
  for (const auto& entry : retain::parameters(policy)) list.push_back(entry.name);
  return list;
}
/// Observations of two parts, read by an encoder of the user's own that knows nothing of sequences.
struct screen {
  at::Tensor glyphs, status;
};
struct screen_encoder : torch::nn::Cloneable<screen_encoder> {
  screen_encoder() { reset(); }
  void reset() override {
    table = register_module("table", torch::nn::Embedding(9, 4));
    status = register_module("status", torch::nn::Linear(2, 4));
  }
  at::Tensor forward(const screen& seen) {
    return (table(seen.glyphs).mean(-2) + status(seen.status)).reshape({-1, 4});
  }
  torch::nn::Embedding table{nullptr};
  torch::nn::Linear status{nullptr};
};

double gradient_of(const policy_type& policy, const std::string& prefix) {
  double sum = 0;
  for (const auto& [name, tensor] : retain::parameters(policy))
    if (name.rfind(prefix, 0) == 0 && tensor.grad().defined())
      sum += tensor.grad().abs().sum().item<double>();
  return sum;
}

}  // namespace

TEST_CASE("actor_critic: the layers one after the other, and the names of its parameters",
          "[actor_critic]") {
  torch::manual_seed(1);
  auto policy = made({.policy_hidden = {5}, .values = 2});
  const auto x = torch::randn({7, 3});
  const auto w = policy->named_parameters();
  const auto through = [&](const at::Tensor& in, const std::string& name) {
    return in.matmul(w[name + ".weight"].t()) + w[name + ".bias"];
  };
  const auto features = torch::relu(through(x, "encoder.linear0"));
  const auto logits =
      through(torch::relu(through(features, "policy_head.hidden.linear0")), "policy_head.out");
  const auto said = policy->evaluate(x);
  CHECK(at::allclose(said.distribution.logits, logits, 1e-5, 1e-6));
  CHECK(at::allclose(said.values, through(features, "value_head.out"), 1e-5, 1e-6));
  CHECK(said.value(1).equal(said.values.select(-1, 1)));
  CHECK(!said.state.defined());
  CHECK(policy(x).logits.equal(said.distribution.logits));
  CHECK(policy(x.view({7, 1, 3})).logits.equal(said.distribution.logits.view({7, 1, 4})));
  CHECK(names(made({.core = core_kind::gru, .core_width = 2, .critic = critic_kind::separate})) ==
        std::vector<std::string>{
            "encoder.linear0.weight", "encoder.linear0.bias", "core.input.weight",
            "core.input.bias", "core.hidden.weight", "core.hidden.bias", "policy_head.out.weight",
            "policy_head.out.bias", "critic_encoder.linear0.weight", "critic_encoder.linear0.bias",
            "critic_core.input.weight", "critic_core.input.bias", "critic_core.hidden.weight",
            "critic_core.hidden.bias", "value_head.out.weight", "value_head.out.bias"});
  CHECK(!made({.values = 0})->evaluate(x).values.defined());
}

TEST_CASE(
    "actor_critic: a sequence gives what its steps give, and episode_start resets the state before "
    "the step it marks",
    "[actor_critic]") {
  torch::manual_seed(2);
  for (const auto core : {core_kind::gru, core_kind::lstm})
    for (const auto critic : {critic_kind::shared, critic_kind::separate}) {
      auto policy = made({.core = core, .core_width = 5, .critic = critic});
      policy->to(at::kDouble);
      const auto x = torch::randn({6, 2, 3}, at::kDouble);
      auto episode_start = torch::zeros({6, 2});
      episode_start[0].fill_(1);
      episode_start[3][1] = 1;
      const auto whole =
          policy->evaluate(x, torch::randn({2, policy->state_width()}, at::kDouble), episode_start);
      auto state = policy->initial_state(2), acting = at::Tensor();
      for (std::int64_t t = 0; t < 6; ++t) {
        const auto step = policy->evaluate(x[t], state, episode_start[t]);
        CHECK(at::allclose(step.distribution.logits, whole.distribution.logits[t], 1e-12));
        CHECK(at::allclose(step.values, whole.values[t], 1e-12));
        state = step.state;
        auto [distribution, next] = policy(x[t], acting, episode_start[t]);
        CHECK(at::allclose(distribution.logits, step.distribution.logits, 1e-12));
        CHECK(at::allclose(next, state, 1e-12));  // acting alone carries the critic's part on, too
        acting = next;
      }
      CHECK(at::allclose(state, whole.state, 1e-12));
      const auto fresh = policy->evaluate(x.narrow(0, 3, 3).narrow(1, 1, 1));
      CHECK(at::allclose(whole.values.narrow(0, 3, 3).narrow(1, 1, 1), fresh.values, 1e-12));
      const auto later = policy->evaluate(x.narrow(0, 3, 3).narrow(1, 0, 1));
      // the other game goes on
      CHECK(!at::allclose(whole.values.narrow(0, 3, 3).narrow(1, 0, 1), later.values));
    }
}

TEST_CASE("actor_critic: what a value's gradient reaches", "[actor_critic]") {
  torch::manual_seed(3);
  const auto x = torch::randn({4, 2, 3});
  for (const auto critic : {critic_kind::shared, critic_kind::detached, critic_kind::separate}) {
    auto policy =
        made({.core = core_kind::lstm, .core_width = 5, .value_hidden = {4}, .critic = critic});
    policy->evaluate(x).values.sum().backward();
    CHECK((gradient_of(policy, "encoder") > 0) == (critic == critic_kind::shared));
    CHECK((gradient_of(policy, "core") > 0) == (critic == critic_kind::shared));
    CHECK((gradient_of(policy, "critic_") > 0) == (critic == critic_kind::separate));
    CHECK(gradient_of(policy, "value_head") > 0);
    CHECK(gradient_of(policy, "policy_head") == 0);
  }
}

TEST_CASE("actor_critic: the one-hot at the end of an observation picks the heads and is seen by "
          "nothing else",
          "[actor_critic]") {
  torch::manual_seed(4);
  const std::int64_t S = 3;
  auto policy = made({.core = core_kind::gru, .core_width = 5, .stages = S});
  auto single = made({.core = core_kind::gru, .core_width = 5});
  const auto x = torch::randn({4, 2, 3});
  const auto stage = torch::randint(0, S, {4, 2}, at::kLong);
  const auto said = policy->evaluate(at::cat({x, at::one_hot(stage, S).to(at::kFloat)}, -1));
  CHECK(said.values.sizes() == at::IntArrayRef({4, 2, 1}));
  for (std::int64_t k = 0; k < S; ++k) {
    {
      const torch::NoGradGuard no_grad;
      auto from = policy->named_parameters(), to = single->named_parameters();
      for (auto& entry : to) {
        const auto& whole = from[entry.key()];
        entry.value().copy_(
            whole.size(0) == entry.value().size(0)
                ? whole
                : whole.narrow(0, k * entry.value().size(0), entry.value().size(0)));
      }
    }
    const auto own = single->evaluate(x);
    const auto chosen = stage.eq(k).unsqueeze(-1);
    CHECK(at::allclose(said.distribution.logits.masked_select(chosen),
                       own.distribution.logits.masked_select(chosen), 1e-5, 1e-6));
    CHECK(at::allclose(said.values.masked_select(chosen), own.values.masked_select(chosen), 1e-5,
                       1e-6));
  }
  CHECK_THROWS_WITH(policy->evaluate(torch::zeros({2, 3})),
                    ContainsSubstring("one-hot of 3 stages"));
}

TEST_CASE("actor_critic: Gaussian heads, an encoder of the user's own, and orthogonal gains",
          "[actor_critic]") {
  torch::manual_seed(5);
  torch::nn::Sequential own(torch::nn::Linear(3, 8), torch::nn::Tanh());
  actor_critic policy{own,
                      retain::tanh_gaussian_head{.dimensions = 2},
                      {.values = 0, .features = 8, .orthogonal = true}};
  const auto said = policy(torch::randn({100, 3}));
  CHECK(said.mode().sizes() == at::IntArrayRef({100, 2}));
  CHECK(said.mode().abs().max().item<double>() < 0.1);  // the policy's gain is .01
  // and the encoder that was given is the policy's own
  const auto weight = own->parameters()[0].detach();
  CHECK(at::allclose(weight.t().mm(weight), 2 * torch::eye(3), 1e-4, 1e-4));
  CHECK_THROWS_WITH((actor_critic{own, categorical_head{}}), ContainsSubstring("features"));
  CHECK_THROWS_AS(made({.values = -1}), retain::config_error);
  CHECK_THROWS_AS(made({.stages = 0}), retain::config_error);
  auto lstm = made({.core = core_kind::lstm, .core_width = 50, .orthogonal = true});
  CHECK(lstm->named_parameters()["core.hidden.bias"].narrow(0, 50, 50).mean().item<double>() ==
        Approx(1).margin(0.1));
  actor_critic wrong{own, categorical_head{}, {.features = 7}};
  CHECK_THROWS_WITH(wrong(torch::zeros({1, 3})),
                    ContainsSubstring("[..., 7]") && ContainsSubstring("[1, 8]"));
}

TEST_CASE("actor_critic: observations of any type; rows that come flattened are put in the order "
          "of episode_start",
          "[actor_critic]") {
  torch::manual_seed(9);
  actor_critic policy{std::make_shared<screen_encoder>(),
                      categorical_head{.actions = 3},
                      {.core = core_kind::gru, .core_width = 5, .features = 4}};
  const screen seen{torch::randint(0, 9, {6, 2, 7}, at::kLong), torch::randn({6, 2, 2})};
  const auto episode_start = torch::rand({6, 2}).lt(0.3);
  const auto whole = policy->evaluate(seen, {}, episode_start);
  REQUIRE(whole.values.sizes() == at::IntArrayRef({6, 2, 1}));
  at::Tensor state;
  for (std::int64_t t = 0; t < 6; ++t) {
    const auto step =
        policy->evaluate(screen{seen.glyphs[t], seen.status[t]}, state, episode_start[t]);
    CHECK(at::allclose(step.distribution.logits, whole.distribution.logits[t], 1e-5, 1e-6));
    state = step.state;
  }
  const retain::teacher expert{policy, retain::recurrent_forward{}, at::Tensor()};
  CHECK(!expert.model().is_empty());
  CHECK(
      !retain::parameters(expert.model())[0].tensor.is_same(retain::parameters(policy)[0].tensor));
}

TEST_CASE("actor_critic: a copy is another network that says the same; a teacher follows the play "
          "with its own state",
          "[actor_critic]") {
  torch::manual_seed(6);
  auto policy = made({.core = core_kind::lstm,
                      .core_width = 5,
                      .policy_hidden = {4},
                      .critic = critic_kind::separate});
  const auto copy = std::dynamic_pointer_cast<policy_type::ContainedType>(policy->clone());
  const auto x = torch::randn({6, 2, 3});
  auto episode_start = torch::zeros({6, 2});
  episode_start[4][0] = 1;
  const auto said = policy->evaluate(x, {}, episode_start);
  retain::teacher given{policy, retain::recurrent_forward{}, policy->initial_state(2)};
  retain::teacher undefined{policy, retain::recurrent_forward{}, at::Tensor()};
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : policy->parameters()) parameter.add_(0.3);
  }
  CHECK(!policy->evaluate(x, {}, episode_start).values.equal(said.values));
  const auto again = copy->evaluate(x, {}, episode_start);
  CHECK(again.distribution.logits.equal(said.distribution.logits));
  CHECK(again.values.equal(said.values));
  for (auto* expert : {&given, &undefined}) {
    const auto first = expert->step(x.narrow(0, 0, 3), episode_start.narrow(0, 0, 3)),
               second = expert->step(x.narrow(0, 3, 3), episode_start.narrow(0, 3, 3));
    CHECK(!first.logits.requires_grad());
    CHECK(
        at::allclose(at::cat({first.logits, second.logits}), said.distribution.logits, 1e-5, 1e-6));
  }
  CHECK_THROWS_WITH(policy(x), ContainsSubstring("forward(observations, state, episode_start)"));
  CHECK_THROWS_WITH(policy->evaluate(x, torch::zeros({2, 5})), ContainsSubstring("[N, 20]"));
  CHECK_THROWS_WITH(policy->evaluate(x, {}, torch::zeros({2})),
                    ContainsSubstring("episode_start of shape [2]"));

  const retain::teacher simple{made()};  // without a core it needs no forward function
  CHECK(simple(x).logits.sizes() == at::IntArrayRef({6, 2, 4}));
}

TEST_CASE("actor_critic: its Fisher is covered by the graph walk, with and without memory, and "
          "equals that of one sample at a time",
          "[actor_critic]") {
  torch::manual_seed(7);
  for (const auto core : {core_kind::none, core_kind::gru, core_kind::lstm}) {
    auto policy = made({.core = core,
                        .core_width = 4,
                        .policy_hidden = {5},
                        .activation = retain::activation_kind::tanh});
    policy->to(at::kDouble);
    const auto forward = [&](const at::Tensor& x) { return policy->evaluate(x).distribution; };
    const auto data = core == core_kind::none ? torch::randn({9, 3}, at::kDouble)
                                              : torch::randn({5, 4, 3}, at::kDouble);
    const retain::fisher_options options{.exclude = {"value_head.*"}};
    auto slowly = options;
    slowly.batched = false;
    const auto walked =
        retain::estimate_fisher(policy, data, forward, retain::sampled_actions{.seed = 3}, options);
    const auto looped =
        retain::estimate_fisher(policy, data, forward, retain::sampled_actions{.seed = 3}, slowly);
    REQUIRE(walked.values.size() == (core == core_kind::none ? 6u : 10u));
    for (std::size_t i = 0; i < walked.values.size(); ++i) {
      INFO(walked.report());
      CHECK(walked.paths.at(walked.values[i].name) == retain::fisher_path::batched);
      CHECK(support::relative_error(walked.values[i].tensor, looped.values[i].tensor) < 1e-10);
    }
  }
}

TEST_CASE("actor_critic: kickstarting and EWC hold it, through a view of a policy and on its own",
          "[actor_critic]") {
  torch::manual_seed(8);
  auto policy = made();
  const auto x = torch::randn({16, 3});
  const auto fisher =
      retain::estimate_fisher(policy, x, [&](const at::Tensor& o) { return policy(o); },
                              retain::exact_actions{}, {.exclude = {"value_head.*"}});
  const retain::teacher expert{policy};
  auto keep =
      retain::compose(retain::ewc{policy, fisher, {.strength = 2.0, .exclude = {"value_head.*"}}},
                      retain::kickstarting{expert});
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : policy->parameters()) parameter.add_(0.3 * torch::randn_like(parameter));
  }
  struct rollout {
    at::Tensor observations;
  };
  const retain::policy_view view{policy, [&](const at::Tensor& o) { return policy->forward(o); }};
  const auto loss = keep.loss(view, rollout{x});
  CHECK(loss.item<double>() == Approx(kl(expert(x), policy(x)).mean().item<double>() +
                                      keep.breakdown()[0].value.item<double>()));
  CHECK(keep.breakdown()[0].value.item<double>() > 0);
  torch::optim::Adam adam(policy->parameters(), torch::optim::AdamOptions(1e-2));
  const double before = loss.item<double>();
  for (int i = 0; i < 60; ++i) {
    adam.zero_grad();
    keep.loss(view, rollout{x}).backward();
    adam.step();
  }
  CHECK(keep.loss(view, rollout{x}).item<double>() < 0.2 * before);

  auto recurrent = made({.core = core_kind::gru, .core_width = 4});
  retain::kickstarting along{
      retain::teacher{recurrent, retain::recurrent_forward{}, recurrent->initial_state(2)}};
  struct sequences {
    at::Tensor observations, state, episode_start;
    retain::categorical teacher;
  };
  struct sequences_alone {
    at::Tensor observations, episode_start;
  };
  const auto steps = torch::randn({5, 2, 3}), episode_start = torch::zeros({5, 2});
  const sequences played{steps, recurrent->initial_state(2), episode_start,
                         along.target(sequences_alone{steps, episode_start})};
  const auto student = [&](const at::Tensor& o) {
    return recurrent->evaluate(o, played.state, played.episode_start).distribution;
  };
  CHECK(along.loss(student, played).item<double>() == Approx(0).margin(1e-6));
}

TEST_CASE("actor_critic: a critic of its own begins as a copy, core and orthogonal initialization "
          "included",
          "[actor_critic]") {
  for (const bool orthogonal : {false, true}) {
    CAPTURE(orthogonal);
    torch::manual_seed(8);
    retain::actor_critic policy{retain::mlp(5, retain::mlp_options{.hidden = {7}}),
                                retain::categorical_head{.actions = 3},
                                {.core = retain::core_kind::lstm,
                                 .core_width = 6,
                                 .critic = retain::critic_kind::separate,
                                 .orthogonal = orthogonal}};
    const auto all = policy->named_parameters();
    int copies = 0;
    for (const auto& item : all)
      if (item.key().starts_with("critic_")) {
        INFO(item.key());
        const auto& first = all[item.key().substr(std::string("critic_").size())];
        CHECK(item.value().equal(first));
        CHECK_FALSE(item.value().is_alias_of(first));
        ++copies;
      }
    CHECK(copies > 4);
  }
}

namespace {

struct tied_encoder : torch::nn::Cloneable<tied_encoder> {
  tied_encoder() { reset(); }
  void reset() override {
    first = register_module("first", torch::nn::Linear(3, 3));
    second = register_module("second", torch::nn::Linear(3, 3));
    last = register_module("last", torch::nn::Linear(3, 3));
  }
  at::Tensor forward(const at::Tensor& x) { return last(second(first(x))); }
  std::int64_t output_size() const { return 3; }
  torch::nn::Linear first{nullptr}, second{nullptr}, last{nullptr};
};

}  // namespace

TEST_CASE("actor_critic: an encoder that was tied after it was made has a critic's copy of each of "
          "its layers",
          "[actor_critic]") {
  torch::manual_seed(12);
  const auto encoder = std::make_shared<tied_encoder>();
  encoder->second = torch::nn::Linear(std::dynamic_pointer_cast<torch::nn::LinearImpl>(
      encoder->replace_module("second", encoder->first.ptr())));
  const actor_critic<std::shared_ptr<tied_encoder>, categorical_head> policy{
      encoder,
      categorical_head{.actions = 4},
      {.critic = critic_kind::separate, .orthogonal = true}};
  const auto weights = policy->named_parameters();
  for (const auto* layer : {"first.weight", "second.weight", "last.weight"})
    CHECK(weights[std::string("encoder.") + layer].equal(
        weights[std::string("critic_encoder.") + layer]));
}

}  // namespace policy_actor_critic_test
