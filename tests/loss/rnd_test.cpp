// SPDX-License-Identifier: MIT
#include <retain/loss/rnd.hpp>

#include <cmath>
#include <memory>

#include "support.hpp"

namespace loss_rnd_test {

namespace {

const auto zero = [](const at::Tensor& x) { return torch::zeros_like(x); };
const auto identity = [](const at::Tensor& x) { return x * 1; };

}  // namespace

TEST_CASE("rnd: observations are normalized by what was seen before the rollout, clipped, and "
          "errors averaged over features, as fixed numbers",
          "[rnd]") {
  // Target 0 and predictor x: the error is the mean square of the normalized observation.
  retain::rnd bonus{zero, identity, {2}, 1};
  // mean 1 and 0, variance 1: the initial count is lost in it
  bonus.warm_up(torch::tensor({{0.0, -1.0}, {2.0, 1.0}}).repeat({5000, 1}));
  const auto next = torch::tensor({{3.0, 1.0}, {1.0, 40.0}}).view({2, 1, 2});
  const auto errors = bonus.errors(next);
  CHECK(errors.sizes() == at::IntArrayRef({2, 1}));
  CHECK(errors[0][0].item<double>() == Approx((4.0 + 1) / 2).epsilon(1e-6));
  CHECK(errors[1][0].item<double>() == Approx((0.0 + 25) / 2).epsilon(1e-6));

  const auto rewards = bonus.rewards(next);
  // R: 2.5, then .99 * 2.5 + 12.5; the standard deviation of two numbers is half their distance.
  const double deviation = (0.99 * 2.5 + 12.5 - 2.5) / 2;
  CHECK(rewards[0][0].item<double>() == Approx(2.5 / deviation).epsilon(1e-3));
  CHECK(rewards[1][0].item<double>() == Approx(12.5 / deviation).epsilon(1e-3));
  CHECK(bonus.observation_statistics().count() == 10002);  // and only then its observations count
  CHECK(bonus.return_scale().statistics().count() == 2);

  const auto again = bonus.rewards(next.narrow(0, 0, 1));
  CHECK(bonus.return_scale().statistics().count() == 3);
  CHECK(again.sizes() == at::IntArrayRef({1, 1}));
}

TEST_CASE("rnd: asking a few rows at a time is asking all at once; no rows are no errors",
          "[rnd]") {
  torch::manual_seed(1);
  torch::nn::Linear target(3, 4), predictor(3, 4);
  retain::rnd whole{target, predictor, {3}, 2};
  retain::rnd parts{target, predictor, {3}, 2, {.rows = 3}};
  const auto observations = torch::randn({5, 2, 3});
  CHECK(at::allclose(parts.errors(observations), whole.errors(observations)));
  CHECK(whole.errors(observations[0][0]).dim() == 0);
  CHECK(whole.errors(torch::zeros({0, 2, 3})).sizes() == at::IntArrayRef({0, 2}));
  CHECK(whole.loss(torch::zeros({0, 3})).item<double>() == 0);
}

TEST_CASE("rnd: the loss is the mean error of the drawn samples, reaches the predictor alone, and "
          "each sample is drawn at its fraction",
          "[rnd]") {
  torch::manual_seed(2);
  torch::nn::Linear target(3, 4), predictor(3, 4);
  const auto observations = torch::randn({64, 3});
  retain::rnd all{target, predictor, {3}, 1, {.fraction = 1}};
  const auto loss = all.loss(observations);
  CHECK(loss.item<double>() == Approx(all.errors(observations).mean().item<double>()));
  loss.backward();
  CHECK(predictor->weight.grad().defined());
  CHECK(!target->weight.requires_grad());
  CHECK(!target->weight.grad().defined());
  CHECK(!target->is_training());
  const auto slow = [&] {
    return (predictor->forward(observations) - target->forward(observations))
        .square()
        .mean()
        .item<double>();
  };
  // statistics at their beginning: mean 0, variance 1
  CHECK(slow() == Approx(loss.item<double>()).epsilon(1e-3));

  // Errors that name their sample: 1, 2, 4, ... so that the loss tells who was drawn. 2000 losses
  // over 8 samples.
  // small enough not to be clipped
  const auto powers = torch::pow(2, torch::arange(8, at::kDouble)).sqrt().unsqueeze(1) * 1e-3;
  retain::rnd some{zero, identity, {1}, 1, {.fraction = 0.25, .seed = 5}};
  retain::rnd same{zero, identity, {1}, 1, {.fraction = 0.25, .seed = 5}};
  std::vector<int> count(9, 0);
  int none = 0;
  for (int i = 0; i < 2000; ++i) {
    const double value = some.loss(powers).item<double>() * 1e6;
    CHECK(value == same.loss(powers).item<double>() * 1e6);
    if (value == 0) {
      ++none;
      continue;
    }
    // The mean of the drawn powers: the number drawn is the only one that makes it a whole number
    // with as many bits.
    int drawn = 0;
    for (int n = 1; n <= 8; ++n) {
      const auto sum = static_cast<unsigned>(std::lround(value * n));
      if (std::abs(value * n - sum) < 1e-6 && __builtin_popcount(sum) == n) drawn = n;
    }
    REQUIRE(drawn > 0);
    ++count[static_cast<std::size_t>(drawn)];
  }
  double mean = 0;
  for (int n = 1; n <= 8; ++n) mean += n * count[static_cast<std::size_t>(n)] / 2000.0;
  CHECK(std::abs(mean - 2) < 4 * std::sqrt(8 * 0.25 * 0.75 / 2000));
  CHECK(std::abs(none / 2000.0 - std::pow(0.75, 8)) < 4 * std::sqrt(0.1 * 0.9 / 2000));
}

TEST_CASE("rnd: where no sample is drawn the loss is 0 and can be differentiated", "[rnd]") {
  torch::nn::Linear target(3, 4), predictor(3, 4);
  retain::rnd rare{target, predictor, {3}, 1, {.fraction = 1e-12}};
  const auto loss = rare.loss(torch::randn({5, 3}));
  CHECK(loss.item<double>() == 0);
  loss.backward();
  CHECK(predictor->weight.grad().abs().sum().item<double>() == 0);
}

TEST_CASE("rnd: what the predictor has learned is no longer new, what it has not is", "[rnd]") {
  torch::manual_seed(3);
  const auto net = [] {
    return torch::nn::Sequential(torch::nn::Linear(4, 32), torch::nn::ReLU(),
                                 torch::nn::Linear(32, 8));
  };
  const auto predictor = net();
  retain::rnd bonus{net(), predictor, {4}, 8};
  const auto known = torch::randn({16, 8, 4}) + 2, unknown = torch::randn({16, 8, 4}) - 2;
  bonus.warm_up(at::cat({known, unknown}));
  const double before = bonus.errors(unknown).mean().item<double>();
  torch::optim::Adam adam(predictor->parameters(), torch::optim::AdamOptions(1e-2));
  for (int i = 0; i < 200; ++i) {
    adam.zero_grad();
    bonus.loss(known).backward();
    adam.step();
  }
  CHECK(bonus.errors(known).mean().item<double>() <
        0.1 * bonus.errors(unknown).mean().item<double>());
  CHECK(bonus.errors(unknown).mean().item<double>() > 0.3 * before);
}

TEST_CASE("rnd: saved, loaded and gone on with, to the bit; what does not fit changes nothing",
          "[rnd]") {
  torch::manual_seed(4);
  const support::temporary_folder folder;
  torch::nn::Linear target(3, 4), predictor(3, 4), other_target(3, 4), other_predictor(3, 4);
  retain::rnd bonus{target, predictor, {3}, 2, {.seed = 1}};
  retain::rnd resumed{other_target, other_predictor, {3}, 2, {.seed = 2}};
  bonus.warm_up(torch::randn({50, 3}));
  bonus.rewards(torch::randn({4, 2, 3}));
  bonus.loss(torch::randn({20, 3}));
  retain::state before;
  bonus.save_state(before, "");
  retain::save(folder.file("b"), bonus);
  retain::load(folder.file("b"), resumed);
  torch::optim::SGD sgd(predictor->parameters(), torch::optim::SGDOptions(0.1)),
      other(other_predictor->parameters(), torch::optim::SGDOptions(0.1));
  for (int i = 0; i < 3; ++i) {
    const auto next = torch::randn({4, 2, 3});
    CHECK(resumed.rewards(next).equal(bonus.rewards(next)));
    sgd.zero_grad();
    other.zero_grad();
    bonus.loss(next).backward();
    resumed.loss(next).backward();
    sgd.step();
    other.step();
  }
  CHECK(predictor->weight.equal(other_predictor->weight));
  bonus.load_state(before, "");  // a state that was taken before training is still what it was
  CHECK(!predictor->weight.equal(other_predictor->weight));
  retain::rnd loaded{other_target, other_predictor, {3}, 2};
  retain::load(folder.file("b"), loaded);
  CHECK(predictor->weight.equal(other_predictor->weight));

  torch::nn::Linear wide(3, 5), wide_predictor(3, 5);
  retain::rnd wrong{wide, wide_predictor, {3}, 2};
  const auto weight = wide->weight.clone();
  CHECK_THROWS_AS(retain::load(folder.file("b"), wrong), retain::shape_error);
  CHECK(wide->weight.equal(weight));
  CHECK(wrong.observation_statistics().count() == 0);

  const auto count = bonus.observation_statistics().count();
  CHECK_THROWS_AS(bonus.rewards(torch::full({1, 2, 3}, std::nan(""))), retain::state_error);
  CHECK_THROWS_WITH(bonus.rewards(torch::zeros({1, 3, 3})), ContainsSubstring("[T, 2]"));
  CHECK_THROWS_WITH(bonus.errors(torch::zeros({1, 4})),
                    ContainsSubstring("[1, 4]") && ContainsSubstring("[3]"));
  CHECK(bonus.observation_statistics().count() == count);
  retain::rnd unequal{target, wide_predictor, {3}, 1};
  CHECK_THROWS_WITH(unequal.errors(torch::zeros({2, 3})),
                    ContainsSubstring("[2, 4]") && ContainsSubstring("[2, 5]"));
  CHECK_THROWS_AS((retain::rnd{zero, zero, {3}, 1, {.fraction = 0}}), retain::config_error);
  CHECK_THROWS_AS((retain::rnd{zero, zero, {3}, 0}), retain::config_error);
  for (const double bad : {0.0, -1.0, std::nan("")})
    CHECK_THROWS_AS((retain::rnd{zero, zero, {3}, 1, {.observation_clip = bad}}),
                    retain::config_error);
  CHECK_THROWS_WITH((retain::rnd{zero, zero, {3}, 1, {.rows = 0}}),
                    ContainsSubstring("rows at least 1"));
  for (const double bad : {-0.1, 1.1, std::nan("")})
    CHECK_THROWS_WITH((retain::rnd{zero, zero, {3}, 1, {.gamma = bad}}),
                      ContainsSubstring("gamma"));
}

TEST_CASE("rnd: copies have statistics of their own", "[rnd]") {
  torch::manual_seed(6);
  retain::rnd bonus{zero, identity, {2}, 1};
  bonus.warm_up(torch::randn({50, 2}));
  auto copy = bonus;
  const auto seen = torch::randn({4, 1, 2}) * 3, later = torch::randn({4, 1, 2});
  const auto before = copy.errors(seen);
  const auto first = bonus.rewards(seen);
  CHECK(copy.observation_statistics().count() == 50);
  CHECK(copy.return_scale().statistics().count() == 0);
  CHECK(copy.errors(seen).equal(before));
  CHECK(!bonus.errors(seen).equal(before));
  CHECK(copy.rewards(seen).equal(first));  // goes the same way, from where it was
  CHECK(copy.rewards(later).equal(bonus.rewards(later)));
}

TEST_CASE("rnd: a graph that holds the predictor is told that it was loaded", "[rnd]") {
  torch::nn::Sequential predictor(torch::nn::Linear(3, 4), torch::nn::Linear(4, 4));
  retain::rnd bonus{torch::nn::Linear(3, 4), predictor, {3}, 2, {.fraction = 1}};
  retain::state saved;
  bonus.save_state(saved, "");
  const auto loss = bonus.loss(torch::randn({20, 3}));
  bonus.load_state(saved, "");
  CHECK_THROWS_WITH(loss.backward(), ContainsSubstring("modified by an inplace operation"));
}

}  // namespace loss_rnd_test
