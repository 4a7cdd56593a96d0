// SPDX-License-Identifier: MIT
#include <retain/replay/prioritized.hpp>

#include "support.hpp"

namespace replay_prioritized_test {

using retain::prioritized;

namespace {

at::Tensor range(std::int64_t n) { return torch::arange(n, at::kLong); }

}  // namespace

TEST_CASE("sum_tree: sums, least and places against a running sum, for every size", "[replay]") {
  retain::detail::splitmix64 random(1);
  for (std::int64_t n = 1; n <= 33; ++n) {
    retain::detail::sum_tree tree(n);
    std::vector<double> values(static_cast<std::size_t>(n));
    for (int change = 0; change < 60; ++change) {
      if (change % 7 == 0) {  // a run of leaves at once
        const auto first = random.index(n), count = 1 + random.index(n - first);
        tree.fill(first, count, 0.25 * change);
        for (std::int64_t i = first; i < first + count; ++i)
          values[static_cast<std::size_t>(i)] = 0.25 * change;
      } else {
        const auto leaf = random.index(n);
        tree.set(leaf,
                 values[static_cast<std::size_t>(leaf)] = static_cast<double>(random.below(5)));
      }
      double sum = 0, least = INFINITY;
      for (const double v : values) {
        sum += v;
        if (v > 0) least = std::min(least, v);
      }
      REQUIRE(tree.total() == sum);  // small multiples of 1/4 add up without rounding
      REQUIRE(tree.least() == least);
    }
    // The places of the running sum are shared out in proportion: as many quarters of mass as the
    // value has.
    std::vector<double> found(static_cast<std::size_t>(n));
    for (double mass = 0.125; mass < tree.total(); mass += 0.25)
      found[static_cast<std::size_t>(tree.find(mass))] += 0.25;
    REQUIRE(found == values);
    tree.resize(n + 5);
    for (std::int64_t i = 0; i < n; ++i)
      REQUIRE(tree.value(i) == values[static_cast<std::size_t>(i)]);
    REQUIRE(tree.value(n + 4) == 0);
  }
}

TEST_CASE("sum_tree: sums do not drift over many changes of very different size", "[replay]") {
  retain::detail::splitmix64 random(2);
  retain::detail::sum_tree tree(100), fresh(100);
  std::vector<double> values(100);
  for (int change = 0; change < 300000; ++change) {
    const auto leaf = random.index(100);
    tree.set(leaf,
             values[static_cast<std::size_t>(leaf)] = std::pow(10.0, 30 * random.real() - 15));
  }
  for (std::int64_t leaf = 0; leaf < 100; ++leaf) {
    tree.set(leaf, std::fmod(values[static_cast<std::size_t>(leaf)], 1e-6));
    fresh.set(leaf, std::fmod(values[static_cast<std::size_t>(leaf)], 1e-6));
  }
  CHECK(tree.total() == fresh.total());
}

TEST_CASE("prioritized: P is p^alpha over its sum, by chi-square", "[replay]") {
  torch::manual_seed(1);
  for (const double alpha : {0.0, 0.6, 1.0}) {
    prioritized sampler{12, {.alpha = alpha, .epsilon = 0.1, .seed = 4}};
    const auto priorities = torch::rand({12}, at::kDouble) * 5;
    sampler.update(range(12), priorities);
    const auto expected = (priorities + 0.1).pow(alpha) / (priorities + 0.1).pow(alpha).sum();
    CHECK(support::relative_error(sampler.probabilities(), expected) < 1e-14);
    auto counts = torch::zeros({12}, at::kDouble);
    constexpr int draws = 20000;
    // alone: no stratification
    for (int i = 0; i < draws; ++i) counts[sampler.sample(1).indices[0].item<std::int64_t>()] += 1;
    const double chi =
        ((counts - draws * expected).square() / (draws * expected)).sum().item<double>();
    CHECK(chi < 31.3);  // 99.9 % at 11 degrees of freedom
  }
}

TEST_CASE("prioritized: one item from each of n equal parts of the mass", "[replay]") {
  prioritized sampler{8, {.alpha = 1, .epsilon = 0, .seed = 1}};
  // the sum is 16, in the tree's order 0 to 7
  sampler.update(range(8), torch::tensor({4.0, 1.0, 1.0, 1.0, 1.0, 4.0, 2.0, 2.0}));
  for (int i = 0; i < 50; ++i) {
    const auto drawn = sampler.sample(4).indices;
    CHECK(drawn[0].item<std::int64_t>() == 0);
    CHECK(drawn[1].item<std::int64_t>() >= 1);
    CHECK(drawn[1].item<std::int64_t>() <= 4);
    CHECK(drawn[2].item<std::int64_t>() == 5);
    CHECK(drawn[3].item<std::int64_t>() >= 6);
  }
}

TEST_CASE("prioritized: the weights are (N P)^-beta over the largest, and undo the bias at beta 1",
          "[replay]") {
  const auto priorities = torch::tensor({0.5, 2.0, 1.0, 8.0}, at::kDouble),
             values = torch::tensor({3.0, -1.0, 4.0, 10.0}, at::kDouble);
  for (const double beta : {0.0, 0.4, 1.0}) {
    prioritized sampler{4, {.alpha = 0.7, .beta = beta, .seed = 3}};
    sampler.update(range(4), priorities);
    const auto p = (priorities + 1e-6).pow(0.7) / (priorities + 1e-6).pow(0.7).sum();
    const auto all = (4 * p).pow(-beta);
    const auto drawn = sampler.sample(100);
    CHECK(support::relative_error(drawn.weights, (all / all.max()).index_select(0, drawn.indices)) <
          1e-12);
    CHECK(drawn.weights.max().item<double>() <= 1);
  }
  // Over many draws, the weighted sum is that of uniform sampling up to one factor: 1 / max w.
  prioritized sampler{4, {.alpha = 0.7, .beta = 1.0, .seed = 3}};
  sampler.update(range(4), priorities);
  const auto drawn = sampler.sample(40000);
  const double ratio =
      (drawn.weights * values.index_select(0, drawn.indices)).sum().item<double>() /
      drawn.weights.sum().item<double>();
  CHECK(ratio == Approx(4.0).epsilon(0.01));
}

TEST_CASE("prioritized: what is new has the largest priority so far; what has none is never drawn",
          "[replay]") {
  prioritized sampler{3, {.alpha = 1, .epsilon = 0}};
  sampler.update(range(3), torch::tensor({2.0, 0.0, 6.0}));
  sampler.push(2);
  CHECK(sampler.size() == 5);
  CHECK(support::relative_error(sampler.probabilities(),
                                torch::tensor({0.1, 0.0, 0.3, 0.3, 0.3}, at::kDouble)) < 1e-7);
  sampler.update(torch::tensor({2, 2}), torch::tensor({9.0, 1.0}));  // the last counts
  CHECK(sampler.probabilities()[2].item<double>() == Approx(1.0 / 15));
  const auto drawn = sampler.sample(3000);
  CHECK(drawn.indices.eq(1).sum().item<std::int64_t>() == 0);
  CHECK(drawn.weights.isfinite().all().item<bool>());
  for (int i = 0; i < 6; ++i) sampler.push(20);
  CHECK(sampler.size() == 125);
  CHECK(sampler.sample(1000).indices.max().item<std::int64_t>() > 100);
}

TEST_CASE("prioritized: beta is annealed, saved and resumed with all the rest, bit for bit",
          "[replay]") {
  const support::temporary_folder folder;
  const auto options = [](std::uint64_t seed) {
    return retain::prioritized_options{
        .beta = retain::linear{.initial = 0.4, .last = 1.0, .over = 100}, .seed = seed};
  };
  torch::manual_seed(2);
  prioritized a{37, options(1)};
  const auto learn = [](prioritized& sampler, int step) {
    const auto drawn = sampler.sample(8);
    sampler.update(drawn.indices, (drawn.indices * (step + 1)).remainder(11).to(at::kFloat));
    sampler.step(step);
    return drawn;
  };
  for (int step = 0; step < 10; ++step) learn(a, step);
  a.push(3);
  CHECK(a.beta() == Approx(0.4 + 0.6 * 0.09));
  retain::save(folder.file("p"), a);
  prioritized b{5, options(2)};
  retain::load(folder.file("p"), b);
  CHECK(b.size() == 40);
  for (int step = 10; step < 60; ++step) {
    const auto x = learn(a, step), y = learn(b, step);
    REQUIRE(x.indices.equal(y.indices));
    REQUIRE(x.weights.equal(y.weights));
    if (step % 20 == 0) {
      a.push(30);
      b.push(30);
    }
  }
}

TEST_CASE("prioritized: what has no meaning is refused and changes nothing", "[replay]") {
  CHECK_THROWS_AS((prioritized{4, {.alpha = 1.5}}), retain::config_error);
  CHECK_THROWS_AS((prioritized{4, {.beta = 1.5}}), retain::config_error);
  CHECK_THROWS_AS((prioritized{4, {.epsilon = -1}}), retain::config_error);
  CHECK_THROWS_AS(prioritized{-1}, retain::config_error);
  CHECK_THROWS_WITH(prioritized{0}.sample(1), ContainsSubstring("nothing to draw from"));
  prioritized sampler{4}, untouched{4};
  for (const double bad : {-1.0, std::nan(""), static_cast<double>(INFINITY)})
    CHECK_THROWS_WITH(sampler.update(range(2), torch::tensor({1.0, bad})),
                      ContainsSubstring("item 1"));
  CHECK_THROWS_WITH(sampler.push(-1), ContainsSubstring("cannot add -1 items"));
  CHECK_THROWS_AS(sampler.push(-1), retain::config_error);
  CHECK(sampler.size() == 4);
  CHECK_THROWS_AS(sampler.update(range(5), torch::ones({5})), retain::config_error);
  CHECK_THROWS_AS(sampler.update(range(4), torch::ones({3})), retain::shape_error);
  retain::state wrong;
  sampler.save_state(wrong, "");
  wrong.set("masses", torch::tensor({1.0, -1.0}, at::kDouble));
  CHECK_THROWS_AS(sampler.load_state(wrong, ""), retain::state_error);
  CHECK(sampler.sample(50).indices.equal(untouched.sample(50).indices));
  prioritized steep{4, {.beta = retain::linear{.initial = 0.4, .last = 2.0, .over = 10}}};
  CHECK_THROWS_AS(steep.step(10), retain::config_error);
  CHECK(steep.beta() == 0.4);
}

TEST_CASE("prioritized: a state that no updates leave is refused with its key's name", "[replay]") {
  prioritized sampler{
      4,
      {.alpha = 1, .beta = retain::linear{.initial = 0.4, .last = 1.0, .over = 10}, .epsilon = 0}};
  sampler.update(range(2), torch::tensor({3.0, 0.5}));
  retain::state good;
  sampler.save_state(good, "p.");
  const auto refused = [&](const char* key, auto value) {
    auto state = good;
    state.set(std::string("p.") + key, value);
    CHECK_THROWS_AS(sampler.load_state(state, "p."), retain::state_error);
    CHECK_THROWS_WITH(sampler.load_state(state, "p."), ContainsSubstring(std::string("'p.") + key));
  };
  for (const std::int64_t leaves : {std::int64_t{-1}, std::int64_t{3}, std::int64_t{9},
                                    std::int64_t{4'000'000'000}, std::int64_t{1} << 62})
    refused("leaves", leaves);
  for (const double largest : {std::nan(""), static_cast<double>(INFINITY), -1.0, 0.5, 1e302})
    refused("largest", largest);
  refused("masses", torch::tensor({4.0, 0.5, 1.0, 1.0}, at::kDouble));  // above the largest, 3
  refused("masses", torch::tensor({std::nan(""), 0.5, 1.0, 1.0}, at::kDouble));
  refused("masses", torch::tensor({3.0f, 0.5f, 1.0f, 1.0f}));
  {
    auto state = good;
    state.set("p.beta.progress", std::nan(""));
    CHECK_THROWS_AS(sampler.load_state(state, "p."), retain::state_error);
  }
  CHECK(sampler.sample(1).weights.defined());
  CHECK_THROWS_AS((prioritized{4, {.epsilon = 1e301}}), retain::config_error);
  prioritized largest{4, {.alpha = 1, .epsilon = 1e300}};
  largest.update(range(4), torch::full({4}, 1e300, at::kDouble));
  CHECK(largest.sample(4).weights.eq(1).all().item<bool>());
}

}  // namespace replay_prioritized_test
