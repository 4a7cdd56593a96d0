// SPDX-License-Identifier: MIT
// Every concept with types that satisfy it and types that must not.
#include <retain/behavioral_cloning.hpp>
#include <retain/concepts.hpp>
#include <retain/diagonal_gaussian.hpp>
#include <retain/ewc.hpp>
#include <retain/kickstarting.hpp>
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>
#include <retain/replay/prioritized.hpp>
#include <retain/replay/sequences.hpp>

#include "support.hpp"

namespace concepts_test {

namespace {

using tensor = at::Tensor;

/// A distribution of one's own, in a namespace of one's own: kl is found by its arguments.
struct bernoulli {
  tensor logit;
  tensor log_prob(const tensor& a) const {
    return -torch::softplus(torch::where(a > 0, -logit, logit));
  }
  tensor entropy() const {
    return torch::binary_cross_entropy_with_logits(logit, logit.sigmoid(), {}, {},
                                                   at::Reduction::None);
  }
  tensor sample() const { return torch::bernoulli(logit.sigmoid()); }
  tensor mode() const { return (logit > 0).to(logit.scalar_type()); }
};
tensor kl(const bernoulli& p, const bernoulli& q) {
  return torch::binary_cross_entropy_with_logits(q.logit, p.logit.sigmoid(), {}, {},
                                                 at::Reduction::None) -
         p.entropy();
}
struct without_kl {
  tensor log_prob(const tensor&) const;
  tensor entropy() const;
  tensor sample() const;
  tensor mode() const;
};

static_assert(retain::action_distribution<retain::categorical>);
static_assert(retain::action_distribution<retain::diagonal_gaussian>);
static_assert(retain::action_distribution<bernoulli>);
static_assert(!retain::action_distribution<without_kl>);
static_assert(!retain::action_distribution<tensor>);

static_assert(retain::prediction<retain::categorical>);
static_assert(retain::prediction<const retain::masked<bernoulli>&>);
// a tensor is taken as logits where a prediction is asked for, and is none itself
static_assert(!retain::prediction<tensor>);
static_assert(!retain::prediction<retain::masked<bernoulli>*>);

struct logits_and_value {
  tensor logits, value;
};
struct logits_and_some_mask {
  tensor logits, mask;
};
/// The logits of a distribution that lacks a member are not those of a categorical.
struct logits_without_kl : without_kl {
  tensor logits;
};
static_assert(retain::policy_answer<tensor>);
static_assert(retain::policy_answer<retain::masked<bernoulli>>);
static_assert(retain::policy_answer<std::pair<bernoulli, tensor>>);
static_assert(retain::policy_answer<std::tuple<logits_and_value, tensor, int>>);
static_assert(retain::policy_answer<retain::actor_critic_answer<retain::categorical>>);
static_assert(retain::policy_answer<const logits_and_value&>);
static_assert(!retain::policy_answer<logits_and_some_mask>);
static_assert(!retain::policy_answer<logits_without_kl>);
static_assert(!retain::policy_answer<std::pair<int, bernoulli>>);
static_assert(!retain::policy_answer<std::tuple<>>);
static_assert(!retain::policy_answer<double>);

using network = retain::actor_critic_net<retain::mlp, retain::categorical_head>;
struct observation {
  tensor screen;
};
const auto asks = [](const tensor& o) { return retain::categorical{o}; };
const auto asks_struct = [](const observation& o) {
  return retain::masked{retain::categorical{o.screen}, o.screen.sum(-1) > 0};
};
const auto answers_logits = [](const tensor& o) { return o; };
const auto remembers = [](const tensor& o, const tensor& state, const tensor&) {
  return std::pair{retain::categorical{o}, state};
};
const auto forgets_its_state = [](const tensor& o, const tensor&, const tensor&) {
  return retain::categorical{o};
};
struct whole_answer {
  retain::categorical distribution;
  tensor values, state;
};
const auto answers_a_struct = [](const tensor& o, const tensor& state, const tensor&) {
  return whole_answer{retain::categorical{o}, {}, state};
};
const auto says_nothing = [](const tensor&, const tensor& state, const tensor&) {
  return std::pair{std::string(), state};
};
const auto carries_a_number = [](const tensor& o, int state, const tensor&) {
  return std::tuple{retain::categorical{o}, state};
};

static_assert(retain::policy<decltype(asks), tensor>);
static_assert(retain::policy<decltype(asks_struct), observation>);
static_assert(!retain::policy<decltype(asks_struct), tensor>);
static_assert(retain::policy<decltype(answers_logits), tensor>);
static_assert(!retain::policy<decltype(remembers), tensor>);
static_assert(!retain::policy<decltype([](const tensor&) { return 1; }), tensor>);
static_assert(
    !retain::policy<decltype([](const tensor&) { return std::tuple{1, tensor()}; }), tensor>);
static_assert(!retain::policy<retain::categorical, tensor>);

static_assert(retain::recurrent_policy<decltype(remembers), tensor, tensor>);
static_assert(retain::recurrent_policy<decltype(carries_a_number), tensor, int>);
static_assert(retain::recurrent_policy<decltype(remembers), tensor>);
static_assert(retain::recurrent_policy<decltype(answers_a_struct), tensor, tensor>);
static_assert(!retain::recurrent_policy<decltype(asks), tensor>);
static_assert(!retain::recurrent_policy<decltype(forgets_its_state), tensor>);
static_assert(!retain::recurrent_policy<decltype(says_nothing), tensor>);
static_assert(retain::recurrent_policy<retain::actor_critic<retain::mlp, retain::categorical_head>,
                                       tensor, tensor>);
static_assert(!retain::recurrent_policy<decltype(asks), tensor, tensor>);
static_assert(!retain::recurrent_policy<decltype(forgets_its_state), tensor, tensor>);
static_assert(!retain::recurrent_policy<decltype(remembers), observation, tensor>);
static_assert(!retain::recurrent_policy<decltype(carries_a_number), tensor, std::string>);

struct rollout {
  tensor observations;
};
using teacher = decltype(asks);
using cloning = retain::behavioral_cloning<tensor, teacher>;
static_assert(retain::weight_term<retain::ewc>);
static_assert(!retain::weight_term<cloning>);
static_assert(!retain::weight_term<torch::nn::Linear>);
static_assert(retain::output_term<retain::kickstarting<teacher>, teacher, rollout>);
static_assert(retain::output_term<cloning, teacher, rollout>);
static_assert(!retain::output_term<retain::ewc, teacher, rollout>);
static_assert(!retain::output_term<teacher, teacher, rollout>);

struct rising {
  double operator()(double progress) const { return progress; }
};
static_assert(retain::schedule<rising>);
static_assert(retain::schedule<retain::cosine>);
static_assert(retain::schedule<double (*)(double)>);
static_assert(!retain::schedule<double>);  // converts to one: see strength_schedule
static_assert(!retain::schedule<std::string>);
static_assert(!retain::schedule<std::unique_ptr<rising>>);

static_assert(retain::sampler<retain::prioritized>);
static_assert(retain::sequence_sampler<retain::sequences>);
static_assert(!retain::sequence_sampler<retain::prioritized>);
static_assert(!retain::sampler<tensor>);

}  // namespace

TEST_CASE("concepts: a distribution of one's own works in every term", "[concepts]") {
  torch::manual_seed(1);
  torch::nn::Linear net(3, 1);
  const auto policy = [&](const tensor& o) { return bernoulli{net(o).squeeze(-1)}; };
  static_assert(retain::policy<decltype(policy), tensor>);
  const auto states = torch::randn({20, 3});

  // p (1 - p) x^2, the Fisher of a Bernoulli policy with a linear logit, against the mean over
  // actions weighted by their probability
  const auto x = torch::cat({states, torch::ones({20, 1})}, 1);
  const auto p = policy(states).logit.sigmoid().detach();
  const auto expected = (p * (1 - p)).unsqueeze(-1).mul(x.square()).mean(0);
  at::Tensor found = torch::zeros({4});
  for (const double action : {0.0, 1.0}) {
    const auto given = torch::full({20}, action);
    for (std::int64_t n = 0; n < 20; ++n) {
      const auto one = states.narrow(0, n, 1);
      const double share = action > 0 ? p[n].item<double>() : 1 - p[n].item<double>();
      const auto f = retain::estimate_fisher(
          net, one, policy,
          retain::dataset_actions{[&](const tensor&) { return given.narrow(0, n, 1); }});
      found += torch::cat({f.values[0].tensor.flatten(), f.values[1].tensor}) * share / 20;
    }
  }
  CHECK(support::relative_error(found, expected) < 1e-5);

  const auto stays = [logit = p.logit()](const tensor&) { return bernoulli{logit}; };
  retain::kickstarting kick{stays};
  CHECK(std::abs(kick.loss(policy, rollout{states}).item<double>()) < 1e-6);
  {
    const at::NoGradGuard no_grad;
    net->bias.add_(1);
  }
  const auto q = policy(states).logit.sigmoid().detach();
  const auto divergence =
      (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean().item<double>();
  CHECK(kick.loss(policy, rollout{states}).item<double>() == Approx(divergence).epsilon(1e-4));
}

}  // namespace concepts_test
