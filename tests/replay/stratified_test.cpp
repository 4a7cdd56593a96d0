// SPDX-License-Identifier: MIT
#include <retain/replay/stratified.hpp>

#include <numeric>

#include "support.hpp"

namespace replay_stratified_test {

using retain::stratified;

namespace {

at::Tensor keys_of(const std::vector<std::int64_t>& keys) { return torch::tensor(keys, at::kLong); }

}  // namespace

TEST_CASE("stratified: rare strata are drawn as often as common ones, exactly", "[replay]") {
  const auto keys = torch::cat({torch::full({900}, 7, at::kLong), torch::full({90}, -2, at::kLong),
                                torch::full({10}, 30, at::kLong)});
  stratified sampler(keys, {.seed = 1});
  CHECK(sampler.size() == 1000);
  CHECK(sampler.size(-2) == 90);
  CHECK(sampler.size(5) == 0);
  std::int64_t total = 0;
  std::map<std::int64_t, std::int64_t> counts;
  for (int batch = 1; batch <= 50; ++batch) {
    const auto drawn = keys.index_select(0, sampler.sample(32).indices);
    total += 32;
    for (const std::int64_t key : {-2, 7, 30}) {
      const auto here = drawn.eq(key).sum().item<std::int64_t>();
      CHECK(std::abs(static_cast<double>(here) - 32.0 / 3) < 2);
      counts[key] += here;
      CHECK(std::abs(static_cast<double>(counts[key]) - static_cast<double>(total) / 3) <= 1);
    }
  }
  CHECK(counts[-2] + counts[7] + counts[30] == total);
}

TEST_CASE("stratified: given shares, with the remainders carried from batch to batch", "[replay]") {
  const auto keys = keys_of({1, 2, 3, 3, 2, 1, 4, 4});
  stratified sampler(keys, {.shares = {{1, 5.0}, {2, 2.5}, {3, 0.0}, {4, 0.1}}});
  std::map<std::int64_t, double> counts;
  constexpr int batches = 760;
  for (int batch = 0; batch < batches; ++batch) {
    const auto drawn = keys.index_select(0, sampler.sample(3).indices);
    for (const std::int64_t key : {1, 2, 3, 4}) counts[key] += drawn.eq(key).sum().item<double>();
  }
  CHECK(counts[3] == 0);
  CHECK(counts[1] == Approx(batches * 3 * 5.0 / 7.6).margin(1));
  CHECK(counts[2] == Approx(batches * 3 * 2.5 / 7.6).margin(1));
  CHECK(counts[4] == Approx(batches * 3 * 0.1 / 7.6).margin(1));
}

TEST_CASE("stratified: any shares and batch sizes come out to an item or two", "[replay]") {
  retain::detail::splitmix64 random(11);
  for (int trial = 0; trial < 40; ++trial) {
    const std::size_t strata = 1 + random.below(60);
    std::vector<double> shares(strata), credit(strata), had(strata);
    double sum = 0;
    for (auto& share : shares) sum += share = std::pow(random.real(), 4);
    for (auto& share : shares) share /= sum;
    double total = 0;
    for (int batch = 0; batch < 300; ++batch) {
      const auto n = static_cast<std::int64_t>(1 + random.below(20));
      const auto counts = retain::detail::apportion(n, shares, credit);
      total += static_cast<double>(n);
      std::int64_t given = 0;
      for (std::size_t k = 0; k < strata; ++k) {
        REQUIRE(counts[k] >= 0);
        given += counts[k];
        had[k] += static_cast<double>(counts[k]);
        REQUIRE(std::abs(had[k] - total * shares[k]) < 2);
      }
      REQUIRE(given == n);
    }
  }
}

TEST_CASE("stratified: within a stratum every item is equally likely, by chi-square", "[replay]") {
  std::vector<std::int64_t> keys;
  for (int i = 0; i < 30; ++i) keys.push_back(i % 3 == 0 ? 1 : 0);  // ten and twenty items
  stratified sampler(keys_of(keys), {.seed = 5});
  constexpr std::int64_t n = 20000;
  const auto counts = torch::bincount(sampler.sample(n).indices, {}, 30).to(at::kDouble);
  double chi = 0;
  for (int i = 0; i < 30; ++i) {
    const double expected = n / 2.0 / (i % 3 == 0 ? 10 : 20);
    chi += std::pow(counts[i].item<double>() - expected, 2) / expected;
  }
  CHECK(chi < 56.9);  // 99.9 % at 28 degrees of freedom: the counts of the strata are fixed
}

TEST_CASE("stratified: a stratum without items gives its share to the others, until it has some",
          "[replay]") {
  stratified sampler(keys_of({0, 0, 1}), {.shares = {{0, 1.0}, {1, 1.0}, {2, 2.0}}, .seed = 2});
  auto keys = keys_of({0, 0, 1});
  const auto count = [&](std::int64_t key, std::int64_t n) {
    return keys.index_select(0, sampler.sample(n).indices).eq(key).sum().item<std::int64_t>();
  };
  CHECK(count(0, 40) == 20);
  sampler.push(keys_of({2, 2}));
  keys = keys_of({0, 0, 1, 2, 2});
  CHECK(count(2, 40) == 20);
  // Both items of stratum 2 move to stratum 1: as though it had never had any.
  sampler.update(keys_of({4, 3}), keys_of({1, 1}));
  keys = keys_of({0, 0, 1, 1, 1});
  CHECK(sampler.size(2) == 0);
  CHECK(sampler.size(1) == 3);
  CHECK(count(1, 40) == 20);
  const auto seen = std::get<0>(torch::_unique(sampler.sample(400).indices));
  CHECK(seen.equal(torch::arange(5)));
}

TEST_CASE("stratified: items that change their key are where they should be", "[replay]") {
  retain::detail::splitmix64 random(3);
  auto keys = torch::zeros({50}, at::kLong);
  stratified sampler(keys, {.seed = 8});
  for (int change = 0; change < 300; ++change) {
    const auto item = static_cast<std::int64_t>(random.below(50)),
               key = static_cast<std::int64_t>(random.below(4));
    sampler.update(keys_of({item}), keys_of({key}));
    keys[item] = key;
  }
  for (std::int64_t key = 0; key < 4; ++key)
    CHECK(sampler.size(key) == keys.eq(key).sum().item<std::int64_t>());
  const auto drawn = keys.index_select(0, sampler.sample(4000).indices);
  for (std::int64_t key = 0; key < 4; ++key)
    CHECK(drawn.eq(key).sum().item<std::int64_t>() == 1000);
}

TEST_CASE("stratified: save, load and go on, with what is owed", "[replay]") {
  const support::temporary_folder folder;
  const auto keys = keys_of({0, 1, 2, 2, 1, 0, 0});
  stratified a(keys, {.seed = 1});
  a.sample(4);
  a.update(keys_of({5}), keys_of({2}));
  retain::save(folder.file("s"), a);
  stratified b(keys_of({9}), {.seed = 77});
  retain::load(folder.file("s"), b);
  CHECK(b.size() == 7);
  CHECK(b.size(2) == 3);
  for (int i = 0; i < 5; ++i) CHECK(b.sample(4).indices.equal(a.sample(4).indices));
  a.push(keys_of({1}));
  b.push(keys_of({1}));
  CHECK(b.sample(50).indices.equal(a.sample(50).indices));
}

TEST_CASE("stratified: what cannot be drawn is refused", "[replay]") {
  CHECK_THROWS_WITH(stratified(keys_of({})).sample(1), ContainsSubstring("nothing to draw from"));
  CHECK_THROWS_WITH((stratified{keys_of({1, 2}), {.shares = {{1, 1.0}}}}),
                    ContainsSubstring("key 2"));
  CHECK_THROWS_WITH((stratified{keys_of({1}), {.shares = {{1, -1.0}}}}),
                    ContainsSubstring("stratum 1"));
  CHECK_THROWS_AS((stratified{keys_of({1}), {.shares = {{1, 0.0}}}}), retain::config_error);
  CHECK_THROWS_AS((stratified{keys_of({1}), {.shares = {{1, 0.0}, {2, 1.0}}}}.sample(1)),
                  retain::config_error);
  CHECK_THROWS_AS(stratified(torch::ones({3})), retain::shape_error);
  stratified sampler(keys_of({0, 1}));
  CHECK_THROWS_AS(sampler.update(keys_of({2}), keys_of({0})), retain::config_error);
  CHECK_THROWS_AS(sampler.update(keys_of({1, 0}), keys_of({0})), retain::shape_error);
  retain::state damaged;
  sampler.save_state(damaged, "");
  damaged.set("items", keys_of({0, 0}));
  CHECK_THROWS_AS(sampler.load_state(damaged, ""), retain::state_error);
  CHECK(sampler.size(1) == 1);
}

TEST_CASE("stratified: a state with a key that has no share here is refused, and changes nothing",
          "[replay]") {
  retain::stratified three(torch::tensor({0, 1, 2, 0}), {.seed = 1});
  retain::state state;
  three.save_state(state, "s.");
  retain::stratified two(torch::tensor({0, 1}), {.shares = {{0, 1.0}, {1, 1.0}}, .seed = 1});
  CHECK_THROWS_AS(two.load_state(state, "s."), retain::state_error);
  CHECK(two.size() == 2);
  CHECK_NOTHROW(two.sample(4));
}

TEST_CASE("stratified: remainders stay below the number of shares, whichever take part, and any "
          "are shared out at once",
          "[replay]") {
  retain::detail::splitmix64 random(5);
  for (int trial = 0; trial < 20; ++trial) {
    const std::size_t strata = 2 + random.below(40);
    std::vector<double> credit(strata), shares(strata);
    double largest = 0;
    for (int batch = 0; batch < 500; ++batch) {
      // Those that are owed most or have had most take part, which drives the remainders apart.
      const double limit = 2 * random.real() - 1, sign = batch % 2 ? 1 : -1;
      double sum = 0;
      for (std::size_t k = 0; k < strata; ++k)
        sum += shares[k] = sign * credit[k] >= limit ? 0.01 + random.real() : 0.0;
      if (!(sum > 0)) continue;
      for (auto& share : shares) share /= sum;
      retain::detail::apportion(static_cast<std::int64_t>(1 + random.below(4)), shares, credit);
      for (const double c : credit) {
        largest = std::max(largest, std::abs(c));
        REQUIRE_NOTHROW(retain::detail::check_credit("test", c, strata));
      }
    }
    CHECK(largest < static_cast<double>(strata));
  }
  CHECK_THROWS_AS(retain::detail::check_credit("test", 1e17, 3), retain::config_error);
  CHECK_THROWS_AS(retain::detail::check_credit("test", -4.5, 3), retain::config_error);
  CHECK_THROWS_AS(retain::detail::check_credit("test", std::nan(""), 3), retain::config_error);
  // A hundred thousand strata that are owed as many items each would take 10^10 rounds one by one.
  constexpr std::size_t many = 100'000;
  const std::vector<double> equal(many, 1.0 / many);
  std::vector<double> owed(many, static_cast<double>(many));
  const auto counts = retain::detail::apportion(3, equal, owed);
  CHECK(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) == 3);
}

TEST_CASE("stratified: whole rounds are taken back as one item at a time would be", "[replay]") {
  retain::detail::splitmix64 random(6);
  for (int trial = 0; trial < 300; ++trial) {
    const std::size_t strata = 1 + random.below(9);
    std::vector<double> shares(strata), credit(strata);
    double sum = 0;
    for (auto& share : shares) sum += share = 0.01 + std::pow(random.real(), 3);
    for (auto& share : shares) share /= sum;
    // all too much, so that rounds go back
    for (auto& c : credit) c = 0.25 * static_cast<double>(random.below(40));
    const auto n = static_cast<std::int64_t>(1 + random.below(6));
    auto left = n;
    auto expected = std::vector<std::int64_t>(strata);
    auto rest = credit;
    std::vector<std::size_t> order(strata);
    for (std::size_t k = 0; k < strata; ++k) {
      order[k] = k;
      rest[k] += static_cast<double>(n) * shares[k];
      expected[k] = static_cast<std::int64_t>(std::floor(rest[k]));
      rest[k] -= static_cast<double>(expected[k]);
      left -= expected[k];
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return rest[a] > rest[b]; });
    for (std::size_t i = 0; left > 0; ++i, --left) ++expected[order[i % strata]];
    for (std::size_t i = strata; left < 0; i = i > 0 ? i : strata)
      if (auto& count = expected[order[--i]]; count > 0) {
        --count;
        ++left;
      }
    REQUIRE(retain::detail::apportion(n, shares, credit) == expected);
  }
}

TEST_CASE("stratified: a state that hung or did not fit together is refused with its key's name",
          "[replay]") {
  stratified sampler(keys_of({1, 1, 2, 3}), {.seed = 1});
  retain::state good;
  sampler.save_state(good, "s.");
  const auto refused = [&](const char* key, const at::Tensor& value) {
    auto state = good;
    state.set(std::string("s.") + key, value);
    CHECK_THROWS_AS(sampler.load_state(state, "s."), retain::state_error);
    CHECK_THROWS_WITH(sampler.load_state(state, "s."),
                      ContainsSubstring(std::string("'s.") + key + "'"));
  };
  refused("credits", torch::tensor({1e17, 0.0, 0.0}, at::kDouble));
  refused("credits", torch::tensor({0.0, std::nan(""), 0.0}, at::kDouble));
  refused("credits", torch::tensor({0.0, 0.0}, at::kDouble));
  refused("keys", keys_of({1, 1, 3}));
  refused("counts", keys_of({-1, 4, 1}));
  refused("counts", keys_of({std::int64_t{1} << 62, 1, 1}));
  refused("items", keys_of({0, 1, 2, std::int64_t{1} << 62}));
  CHECK_THROWS_AS((stratified{keys_of({1}), {.shares = {{1, 1e308}, {2, 1e308}}}}),
                  retain::config_error);
}

}  // namespace replay_stratified_test
