// SPDX-License-Identifier: MIT
#include <retain/behavioral_cloning.hpp>
#include <retain/fisher.hpp>
#include <retain/kickstarting.hpp>
#include <retain/mahalanobis_gate.hpp>
#include <retain/monitor.hpp>
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>
#include <retain/reference_kl.hpp>
#include <retain/replay/sequences.hpp>
#include <retain/steps.hpp>

#include <optional>
#include <tuple>

#include "support.hpp"

namespace steps_test {

using retain::categorical;
using retain::new_episodes;
using retain::steps;

namespace {

using lstm_state = std::tuple<at::Tensor, at::Tensor>;
struct own_state {
  at::Tensor h, c;
  std::optional<int> count;
};

/// Logits that count the steps since the state was reset: what a recurrent policy remembers.
struct counter {
  double first = 0;
  std::pair<categorical, at::Tensor> operator()(const at::Tensor& observations,
                                                const at::Tensor& state,
                                                const at::Tensor& episode_start) const {
    std::vector<at::Tensor> said;
    auto count = state.defined() ? state : torch::full({observations.size(1)}, first, at::kDouble);
    for (std::int64_t t = 0; t < observations.size(0); ++t) {
      count = count * episode_start[t].logical_not() + 1;
      said.push_back(torch::stack({count, torch::zeros_like(count)}, -1));
    }
    return {categorical{torch::stack(said)}, count};
  }
};

at::Tensor counts(const categorical& said) { return said.logits.select(-1, 0); }

const auto identity = [](const at::Tensor& o) { return categorical{o}; };

}  // namespace

TEST_CASE("new_episodes: converts to the state that a policy takes, also through a generic lambda",
          "[steps]") {
  const auto by_reference = [](const at::Tensor& state) { return !state.defined(); };
  const auto by_value = [](at::Tensor state) { return !state.defined(); };
  const auto of_two = [](const lstm_state& state) {
    return !std::get<0>(state).defined() && !std::get<1>(state).defined();
  };
  const auto of_two_by_value = [](lstm_state state) { return !std::get<1>(state).defined(); };
  const auto of_ones_own = [](const own_state& state) {
    return !state.h.defined() && !state.count;
  };
  const auto of_ones_own_by_value = [](own_state state) { return !state.c.defined(); };
  const auto of_a_list = [](const std::vector<at::Tensor>& state) { return state.empty(); };
  const auto of_a_number = [](int state) { return state == 0; };
  const auto hands_on = [](const auto& policy, const auto& state) { return policy(state); };
  const auto check = [&](const auto& policy) {
    CHECK(policy(new_episodes{}));
    CHECK(hands_on(policy, new_episodes{}));
  };
  check(by_reference);
  check(by_value);
  check(of_two);
  check(of_two_by_value);
  check(of_ones_own);
  check(of_ones_own_by_value);
  check(of_a_list);
  check(of_a_number);
  const at::Tensor made = new_episodes{};
  CHECK(!made.defined());
}

TEST_CASE("a policy may return what its network returns: the first of several values, a member",
          "[steps]") {
  struct with_logits {
    at::Tensor logits, value;
  };
  struct with_distribution {
    retain::masked<categorical> distribution;
    at::Tensor value;
  };
  const auto x = torch::randn({4, 3}), value = torch::zeros({4});
  const auto mask = torch::tensor({1, 0, 1, 1});
  const steps rollout{.observations = x};
  CHECK(retain::ask(identity, rollout).logits.is_same(x));
  CHECK(retain::ask([](const at::Tensor& o) { return o; }, rollout).logits.is_same(x));
  CHECK(retain::ask([&](const at::Tensor& o) { return std::pair{o, value}; }, rollout)
            .logits.is_same(x));
  CHECK(retain::ask([&](const at::Tensor& o) { return std::tuple{categorical{o}, value, 1}; },
                    rollout)
            .logits.is_same(x));
  CHECK(retain::ask([&](const at::Tensor& o) { return with_logits{o, value}; }, rollout)
            .logits.is_same(x));
  const auto masked = retain::ask(
      [&](const at::Tensor& o) { return with_distribution{{categorical{o}, mask}, value}; },
      rollout);
  CHECK(masked.distribution.logits.is_same(x));
  CHECK(masked.mask.is_same(mask));
}

TEST_CASE("ask: the state of the rollout, or new episodes; a policy without memory gets the "
          "observations",
          "[steps]") {
  const auto x = torch::zeros({3, 2, 1}, at::kDouble);
  const auto start = torch::tensor({{0, 0}, {0, 1}, {0, 0}});
  const auto state = torch::tensor({5.0, 7.0}, at::kDouble);
  const auto after = torch::tensor({{6.0, 8.0}, {7.0, 1.0}, {8.0, 2.0}}, at::kDouble);
  const auto anew = torch::tensor({{1.0, 1.0}, {2.0, 1.0}, {3.0, 2.0}}, at::kDouble);
  CHECK(
      counts(retain::ask(counter{}, steps{.observations = x, .episode_start = start})).equal(anew));
  CHECK(counts(retain::ask(
                   counter{},
                   steps{.observations = x, .episode_start = start.to(at::kBool), .state = state}))
            .equal(after));
  struct own {
    at::Tensor observations, episode_start;
  };
  CHECK(counts(retain::ask(counter{}, own{x, start})).equal(anew));
  CHECK_THROWS_WITH(retain::ask(counter{}, steps{.observations = x}),
                    ContainsSubstring("there is no episode_start"));
  // A state of another type than the policy's is used if it is there, and is then an error.
  const auto of_two = [&](const at::Tensor& o, const lstm_state& carried, const at::Tensor& s) {
    auto [said, next] = counter{}(o, std::get<0>(carried), s);
    return std::tuple{said, lstm_state{next, next}};
  };
  CHECK(counts(retain::ask(of_two, steps{.observations = x, .episode_start = start})).equal(anew));
  CHECK_THROWS_WITH(
      retain::ask(of_two, steps{.observations = x, .episode_start = start, .state = state}),
      ContainsSubstring("another type of state"));
  const retain::basic_steps<at::Tensor, lstm_state> two{
      .observations = x, .episode_start = start, .state = {state, state}};
  CHECK(counts(retain::ask(of_two, two)).equal(after));
}

TEST_CASE("steps: undefined members are absent in every term", "[steps]") {
  torch::manual_seed(1);
  const auto x = torch::randn({5, 4}, at::kDouble);
  const auto student = [](const at::Tensor& o) { return categorical{o * 0.5}; };
  struct own {
    at::Tensor observations, actions;
  };
  const auto actions = torch::tensor({0, 1, 2, 3, 0});
  retain::kickstarting keep{identity, {.strength = 2.0}};
  const auto alone = keep.loss(student, own{x, actions});
  CHECK(keep.loss(student, steps{.observations = x}).equal(alone));
  CHECK(keep.loss(student, steps{.observations = x, .teacher = x}).equal(alone));
  CHECK(keep.loss(student, steps{.observations = x, .teachers = {x}}).equal(alone));
  CHECK(keep.loss(student, steps{.observations = x, .teacher = x * 0.5}).item<double>() ==
        Approx(0).margin(1e-12));
  const auto weights = torch::tensor({1.0, 0.0, 2.0, 1.0, 0.5}, at::kDouble);
  const auto mask = torch::tensor({1, 1, 0, 1, 1});
  const auto rows = kl(categorical{x}, categorical{x * 0.5});
  CHECK(keep.loss(student, steps{.observations = x, .mask = mask, .weights = weights})
            .item<double>() == Approx(2 * (rows * weights * mask).sum().item<double>() / 4));

  retain::reference_kl near{identity};
  const auto estimate = near.loss(student, own{x, actions});
  CHECK(near.loss(student, steps{.observations = x, .actions = actions}).equal(estimate));
  CHECK(near.loss(student, steps{.observations = x,
                                 .actions = actions,
                                 .reference_log_probs = categorical{x}.log_prob(actions)})
            .item<double>() == Approx(estimate.item<double>()));
  retain::reference_kl stored{retain::stored_reference{}};
  CHECK_THROWS_WITH(stored.loss(student, steps{.observations = x, .actions = actions}),
                    ContainsSubstring("reference_log_probs once per rollout"));
}

TEST_CASE("steps: environments are chosen in every member", "[steps]") {
  const auto x = torch::arange(24).view({3, 4, 2}), start = torch::zeros({3, 4});
  const steps played{.observations = x,
                     .actions = torch::arange(12).view({3, 4}),
                     .mask = torch::arange(12).view({3, 4}),
                     .episode_start = start,
                     .state = torch::arange(4).view({4, 1}),
                     .teacher = torch::arange(60).view({3, 4, 5})};
  CHECK(played.size() == 4);
  const auto part = played.narrow(1, 2);
  CHECK(part.size() == 2);
  CHECK(part.observations.equal(x.narrow(1, 1, 2)));
  CHECK(part.actions.equal(torch::tensor({{1, 2}, {5, 6}, {9, 10}})));
  CHECK(part.state.equal(torch::tensor({{1}, {2}})));
  CHECK(part.teacher.equal(played.teacher.narrow(1, 1, 2)));
  CHECK(!part.weights.defined());
  const auto some = played.gather(torch::tensor({3, 0}));
  CHECK(some.mask.equal(torch::tensor({{3, 0}, {7, 4}, {11, 8}})));
  CHECK(some.state.equal(torch::tensor({{3}, {0}})));
  CHECK_THROWS_AS(played.gather(torch::tensor({{3, 0}})), retain::shape_error);

  const steps single{.observations = torch::arange(6).view({3, 2}), .actions = torch::arange(3)};
  CHECK(single.size() == 3);
  CHECK(single.narrow(2, 1).actions.equal(torch::tensor({2})));
  auto stateful = single;
  stateful.state = torch::arange(3.0f).unsqueeze(1);
  const auto stretches = stateful.gather(torch::tensor({{0, 2}, {1, 1}}));
  CHECK(stretches.state.equal(torch::tensor({{0.0f}, {2.0f}})));
  CHECK(stretches.dimension() == 1);
  CHECK(stretches.size() == 2);
  CHECK(single.gather(torch::tensor({{0, 2}, {1, 1}})).observations.sizes() ==
        at::IntArrayRef({2, 2, 2}));
  auto wrong = played;
  wrong.state = torch::zeros({3, 1});
  CHECK_THROWS_WITH(wrong.narrow(0, 1), ContainsSubstring("the state's tensors of shape [3, 1]"));
}

TEST_CASE("a gate with memory starts anew with every rollout, and padded steps are not fitted",
          "[steps]") {
  torch::manual_seed(2);
  // Features: the observation and the number of steps since the episode began.
  const auto features = [](const at::Tensor& o, const at::Tensor& state, const at::Tensor& start) {
    const auto [said, next] = counter{}(o, state, start);
    return std::pair{torch::cat({o, counts(said).unsqueeze(-1)}, -1), next};
  };
  const auto seen = torch::randn({6, 20, 1}, at::kDouble);
  auto start = torch::zeros({6, 20});
  start[0].fill_(1);
  start[3].fill_(1);
  const retain::mahalanobis_gate gate{steps{.observations = seen, .episode_start = start},
                                      features};
  const auto by_hand = std::get<0>(features(seen, {}, start));
  const retain::mahalanobis_gate plain{by_hand};
  CHECK(gate.threshold() == Approx(plain.threshold()));
  CHECK(gate(seen, new_episodes{}, start).equal(plain(by_hand)));
  auto mask = torch::ones({6, 20});
  mask.narrow(0, 4, 2).zero_();
  auto padded = seen.clone();
  padded.narrow(0, 4, 2).fill_(std::nan(""));
  CHECK(retain::mahalanobis_gate{
            steps{.observations = padded, .mask = mask, .episode_start = start}, features}
            .threshold() == Approx(retain::mahalanobis_gate{by_hand.narrow(0, 0, 4)}.threshold()));

  const auto student = [](const at::Tensor& o) { return categorical{torch::cat({o, -o}, -1)}; };
  const auto teacher = [](const at::Tensor& o) { return categorical{torch::cat({-o, o}, -1)}; };
  retain::kickstarting keep{teacher, {}, gate};
  // Longer than any episode that was seen: rejected.
  const auto long_start = torch::zeros({6, 20});
  static_cast<void>(keep.loss(student, steps{.observations = seen, .episode_start = long_start}));
  const auto accepted =
      plain(std::get<0>(features(seen, {}, long_start))).to(at::kDouble).mean().item<double>();
  CHECK(accepted < 0.9);
  CHECK(keep.last_weight().item<double>() == Approx(accepted));
  CHECK_THROWS_WITH(keep.loss(student, steps{.observations = seen}),
                    ContainsSubstring("the rollout has no episode_start"));
}

TEST_CASE("an LSTM actor_critic as it is: in kickstarting, cloning of sequences, the Fisher, the "
          "monitor and a gate it says what its single steps say",
          "[steps]") {
  torch::manual_seed(3);
  const auto make = [] {
    retain::actor_critic policy{retain::mlp(3, retain::mlp_options{.hidden = {6}}),
                                retain::categorical_head{.actions = 4},
                                {.core = retain::core_kind::lstm, .core_width = 5}};
    policy->to(at::kDouble);
    policy->eval();
    return policy;
  };
  auto policy = make();
  const retain::teacher teacher{policy};
  {
    const at::NoGradGuard no_grad;
    for (auto& parameter : policy->parameters()) parameter.add_(0.2 * torch::randn_like(parameter));
  }
  const auto x = torch::randn({7, 3, 3}, at::kDouble);
  auto start = torch::zeros({7, 3});
  start[2][1] = start[5][0] = 1;
  // one step at a time
  const auto stepwise = [](auto& asked, const at::Tensor& o, const at::Tensor& begins) {
    std::vector<at::Tensor> logits;
    at::Tensor state;
    for (std::int64_t t = 0; t < o.size(0); ++t) {
      auto [said, next] = asked(o[t], state, begins[t]);
      logits.push_back(said.logits);
      state = next;
    }
    return categorical{torch::stack(logits)};
  };
  const steps played{.observations = x, .episode_start = start};
  const auto p = stepwise(teacher, x, start), q = stepwise(policy, x, start);
  const double expected = kl(p, q).mean().item<double>();
  REQUIRE(expected > 0);

  auto asked = played;
  retain::kickstarting keep{teacher};
  asked.teacher = keep.target(played).logits;
  CHECK(keep.loss(policy, asked).item<double>() == Approx(expected));
  CHECK_THROWS_WITH(keep.loss(policy, played), ContainsSubstring("a recurrent policy needs its"));
  auto later = played;  // the teacher goes on; the student does so with the rollout's state
  later.state = std::get<1>(policy(x, new_episodes{}, start));
  later.teacher = keep.target(played).logits;
  const auto twice = torch::cat({x, x}), start_twice = torch::cat({start, start});
  const auto p2 = stepwise(teacher, twice, start_twice).logits.narrow(0, 7, 7),
             q2 = stepwise(policy, twice, start_twice).logits.narrow(0, 7, 7);
  CHECK(keep.loss(policy, later).item<double>() ==
        Approx(kl(categorical{p2}, categorical{q2}).mean().item<double>()));

  // Two whole episodes as sequences: the sampler can only draw them from their first step.
  const auto episodes = x.narrow(1, 0, 2).transpose(0, 1).reshape({14, 3});
  retain::behavioral_cloning clone{
      episodes,
      teacher,
      retain::sequences{torch::tensor({7, 7}, at::kLong), {.length = 7}},
      {.batch_size = 4}};
  const double cloned = clone.loss(policy).item<double>();
  const auto drawn = clone.last_draw();
  const auto o = episodes.index_select(0, drawn.indices.flatten()).view({7, 4, 3});
  CHECK(cloned == Approx(kl(stepwise(teacher, o, drawn.episode_start),
                            stepwise(policy, o, drawn.episode_start))
                             .mean()
                             .item<double>()));

  const auto fisher_of = [&](auto forward, bool walk) {
    return retain::estimate_fisher(policy, played, forward, retain::sampled_actions{.seed = 4},
                                   {.exclude = {"value_head"}, .batched = walk});
  };
  const auto whole = fisher_of([&](const steps& b) { return retain::ask(policy, b); }, true);
  const auto several = fisher_of(
      [&](const steps& b) { return policy(b.observations, new_episodes{}, b.episode_start); },
      true);
  const auto one_by_one = fisher_of(
      [&](const steps& b) { return stepwise(policy, b.observations, b.episode_start); }, false);
  CHECK(whole.states == 21);
  CHECK(one_by_one.unsliced == 0);
  for (std::size_t i = 0; i < whole.values.size(); ++i) {
    CHECK(support::relative_error(whole.values[i].tensor, one_by_one.values[i].tensor) < 1e-9);
    CHECK(whole.values[i].tensor.equal(several.values[i].tensor));
  }

  for (const std::int64_t batch : {1, 2, 100}) {
    retain::monitor watch{teacher, {.batch_size = batch}};
    watch.add("FAR", played);
    CHECK(watch.measure(policy)[0].kl == Approx(expected));
    CHECK(watch.last("FAR").agreement ==
          Approx(p.mode().eq(q.mode()).to(at::kDouble).mean().item<double>()));
    auto masked = played;
    masked.mask = torch::ones({7, 3});
    masked.mask.narrow(0, 4, 3).zero_();
    watch.add("EARLY", masked);
    CHECK(watch.measure(policy)[1].kl == Approx(kl(p, q).narrow(0, 0, 4).mean().item<double>()));
    CHECK_THROWS_WITH(watch.add("FLAT", x[0]), ContainsSubstring("a recurrent policy needs its"));
    masked.weights = masked.mask;
    CHECK_THROWS_WITH(watch.add("w", masked), ContainsSubstring("have weights"));
  }

  const auto features = [&](const at::Tensor& obs, const auto& state, const at::Tensor& s) {
    return teacher(obs, state, s);
  };
  const auto logits = [&](const at::Tensor& obs, const auto& state, const at::Tensor& s) {
    auto [said, next] = features(obs, state, s);
    return std::tuple{said.logits, next};
  };
  retain::kickstarting gated{teacher, {}, retain::mahalanobis_gate{played, logits}};
  static_cast<void>(gated.loss(policy, asked));
  CHECK(gated.gate().distance(played).allclose(
      retain::mahalanobis_gate{p.logits}.distance(p.logits), 1e-6));
}

}  // namespace steps_test
