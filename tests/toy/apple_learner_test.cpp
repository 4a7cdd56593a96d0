// SPDX-License-Identifier: MIT
#include "support.hpp"

#include "toy/apple_strengths.hpp"

#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace toy_apple_learner_test {

namespace {

/// w and b of a movement of the two logits.
toy::apple_weights from_logits(const toy::apple_world& world, double close, double far) {
  return {(far - close) / (2 * world.signal), (close + far) / 2};
}

/// A policy where pre-training would leave it, at P(left) = 0.95 in phase 2.
toy::apple_weights mastered(const toy::apple_world& world) {
  const double logit = -std::log(0.95 / 0.05), scale = logit / (1 + world.signal * world.signal);
  return {world.signal * scale, scale};
}

void move_to(const torch::nn::Linear& policy, const toy::apple_weights& to) {
  const at::NoGradGuard no_grad;
  policy->weight.fill_(to.w);
  policy->bias.fill_(to.b);
}

/// What a method's closure adds to `.grad` at `to`, having been made at `anchor`.
toy::apple_weights pull(const std::string& method, const toy::apple_world& world,
                        const toy::apple_weights& anchor, const toy::apple_weights& to,
                        double strength) {
  const auto policy = toy::make_policy(anchor);
  const auto retain = toy::make_retention(method, policy, world, strength);
  move_to(policy, to);
  toy::set_gradient(policy, {0, 0});
  retain();
  return {policy->weight.grad().item<double>(), policy->bias.grad().item<double>()};
}

/// KL(p* ‖ p) of Bernoulli variables with logits z* and z, in nats.
double kl(double anchor, double z) {
  const double p = toy::sigmoid(anchor), q = toy::sigmoid(z);
  return p * std::log(p / q) + (1 - p) * std::log((1 - p) / (1 - q));
}

toy::apple_plan plan_of(const std::vector<toy::apple_world>& worlds,
                        const std::vector<std::string>& methods, int updates,
                        const std::vector<unsigned long>& seeds) {
  toy::apple_plan plan;
  plan.worlds = worlds;
  for (const auto& method : methods)
    plan.arms.push_back({method, toy::method_named(method).strength});
  plan.updates = updates;
  plan.seeds = seeds;
  return plan;
}

}  // namespace

TEST_CASE("AppleRetrieval: the policy gradient is that of LibTorch's autograd", "[toy][apple]") {
  for (const auto& [phase, discount] : {std::pair{1, 0.9}, std::pair{2, 0.9}, std::pair{1, 1.0}}) {
    const toy::apple_world world{6, 0.35, 40};
    const toy::apple_weights weights{-1.7, 0.3};
    const toy::reinforce_options options{.discount = discount, .episodes = 4};
    auto policy = toy::make_policy(weights);
    toy::random_numbers random(11), again(11);
    toy::apple_episode episode;
    toy::set_gradient(policy,
                      toy::policy_gradient(world, weights, phase, options, random, episode));
    const auto weight = policy->weight.grad().clone(), bias = policy->bias.grad().clone();

    policy->zero_grad();
    auto loss = at::zeros({}, at::kDouble);
    bool both = false;
    for (int i = 0; i < options.episodes; ++i) {
      toy::play(world, weights, phase, again, episode);
      both = both || (episode.turn > 0 && episode.turn < episode.right.size());
      const auto steps = static_cast<std::int64_t>(episode.right.size());
      auto observations = at::empty({steps, 1}, at::kDouble),
           actions = at::empty({steps}, at::kLong), returns = at::zeros({steps}, at::kDouble);
      for (std::int64_t t = 0; t < steps; ++t) {
        const auto at = static_cast<std::size_t>(t);
        observations[t][0] = at < episode.turn ? -world.signal : world.signal;
        actions[t] = static_cast<std::int64_t>(episode.right[at]);
        for (std::int64_t k = t; k < steps; ++k)
          returns[t] += std::pow(discount, k - t) * episode.reward(static_cast<std::size_t>(k));
      }
      loss = loss -
             (toy::act(policy, observations).log_prob(actions) * returns).sum() / options.episodes;
    }
    if (phase == 1) CHECK(both);
    loss.backward();
    CHECK(support::relative_error(weight, policy->weight.grad()) < 1e-12);
    CHECK(support::relative_error(bias, policy->bias.grad()) < 1e-12);
  }
}

TEST_CASE(
    "AppleRetrieval: without a discount the policy gradient is that of the exact expected reward",
    "[toy][apple]") {
  const toy::apple_world world{5, 0.5, 20};
  const toy::apple_weights weights{-0.8, 0.3};
  const toy::reinforce_options options{.discount = 1, .episodes = 1};
  const auto reward = [&](double w, double b) {
    const toy::apple_weights there{w, b};
    return toy::exact_outcome(world, there.right(world, 1), there.right(world, 2)).reward;
  };
  constexpr double h = 1e-5;
  const std::array<double, 2> exact{
      (reward(weights.w + h, weights.b) - reward(weights.w - h, weights.b)) / (2 * h),
      (reward(weights.w, weights.b + h) - reward(weights.w, weights.b - h)) / (2 * h)};
  toy::random_numbers random(5);
  toy::apple_episode episode;
  std::array<std::vector<double>, 2> drawn;
  for (int i = 0; i < 60'000; ++i) {
    const auto gradient = toy::policy_gradient(world, weights, 1, options, random, episode);
    drawn[0].push_back(gradient.w);
    drawn[1].push_back(gradient.b);
  }
  for (std::size_t k = 0; k < 2; ++k) {
    CAPTURE(k, exact[k]);
    REQUIRE(std::abs(exact[k]) > 20 * statistics::standard_error(drawn[k]));
    CHECK(std::abs(statistics::mean(drawn[k]) - exact[k]) <
          4.5 * statistics::standard_error(drawn[k]));
  }
}

TEST_CASE("AppleRetrieval: a step down is torch::optim::SGD's", "[toy][apple]") {
  const auto ours = toy::make_policy({0.4, -1.1}), theirs = toy::make_policy({0.4, -1.1});
  torch::optim::SGD optimizer(theirs->parameters(), torch::optim::SGDOptions(0.03));
  for (int i = 0; i < 3; ++i) {
    for (const auto& policy : {ours, theirs}) toy::set_gradient(policy, {1.5 + i, -0.7});
    toy::descend(ours, 0.03);
    optimizer.step();
  }
  CHECK(torch::equal(ours->weight, theirs->weight));
  CHECK(torch::equal(ours->bias, theirs->bias));
}

TEST_CASE("AppleRetrieval: pre-training from zero keeps |b|/|w| at 1/c and masters phase 2",
          "[toy][apple]") {
  for (const double signal : {0.1, 0.15, 0.25, 0.35, 0.5, 2.0}) {
    const toy::apple_world world{20, signal, 100};
    toy::random_numbers random(3, 1);
    const auto start = toy::pretrain(world, {}, random);
    CHECK(std::abs(std::abs(start.b) / std::abs(start.w) - 1 / signal) < 1e-9);
    CHECK(1 - start.right(world, 2) >= 0.95);
    CHECK(1 - start.right(world, 2) < 0.96);
    CHECK(toy::measure(world, start, 0).far > 0.999);
    CHECK(start.right(world, 1) ==
          Approx(
              toy::sigmoid(start.logit(world, 2) * (1 - signal * signal) / (1 + signal * signal))));
  }
  toy::random_numbers random(3, 1);
  CHECK_THROWS_WITH(toy::pretrain({20, 0.25, 100}, {.rate = 1e-12}, random),
                    ContainsSubstring("--rate"));
}

TEST_CASE("AppleRetrieval: K-FAC is the dense 2×2 Fisher, and the diagonal one is its diagonal",
          "[toy][apple]") {
  for (const double signal : {0.1, 0.25, 2.0}) {
    const toy::apple_world world{30, signal, 100};
    const auto policy = toy::make_policy({-0.9, -1.4});
    // Written out: the sum over actions of π(a) g gᵀ, with g from autograd.
    auto dense = at::zeros({2, 2}, at::kDouble);
    for (std::int64_t action = 0; action < 2; ++action) {
      const auto log_probability =
          toy::act(policy, toy::far_observations(world)).log_probs()[0][action];
      const auto gradients =
          torch::autograd::grad({log_probability}, {policy->weight, policy->bias});
      const auto g = at::cat({gradients[0].reshape({1}), gradients[1].reshape({1})});
      dense += log_probability.detach().exp() * at::outer(g, g);
    }
    const auto factors = toy::full_fisher(policy, world);
    REQUIRE(factors.layers.size() == 1);
    const auto kronecker = at::kron(factors.layers[0].inputs, factors.layers[0].outputs);
    CHECK(support::relative_error(kronecker, dense) < 1e-12);

    const double p = toy::weights_of(policy).right(world, 2);
    const auto direction = torch::tensor({signal, 1.0}, at::kDouble);
    CHECK(support::relative_error(kronecker, p * (1 - p) * at::outer(direction, direction)) <
          1e-12);
    // the free direction
    CHECK(dense.mv(torch::tensor({1.0, -signal}, at::kDouble)).norm().item<double>() < 1e-15);

    const auto diagonal = toy::diagonal_fisher(policy, world);
    REQUIRE(diagonal.values.size() == 2);
    CHECK(diagonal.values[0].tensor.item<double>() ==
          Approx(dense[0][0].item<double>()).epsilon(1e-12));
    CHECK(diagonal.values[1].tensor.item<double>() ==
          Approx(dense[1][1].item<double>()).epsilon(1e-12));
  }
}

TEST_CASE("AppleRetrieval: what each penalty charges, in the two logits", "[toy][apple]") {
  const toy::apple_world world{30, 0.25, 100};
  const auto anchor = mastered(world);
  const double c2 = world.signal * world.signal, far = anchor.logit(world, 2),
               p = toy::sigmoid(far), fisher = p * (1 - p), strength = 7;
  using charge = std::function<double(double, double)>;
  const std::vector<std::pair<std::string, charge>> charges{
      {"none", [](double, double) { return 0.0; }},
      {"l2",
       [&](double d1, double d2) {
         return strength * ((d2 - d1) * (d2 - d1) / (4 * c2) + (d1 + d2) * (d1 + d2) / 4);
       }},
      {"ewc", [&](double d1, double d2) { return strength * fisher / 2 * (d1 * d1 + d2 * d2); }},
      {"kfac", [&](double, double d2) { return strength * fisher * d2 * d2; }},
      {"bc", [&](double, double d2) { return strength * kl(far, far + d2); }}};
  for (const auto& [method, value] : charges)
    for (const auto& [d1, d2] :
         std::vector<std::array<double, 2>>{{0, 0}, {5, 0}, {0, 2}, {0, -3}, {3, 1}, {-2, 4}}) {
      CAPTURE(method, d1, d2);
      const auto moved = from_logits(world, d1, d2);
      const auto got =
          pull(method, world, anchor, {anchor.w + moved.w, anchor.b + moved.b}, strength);
      // Its slopes in w and b, from those in the logits: z1 = −cw + b, z2 = cw + b.
      constexpr double h = 1e-5;
      const double slope1 = (value(d1 + h, d2) - value(d1 - h, d2)) / (2 * h),
                   slope2 = (value(d1, d2 + h) - value(d1, d2 - h)) / (2 * h);
      CHECK(got.w == Approx(world.signal * (slope2 - slope1)).epsilon(1e-6).margin(1e-8));
      CHECK(got.b == Approx(slope1 + slope2).epsilon(1e-6).margin(1e-8));
    }
}

TEST_CASE(
    "AppleRetrieval: the full Fisher at half the strength is BC to second order, and not beyond",
    "[toy][apple]") {
  const toy::apple_world world{30, 0.25, 100};
  const auto anchor = mastered(world);
  const auto ratio = [&](double d1, double d2) {
    const auto moved = from_logits(world, d1, d2);
    const toy::apple_weights to{anchor.w + moved.w, anchor.b + moved.b};
    return pull("bc", world, anchor, to, 2).b / pull("kfac", world, anchor, to, 1).b;
  };
  CHECK(ratio(0, 1e-3) == Approx(1).epsilon(2e-3));
  CHECK(ratio(5, -1e-3) == Approx(1).epsilon(2e-3));
  CHECK(ratio(0, 2.9) > 3);   // towards forgetting the KL is much steeper
  CHECK(ratio(0, -4) < 0.5);  // towards more certainty it is flatter
}

TEST_CASE("AppleRetrieval: runs are the same whatever the number of threads", "[toy][apple]") {
  const auto plan = plan_of({{10, 0.25, 100}, {20, 0.35, 100}},
                            {"scratch", "none", "l2", "ewc", "kfac", "bc"}, 40, {1, 2});
  const auto one = toy::run_all(plan, 1, "one thread"),
             three = toy::run_all(plan, 3, "three threads");
  REQUIRE(one.size() == 24);
  REQUIRE(three.size() == one.size());
  for (std::size_t i = 0; i < one.size(); ++i) {
    CHECK(one[i].seed == three[i].seed);
    CHECK(one[i].world == three[i].world);
    CHECK(one[i].arm == three[i].arm);
    CHECK(one[i].end.w == three[i].end.w);
    CHECK(one[i].end.b == three[i].end.b);
    REQUIRE(one[i].points.size() == 5);
    for (std::size_t t = 0; t < 5; ++t) CHECK(one[i].points[t].full == three[i].points[t].full);
  }
  CHECK(one[1].end.w != one[7].end.w);      // another seed
  CHECK(one[1].start.w == one[5].start.w);  // one pre-trained policy for all methods
  CHECK(one[0].start.w == 0);               // and none from scratch
  CHECK(toy::over_seeds(one, 1, 3, [](const auto& run) { return run.end.b; }) ==
        std::vector<double>{one[15].end.b, one[21].end.b});
}

TEST_CASE("AppleRetrieval: plain fine-tuning forgets the way home, retention does not, and the "
          "diagonal pays for it",
          "[toy][apple]") {
  const auto plan =
      plan_of({{30, 0.25, 100}, {5, 0.25, 100}}, {"none", "ewc", "kfac", "bc"}, 600, {1, 2, 3});
  const auto runs = toy::run_all(plan, 2, "statistical test");
  const auto mean = [&](std::size_t world, std::size_t arm, double (toy::apple_run::*of)() const) {
    return statistics::mean(
        toy::over_seeds(runs, world, arm, [&](const auto& run) { return (run.*of)(); }));
  };
  CHECK(mean(0, 0, &toy::apple_run::lowest_far) < 0.1);  // M = 30
  CHECK(mean(1, 0, &toy::apple_run::lowest_far) > 0.9);  // M = 5: too near to forget
  for (const std::size_t arm : {1u, 2u, 3u}) CHECK(mean(0, arm, &toy::apple_run::lowest_far) > 0.8);
  for (const std::size_t arm : {2u, 3u})
    CHECK(mean(0, arm, &toy::apple_run::area) > mean(0, 0, &toy::apple_run::area) + 0.1);
  CHECK(mean(0, 1, &toy::apple_run::last_full) < 0.2);
  CHECK(mean(0, 2, &toy::apple_run::last_full) > 0.9);
}

TEST_CASE("AppleRetrieval: strengths are chosen by the two rules", "[toy][apple]") {
  const auto grid = toy::strength_grid({"none", "l2", "bc"});
  REQUIRE(grid.size() == 35);
  CHECK(grid[1].strength == Approx(0.01));
  CHECK(grid[17].strength == Approx(100));
  CHECK(grid[19].strength == Approx(1.8));
  CHECK(grid[34].strength == Approx(10'000));

  toy::apple_plan plan;
  plan.worlds = {{}};
  plan.seeds = {1, 2};
  plan.arms = {{"none", 0}, {"ewc", 1}, {"ewc", 2}, {"ewc", 3}, {"l2", 1}};
  std::vector<toy::apple_run> runs;
  const std::vector<std::array<double, 2>> kept_and_area{
      {0, 0.5}, {0.2, 0.9}, {0.95, 0.6}, {0.99, 0.4}, {0.5, 0.3}};
  for (std::size_t arm = 0; arm < plan.arms.size(); ++arm)
    for (const unsigned long seed : plan.seeds) {
      toy::apple_run run;
      run.arm = arm;
      run.seed = seed;
      const double spread = seed == 1 ? 0.01 : -0.01;
      run.points = {{0, kept_and_area[arm][1] + spread, 0, 1, 0, 0},
                    {10, kept_and_area[arm][1] - spread, 0, kept_and_area[arm][0] + spread, 0, 0}};
      runs.push_back(run);
    }
  const auto chosen = toy::choose(plan, runs);
  REQUIRE(chosen.learns.size() == 3);
  CHECK(chosen.learns[0].method == "none");
  CHECK(chosen.learns[2].strength == 1);
  REQUIRE(chosen.keeps.size() == 1);  // L2 never keeps phase 2
  CHECK(chosen.keeps[0].method == "ewc");
  CHECK(chosen.keeps[0].strength == 2);
}

TEST_CASE("AppleRetrieval: movement in the felt and the free direction", "[toy][apple]") {
  const toy::apple_world world{30, 0.25, 100};
  const toy::apple_weights start{0.3, -1.2};
  const double length = std::sqrt(1 + 0.0625);
  const auto felt =
      toy::movement(world, start, {start.w + 2 * 0.25 / length, start.b + 2 / length});
  CHECK(felt.felt == Approx(2));
  CHECK(felt.free == Approx(0).margin(1e-12));
  const auto free =
      toy::movement(world, start, {start.w + 3 / length, start.b - 3 * 0.25 / length});
  CHECK(free.felt == Approx(0).margin(1e-12));
  CHECK(free.free == Approx(3));
  const auto back =
      toy::weights_at(world, {0, 0, 0, 0, start.logit(world, 1), start.logit(world, 2)});
  CHECK(back.w == Approx(start.w));
  CHECK(back.b == Approx(start.b));
}

}  // namespace toy_apple_learner_test
