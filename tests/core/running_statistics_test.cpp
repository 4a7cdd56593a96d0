// SPDX-License-Identifier: MIT
#include <retain/running_statistics.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support.hpp"

namespace running_statistics_test {

using retain::discounted_return_scale;
using retain::running_statistics;

static_assert(retain::stateful<running_statistics>);
static_assert(retain::stateful<discounted_return_scale>);

TEST_CASE("running_statistics: over batches of any size the mean and variance of all samples",
          "[running_statistics]") {
  torch::manual_seed(1);
  // a large mean: sums of squares would have lost the variance
  const auto all = 1e6 + 3 * torch::randn({40, 2, 3}, at::kDouble);
  running_statistics seen({2, 3}, {.initial_count = 0});
  std::int64_t begin = 0;
  for (const std::int64_t rows : {1, 0, 7, 32})
    seen.update(all.narrow(0, std::exchange(begin, begin + rows), rows));
  CHECK(seen.count() == 40);
  CHECK(support::relative_error(seen.mean() - 1e6, all.mean(0) - 1e6) < 1e-9);
  CHECK(support::relative_error(seen.variance(), all.var(0, false)) < 1e-9);

  running_statistics leading({3}, {.initial_count = 0});  // all leading dimensions are samples
  leading.update(all);
  CHECK(leading.count() == 80);
  CHECK(support::relative_error(leading.variance(), all.reshape({80, 3}).var(0, false)) < 1e-9);
}

TEST_CASE("running_statistics: a batch larger than the part that is taken at a time",
          "[running_statistics]") {
  torch::manual_seed(2);
  const std::int64_t width = 1 << 21;
  const auto batch = torch::randint(0, 255, {5, width}, at::kByte);
  running_statistics seen({width}, {.initial_count = 0});
  seen.update(batch);
  CHECK(seen.count() == 5);
  CHECK(at::allclose(seen.mean(), batch.to(at::kDouble).mean(0)));
  CHECK(at::allclose(seen.variance(), batch.to(at::kDouble).var(0, false)));
}

TEST_CASE("running_statistics: what it begins with, as fixed numbers", "[running_statistics]") {
  running_statistics seen({2});
  CHECK(seen.mean().equal(torch::zeros({2}, at::kDouble)));
  CHECK(at::allclose(seen.variance(), torch::ones({2}, at::kDouble)));
  seen.update(torch::tensor({{1.0, 2.0}, {3.0, 2.0}}));
  // n = 2.0001: mean = 2 * 2 / n; M2 = initial 1e-4 + own + mean^2 * 1e-4 * 2 / n.
  const double n = 2.0001, between = 4 * 1e-4 * 2 / n;
  CHECK(seen.mean()[0].item<double>() == Approx(4 / n).epsilon(1e-13));
  CHECK(seen.variance()[0].item<double>() == Approx((1e-4 + 2 + between) / n).epsilon(1e-13));
  CHECK(seen.variance()[1].item<double>() == Approx((1e-4 + between) / n).epsilon(1e-13));
  CHECK(running_statistics({2}, {.initial_count = 0})
            .variance()
            .equal(torch::ones({2}, at::kDouble)));
}

TEST_CASE("running_statistics: normalizing, clipped and not, of any type", "[running_statistics]") {
  running_statistics seen({}, {.initial_count = 0});
  seen.update(torch::tensor({0.0, 4.0}));  // mean 2, variance 4
  CHECK(seen.normalize(torch::tensor({6.0, -20.0, 2.0}, at::kDouble))
            .equal(torch::tensor({2.0, -11.0, 0.0}, at::kDouble)));
  CHECK(seen.normalize(torch::tensor({6.0, -20.0, 2.0}, at::kDouble), 5)
            .equal(torch::tensor({2.0, -5.0, 0.0}, at::kDouble)));
  const auto bytes = seen.normalize(torch::tensor({6, 0}, at::kByte));
  CHECK(bytes.scalar_type() == at::kFloat);
  CHECK(bytes.equal(torch::tensor({2.0f, -1.0f})));
  CHECK(seen.normalize(torch::zeros({1}, at::kHalf)).scalar_type() == at::kHalf);

  running_statistics constant({}, {.initial_count = 0});
  constant.update(torch::full({3}, 7.0));
  CHECK(constant.normalize(torch::full({1}, 9.0)).item<double>() == 0);
  // the mean of numbers that are no sums of powers of two is not quite theirs
  for (const std::int64_t count : {3, 1000, 100'000}) {
    running_statistics tenth({}, {.initial_count = 0});
    tenth.update(torch::full({count}, 0.1, at::kDouble));
    tenth.update(torch::full({count + 1}, 0.1, at::kDouble));
    CHECK(tenth.normalize(torch::full({1}, 0.2, at::kDouble)).item<double>() == 0);
  }
  running_statistics narrow({}, {.initial_count = 0});
  narrow.update(torch::tensor({1e6 - 1e-5, 1e6 + 1e-5}, at::kDouble));  // by 1e-11 of its mean
  CHECK(narrow.normalize(torch::full({1}, 1e6 + 1e-5, at::kDouble)).item<double>() ==
        Approx(1).epsilon(1e-4));
  running_statistics softened({}, {.initial_count = 0, .epsilon = 4});
  softened.update(torch::full({3}, 7.0));
  CHECK(softened.normalize(torch::full({1}, 9.0)).item<double>() == 1);
}

TEST_CASE("running_statistics: two that are merged are one that saw both, with what they began "
          "with counted once",
          "[running_statistics]") {
  torch::manual_seed(3);
  const auto first = torch::randn({5, 2}, at::kDouble),
             second = 4 + torch::randn({9, 2}, at::kDouble);
  running_statistics both({2}, {.initial_count = 3}), a({2}, {.initial_count = 3}),
      b({2}, {.initial_count = 3});
  both.update(at::cat({first, second}));
  a.update(first);
  b.update(second);
  const auto before = a.mean();
  const auto kept = a;  // a copy is not moved by what happens to the original
  a.merge(b);
  CHECK(a.count() == 14);
  CHECK(at::allclose(a.mean(), both.mean(), 1e-13));
  CHECK(at::allclose(a.variance(), both.variance(), 1e-13));
  CHECK(kept.mean().equal(before));
  a.merge(running_statistics({2}));
  CHECK(at::allclose(a.variance(), both.variance(), 1e-13));
  CHECK_THROWS_WITH(a.merge(running_statistics({3})),
                    ContainsSubstring("[3]") && ContainsSubstring("[2]"));
}

TEST_CASE("running_statistics: what does not fit is named and changes nothing",
          "[running_statistics]") {
  running_statistics seen({2});
  seen.update(torch::ones({4, 2}));
  const auto mean = seen.mean();
  CHECK_THROWS_WITH(seen.update(torch::ones({2, 3})),
                    ContainsSubstring("[2, 3]") && ContainsSubstring("[2]"));
  CHECK_THROWS_AS(seen.update(torch::tensor(1.0)), retain::shape_error);
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()})
    CHECK_THROWS_AS(seen.update(torch::tensor({{1.0, bad}})), retain::state_error);
  CHECK(seen.count() == 4);
  CHECK(seen.mean().equal(mean));
  CHECK_THROWS_AS(running_statistics({}, {.initial_count = -1}), retain::config_error);
  CHECK_THROWS_AS(running_statistics({}, {.epsilon = std::nan("")}), retain::config_error);
}

TEST_CASE("running_statistics: saved, loaded and gone on with, to the bit",
          "[running_statistics]") {
  torch::manual_seed(4);
  const support::temporary_folder folder;
  running_statistics seen({3});
  seen.update(torch::randn({7, 3}));
  retain::save(folder.file("s"), seen);
  running_statistics resumed({3});
  retain::load(folder.file("s"), resumed);
  const auto more = torch::randn({5, 3});
  seen.update(more);
  resumed.update(more);
  CHECK(resumed.count() == seen.count());
  CHECK(resumed.mean().equal(seen.mean()));
  CHECK(resumed.variance().equal(seen.variance()));
  running_statistics other({4});
  CHECK_THROWS_AS(retain::load(folder.file("s"), other), retain::shape_error);
  CHECK(other.count() == 0);
}

TEST_CASE("running_statistics: a state of no statistics is refused and changes nothing",
          "[running_statistics]") {
  running_statistics seen({2});
  seen.update(torch::tensor({{1.0, 2.0}, {3.0, 5.0}}));
  const auto mean = seen.mean(), variance = seen.variance();
  const auto with = [&](const auto& change) {
    retain::state saved;
    running_statistics other({2});
    other.update(torch::ones({4, 2}));
    other.save_state(saved, "");
    change(saved);
    return saved;
  };
  for (const double count : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()})
    CHECK_THROWS_AS(seen.load_state(with([&](retain::state& s) { s.set("count", count); }), ""),
                    retain::state_error);
  CHECK_THROWS_AS(
      seen.load_state(with([](retain::state& s) { s.set("mean", torch::zeros({2})); }), ""),
      retain::state_error);
  CHECK_THROWS_AS(
      seen.load_state(with([](retain::state& s) { s.set("squares", torch::zeros({2})); }), ""),
      retain::state_error);
  CHECK_THROWS_AS(
      seen.load_state(
          with([](retain::state& s) { s.set("squares", torch::zeros({3}, at::kDouble)); }), ""),
      retain::shape_error);
  for (const double bad : {std::nan(""), double(INFINITY), -1.0}) {
    CHECK_THROWS_AS(seen.load_state(with([&](retain::state& s) {
                                      s.set("squares", torch::full({2}, bad, at::kDouble));
                                    }),
                                    ""),
                    retain::state_error);
    if (bad != -1.0)
      CHECK_THROWS_AS(seen.load_state(with([&](retain::state& s) {
                                        s.set("mean", torch::full({2}, bad, at::kDouble));
                                      }),
                                      ""),
                      retain::state_error);
  }
  CHECK_THROWS_WITH(seen.load_state(with([](retain::state& s) {
                                      s.set("count", 0);
                                      s.set("squares", torch::ones({2}, at::kDouble));
                                    }),
                                    ""),
                    ContainsSubstring("cannot come from 0"));
  CHECK(seen.count() == 2);
  CHECK(seen.mean().equal(mean));
  CHECK(seen.variance().equal(variance));
  seen.load_state(with([](retain::state&) {}), "");
  CHECK(seen.count() == 4);

  discounted_return_scale scale(2);
  scale.update(torch::ones({3, 2}));
  const auto deviation = scale.deviation();
  retain::state saved;
  scale.save_state(saved, "");
  saved.set("returns", torch::zeros({2}));
  saved.set("statistics.count", 99);
  CHECK_THROWS_WITH(scale.load_state(saved, ""), ContainsSubstring("not double"));
  CHECK(scale.deviation().equal(deviation));
  saved.set("returns", torch::zeros({2}, at::kDouble));
  saved.set("statistics.count", -1);
  CHECK_THROWS_AS(scale.load_state(saved, ""), retain::state_error);
  saved.set("returns", torch::full({2}, std::nan(""), at::kDouble));
  saved.set("statistics.count", 99);
  CHECK_THROWS_WITH(scale.load_state(saved, ""), ContainsSubstring("not finite"));
  CHECK(scale.statistics().count() == 6);
  CHECK(scale.deviation().equal(deviation));
}

TEST_CASE("discounted_return_scale: one return per environment over time, through episode ends, as "
          "fixed numbers",
          "[running_statistics]") {
  discounted_return_scale scale(2, {.gamma = 0.5, .initial_count = 0});
  scale.update(torch::tensor({{1.0, 0.0}, {1.0, 4.0}}));
  scale.update(torch::tensor({{0.0, 2.0}}));
  // Environment 0: 1, 1.5, .75; environment 1: 0, 4, 4. A filter over environments instead of time
  // would give 1, .5 and so on.
  const auto returns = torch::tensor({1.0, 1.5, 0.75, 0.0, 4.0, 4.0}, at::kDouble);
  CHECK(scale.statistics().count() == 6);
  CHECK(scale.deviation().item<double>() ==
        Approx(returns.std(false).item<double>()).epsilon(1e-13));
  const auto rewards = torch::tensor({3.0f, 0.0f});
  CHECK(scale.scale(rewards).scalar_type() == at::kFloat);
  // nothing is subtracted: 0 stays 0
  CHECK(at::allclose(scale.scale(rewards), rewards / returns.std(false)));
}

TEST_CASE("discounted_return_scale: where ends are given, the last step's reward belongs to the "
          "episode and the next begins at 0",
          "[running_statistics]") {
  discounted_return_scale scale(1, {.gamma = 0.5, .initial_count = 0});
  scale.update(torch::tensor({{4.0}, {4.0}}), torch::tensor({{false}, {true}}));
  scale.update(torch::tensor({{4.0}, {0.0}}), torch::tensor({{0.0}, {0.0}}));
  // 4, then 2 + 4 at the last step; behind it 4, and 2. Resetting a step early or late gives 4, 4,
  // 6, 3 or 4, 6, 7, 0.
  CHECK(scale.statistics().mean().item<double>() == Approx(4.0));
  CHECK(scale.deviation().item<double>() ==
        Approx(std::sqrt((0 + 4 + 0 + 4) / 4.0)).epsilon(1e-13));
  const auto before = scale.deviation();
  CHECK_THROWS_AS(scale.update(torch::ones({1, 1}), torch::full({1, 1}, 0.5)),
                  retain::config_error);
  CHECK(scale.deviation().equal(before));
}

TEST_CASE("discounted_return_scale: how a rollout is cut does not matter, nor does saving between "
          "the parts",
          "[running_statistics]") {
  torch::manual_seed(5);
  const support::temporary_folder folder;
  const auto rewards = torch::randn({12, 3});
  const auto ended = torch::rand({12, 3}).lt(0.3);
  discounted_return_scale whole(3), parts(3), resumed(3);
  whole.update(rewards, ended);
  parts.update(rewards.narrow(0, 0, 5), ended.narrow(0, 0, 5));
  retain::save(folder.file("s"), parts);
  retain::load(folder.file("s"), resumed);
  const auto copy = parts;
  for (auto* each : {&parts, &resumed})
    each->update(rewards.narrow(0, 5, 7), ended.narrow(0, 5, 7));
  CHECK(parts.deviation().item<double>() ==
        Approx(whole.deviation().item<double>()).epsilon(1e-12));
  CHECK(resumed.deviation().equal(parts.deviation()));
  CHECK(copy.statistics().count() == 15);

  CHECK_THROWS_WITH(whole.update(torch::zeros({3, 2})),
                    ContainsSubstring("[T, 3]") && ContainsSubstring("[3, 2]"));
  CHECK_THROWS_AS(whole.update(torch::zeros({2, 3}), torch::zeros({3})), retain::shape_error);
  const auto deviation = whole.deviation();
  CHECK_THROWS_AS(whole.update(torch::full({1, 3}, std::nan(""))), retain::state_error);
  CHECK(whole.deviation().equal(deviation));
  whole.update(torch::zeros({0, 3}));
  CHECK(whole.deviation().equal(deviation));
  discounted_return_scale other(2);
  CHECK_THROWS_AS(retain::load(folder.file("s"), other), retain::shape_error);
  CHECK_THROWS_AS(discounted_return_scale(0), retain::config_error);
  CHECK_THROWS_AS(discounted_return_scale(1, {.gamma = 1.5}), retain::config_error);
}

TEST_CASE("discounted_return_scale: rewards without any variation stay as they are; whole ones are "
          "divided as real ones") {
  discounted_return_scale silent(2, {.gamma = 0.5, .initial_count = 0});
  silent.update(torch::zeros({4, 2}));
  CHECK(silent.scale(torch::zeros({3})).equal(torch::zeros({3})));
  CHECK(silent.scale(torch::ones({3})).equal(torch::ones({3})));
  discounted_return_scale same(1, {.gamma = 0, .initial_count = 0});
  same.update(torch::full({7, 1}, 3.3));
  CHECK(same.scale(torch::ones({1})).equal(torch::ones({1})));
  discounted_return_scale scale(1, {.gamma = 0, .initial_count = 0});
  scale.update(torch::tensor({{1.0}, {2.0}}));
  CHECK(scale.scale(torch::ones({1}, at::kLong)).item<float>() == Approx(2));
}

}  // namespace running_statistics_test
