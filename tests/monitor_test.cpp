// SPDX-License-Identifier: MIT
#include <retain/l2_init.hpp>
#include <retain/monitor.hpp>

#include <sstream>

#include "support.hpp"

namespace monitor_test {

using retain::categorical;

namespace {

const auto identity = [](const at::Tensor& logits) { return categorical{logits}; };

/// Two-dimensional actions with equal spread, to stand for distributions over numbers.
struct gaussian {
  at::Tensor mean;
  at::Tensor log_prob(const at::Tensor& a) const { return (a - mean).square().sum(-1) * -0.5; }
  at::Tensor entropy() const {
    return torch::zeros(mean.sizes().slice(0, static_cast<std::size_t>(mean.dim() - 1)));
  }
  at::Tensor sample() const { return mean + torch::randn_like(mean); }
  at::Tensor mode() const { return mean; }
};
at::Tensor kl(const gaussian& p, const gaussian& q) {
  return (p.mean - q.mean).square().sum(-1) * 0.5;
}

/// Actions of two parts, each the sign of one number.
struct two_parts : gaussian {
  at::Tensor mode() const { return mean.gt(0).to(at::kLong); }
};
at::Tensor kl(const two_parts& p, const two_parts& q) {
  return kl(gaussian{p.mean}, gaussian{q.mean});
}

struct dictionary_states {
  at::Tensor values;
  struct batch {
    at::Tensor values;
  };
  std::int64_t size() const { return values.size(0); }
  batch gather(const at::Tensor& indices) const { return {values.index_select(0, indices)}; }
};

}  // namespace

TEST_CASE("monitor: KL and agreement whatever the batch, the teacher asked once", "[monitor]") {
  torch::manual_seed(1);
  const auto close = torch::randn({10, 4}, at::kDouble), far = torch::randn({7, 4}, at::kDouble);
  const auto policy = [](const at::Tensor& x) {
    return categorical{x + torch::tensor({0.0, 1.0, 0.0, -0.5}, at::kDouble)};
  };
  for (const std::int64_t batch_size : {1, 3, 100}) {
    std::int64_t asked = 0, largest = 0;
    retain::monitor watch{[&](const at::Tensor& x) {
                            asked += x.size(0);
                            return categorical{x};
                          },
                          {.batch_size = batch_size}};
    watch.add("CLOSE", close);
    watch.add("FAR", far);
    CHECK(asked == 17);
    const auto counting = [&](const at::Tensor& x) {
      largest = std::max(largest, x.size(0));
      return policy(x);
    };
    const auto rows = watch.measure(counting, 100);
    watch.measure(counting, 200);
    CHECK(asked == 17);
    CHECK(largest == std::min<std::int64_t>(batch_size, 10));
    REQUIRE(rows.size() == 2);
    CHECK(rows[0].probe == "CLOSE");
    CHECK(rows[1].progress == 100);
    const categorical t{far}, s = policy(far);
    CHECK(rows[1].kl == Approx(kl(t, s).mean().item<double>()));
    CHECK(rows[1].agreement == Approx(t.mode().eq(s.mode()).to(at::kDouble).mean().item<double>()));
    CHECK(rows[1].agreement < 1);
    CHECK(watch.kl("FAR") == rows[1].kl);
    CHECK(watch.history().size() == 4);
  }
}

TEST_CASE("monitor: an unchanged policy has a KL of 0 and agrees; nothing keeps a graph",
          "[monitor]") {
  torch::nn::Linear net(4, 3);
  const auto x = torch::randn({6, 4});
  retain::monitor watch{retain::teacher{net}};
  watch.add("all", x);
  const auto row = watch.measure([&](const at::Tensor& o) {
    auto logits = net->forward(o);
    CHECK(!logits.requires_grad());
    return logits;  // logits do as well as a prediction
  })[0];
  CHECK(row.kl == Approx(0).margin(1e-7));
  CHECK(row.agreement == 1);
  CHECK(std::isnan(row.success));
  CHECK(std::isnan(row.forgetting));
}

TEST_CASE("monitor: padded steps of sequences count nowhere", "[monitor]") {
  torch::manual_seed(2);
  auto x = torch::randn({3, 5, 4}, at::kDouble);
  auto mask = torch::ones({3, 5}, at::kBool);
  mask[1].narrow(0, 2, 3).fill_(false);
  x[1].narrow(0, 2, 3).fill_(std::nan(""));
  const auto with_mask = [](const at::Tensor& o) {
    return retain::masked{categorical{o}, o.isnan().any(-1).logical_not()};
  };
  const auto policy = [](const at::Tensor& o) { return categorical{o * 0.5}; };
  retain::monitor watch{with_mask, {.batch_size = 2}};
  watch.add("sequences", x);
  const auto row = watch.measure(policy)[0];
  const auto kept = x.index({mask});
  CHECK(row.kl == Approx(kl(categorical{kept}, categorical{kept * 0.5}).mean().item<double>()));
  CHECK(row.agreement == 1);
  // A policy that masks further steps: both masks count.
  const auto first_only = [](const at::Tensor& o) {
    auto kept_steps = torch::zeros({o.size(0), o.size(1)});
    kept_steps.select(1, 0).fill_(1);
    return retain::masked{categorical{o * 0.5}, kept_steps};
  };
  const auto first = x.select(1, 0);
  CHECK(watch.measure(first_only)[0].kl ==
        Approx(kl(categorical{first}, categorical{first * 0.5}).mean().item<double>()));
  const auto nothing = [](const at::Tensor& o) {
    return retain::masked{categorical{o}, torch::zeros({o.size(0), o.size(1)})};
  };
  CHECK(std::isnan(watch.measure(nothing)[0].kl));
  const auto wrong = [](const at::Tensor& o) {
    return retain::masked{categorical{o}, torch::zeros({o.size(0), 2})};
  };
  CHECK_THROWS_AS(watch.measure(wrong), retain::shape_error);
  CHECK(watch.history().size() == 3);
}

TEST_CASE("monitor: any distribution: continuous ones have no agreement, parts must agree "
          "together; any states",
          "[monitor]") {
  const auto x = torch::tensor({{1.0, 1.0}, {1.0, -1.0}, {-1.0, -1.0}});
  retain::monitor continuous{[](const at::Tensor& o) { return gaussian{o}; }};
  continuous.add("a", x);
  const auto row = continuous.measure([](const at::Tensor& o) { return gaussian{o + 1}; })[0];
  CHECK(row.kl == Approx(1));
  CHECK(std::isnan(row.agreement));
  retain::monitor parts{[](const at::Tensor& o) { return two_parts{{o}}; }};
  parts.add("a", x);
  CHECK(parts
            .measure(
                [](const at::Tensor& o) { return two_parts{{o * torch::tensor({1.0, -1.0})}}; })[0]
            .agreement == 0);
  CHECK(parts
            .measure([](const at::Tensor& o) {
              return two_parts{{at::max(o, torch::tensor({-5.0, 0.5}))}};
            })[0]
            .agreement == Approx(1.0 / 3));

  const auto of_dictionary = [](const dictionary_states::batch& b) {
    return categorical{b.values};
  };
  retain::monitor<decltype(of_dictionary), dictionary_states> watch{of_dictionary,
                                                                    {.batch_size = 2}};
  watch.add("a", dictionary_states{x});
  CHECK(watch.measure(of_dictionary)[0].agreement == 1);
}

TEST_CASE("monitor: forgetting is the best success so far less the last", "[monitor]") {
  retain::monitor watch{identity};
  watch.add("FAR", torch::zeros({2, 3}));
  watch.report_success("FAR", 0.5);
  CHECK(watch.measure(identity)[0].forgetting == 0);
  watch.report_success("FAR", 0.75);
  CHECK(watch.measure(identity)[0].success == 0.75);
  watch.report_success("FAR", 0.25);
  CHECK(watch.measure(identity)[0].forgetting == 0.5);
  // not measured again: the last is still what is known
  const auto row = watch.measure(identity)[0];
  CHECK(std::isnan(row.success));
  CHECK(row.forgetting == 0.5);
  CHECK(row.progress == 3);
  std::ostringstream csv;
  watch.write_csv(csv);
  CHECK(csv.str() == "progress,probe,kl,agreement,success,forgetting\n0,FAR,0,1,0.5,0\n1,FAR,0,1,0."
                     "75,0\n2,FAR,0,1,0.25,0.5\n3,FAR,0,1,,0.5\n");
}

TEST_CASE("monitor: saved, restored and gone on with", "[monitor]") {
  const support::temporary_folder folder;
  torch::manual_seed(3);
  const auto x = torch::randn({4, 3}), y = torch::randn({2, 3});
  const auto policy = [](const at::Tensor& o) { return categorical{o * 0.3}; };
  const auto make = [&](const char* second) {
    retain::monitor watch{identity};
    watch.add("a", x);
    watch.add(second, y);
    return watch;
  };
  auto watch = make("b");
  watch.report_success("a", 0.9);
  watch.measure(policy, 1);
  watch.report_success("a", 0.4);
  watch.measure(policy, 2.5);
  watch.report_success("b", 0.6);
  retain::save(folder.file("m"), watch);
  auto resumed = make("b");
  retain::load(folder.file("m"), resumed);
  watch.measure(policy);
  resumed.measure(policy);
  std::ostringstream one, other;
  watch.write_csv(one);
  resumed.write_csv(other);
  CHECK(one.str() == other.str());
  CHECK(resumed.last("b").success == 0.6);
  auto another = make("c");
  CHECK_THROWS_WITH(retain::load(folder.file("m"), another), ContainsSubstring("'c.history'"));

  // Probes are read in order: of the first everything fits, and it stays as it was all the same.
  const auto refused = [&](const char* key, const at::Tensor& instead) {
    auto older = make("b");
    older.measure(policy, 7);
    std::ostringstream before, after;
    older.write_csv(before);
    retain::state saved;
    watch.save_state(saved, "");
    saved.set(key, instead);
    CHECK_THROWS_WITH(older.load_state(saved, ""),
                      ContainsSubstring("'b'") && ContainsSubstring("not a history"));
    CHECK_THROWS_AS(older.load_state(saved, ""), retain::shape_error);
    older.write_csv(after);
    CHECK(after.str() == before.str());
    CHECK(std::isnan(older.measure(policy)[0].success));
    CHECK(std::isnan(older.last("a").forgetting));
  };
  refused("b.history", torch::zeros({2, 4}, at::kDouble));
  refused("b.history", torch::zeros({2, 5}));
  refused("b.history", torch::zeros({5}, at::kDouble));
  refused("b.success", torch::zeros({2}, at::kDouble));
  refused("b.success", torch::zeros({3}));
}

TEST_CASE("monitor: holds the KL on states that are not trained on at a budget", "[monitor]") {
  // Logits W f(s): training wants action 0 on CLOSE, whose features overlap with those of FAR.
  torch::manual_seed(4);
  const auto close = torch::tensor({{1.0, 0.0, 0.6}}, at::kDouble),
             far = torch::tensor({{0.0, 1.0, 0.8}}, at::kDouble);
  const auto origin = torch::randn({3, 3}, at::kDouble);
  const auto train = [&](retain::strength_schedule strength) {
    auto weights = origin.clone().requires_grad_();
    const auto policy = [&](const at::Tensor& x) { return categorical{x.mm(weights)}; };
    retain::monitor watch{[&](const at::Tensor& x) { return categorical{x.mm(origin)}; }};
    watch.add("FAR", far);
    retain::l2_init keep{std::vector<at::Tensor>{weights}, {.strength = std::move(strength)}};
    const bool adapts = keep.strength() > 0;
    for (int i = 0; i < 600; ++i) {
      weights.mutable_grad() = at::Tensor();
      (-policy(close).log_prob(torch::zeros({1}, at::kLong)).mean()).backward();
      keep.add_gradient(std::vector<at::Tensor>{weights});
      const at::NoGradGuard no_grad;
      weights.sub_(weights.grad(), 0.3);
      watch.measure(policy);
      if (adapts) keep.observe(watch.kl("FAR"));
    }
    return watch.kl("FAR");
  };
  const double budget = 0.02;
  CHECK(train(0.0) > 5 * budget);
  CHECK(train(retain::dual_ascent{.initial = 0.01, .target = budget, .rate = 0.05, .maximum = 1}) ==
        Approx(budget).epsilon(0.02));
  const double banded = train(retain::adaptive_kl{.initial = 0.01, .target = budget, .maximum = 1});
  CHECK(banded > budget / 3);
  CHECK(banded < budget * 3);
}

TEST_CASE("monitor: bad input says what is wrong", "[monitor]") {
  retain::monitor watch{identity};
  watch.add("a", torch::zeros({2, 3}));
  CHECK_THROWS_WITH(watch.add("a", torch::zeros({2, 3})), ContainsSubstring("already"));
  for (const char* name : {"", "x,y", "x\"y", "x\ny", "x\ry"}) {
    CHECK_THROWS_AS(watch.add(name, torch::zeros({2, 3})), retain::config_error);
    CHECK_THROWS_WITH(watch.add(name, torch::zeros({2, 3})),
                      ContainsSubstring("cannot name a probe"));
  }
  CHECK_THROWS_WITH(watch.add("none", torch::zeros({0, 3})),
                    ContainsSubstring("'none' has no states"));
  CHECK_THROWS_WITH(watch.kl("b"), ContainsSubstring("no probe 'b'") && ContainsSubstring("'a'"));
  CHECK_THROWS_WITH(watch.kl("a"), ContainsSubstring("not been measured"));
  CHECK_THROWS_AS(watch.report_success("a", std::nan("")), retain::config_error);
  CHECK_THROWS_AS((retain::monitor{identity, {.batch_size = 0}}), retain::config_error);
  CHECK(watch.measure(identity, 5).size() == 1);
  CHECK_THROWS_WITH(watch.measure(identity, 4), ContainsSubstring("measured at 4 after 5"));
  // what was measured is there
  CHECK_THROWS_WITH(watch.measure(identity, 5),
                    ContainsSubstring("measured at 5 after 5") && ContainsSubstring("last(probe)"));
  CHECK(watch.last("a").progress == 5);
}

TEST_CASE("monitor: a state of no measurements is refused and changes nothing", "[monitor]") {
  const auto policy = [](const at::Tensor& o) { return categorical{o}; };
  retain::monitor watch{policy};
  watch.add("a", torch::randn({4, 3}));
  watch.report_success("a", 0.5);
  watch.measure(policy, 1);
  watch.measure(policy, 2);
  std::ostringstream before;
  watch.write_csv(before);
  const double nan = std::nan(""), infinity = INFINITY;
  const auto refused = [&](const char* key, const at::Tensor& instead) {
    retain::state saved;
    watch.save_state(saved, "");
    saved.set("a.history", torch::tensor({{1.0, 0.0, 1.0, nan, nan}}, at::kDouble));
    saved.set(key, instead);
    CHECK_THROWS_AS(watch.load_state(saved, ""), retain::state_error);
    std::ostringstream after;
    watch.write_csv(after);
    CHECK(after.str() == before.str());
  };
  const auto rows = [](std::vector<double> numbers) {
    return torch::tensor(numbers, at::kDouble).view({-1, 5});
  };
  refused("a.history", rows({nan, 0, 1, nan, nan}));
  refused("a.history", rows({infinity, 0, 1, nan, nan}));
  refused("a.history", rows({2, 0, 1, nan, nan, 2, 0, 1, nan, nan}));
  refused("a.history", rows({1, 0, 1.5, nan, nan}));
  refused("a.history", rows({1, 0, 1, infinity, nan}));
  refused("a.success", torch::tensor({infinity, 0.0, 0.0}, at::kDouble));
  refused("a.success", torch::tensor({0.1, 0.2, nan}, at::kDouble));
  refused("a.success", torch::tensor({nan, 0.2, nan}, at::kDouble));
  retain::state saved;
  watch.save_state(saved, "");
  saved.set("a.history", rows({1, infinity, nan, nan, nan}));  // a divergence may be infinite
  watch.load_state(saved, "");
  CHECK(watch.history().size() == 1);
}

}  // namespace monitor_test
