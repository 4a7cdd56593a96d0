// SPDX-License-Identifier: MIT
#include <retain/episodic_memory.hpp>

#include <limits>

#include "support.hpp"

namespace episodic_memory_test {

using retain::episodic_memory;
using retain::transitions;

static_assert(retain::stateful<episodic_memory> && retain::detail::gatherable<episodic_memory>);

namespace {

/// Rows that say who they are: protected ones are negative.
transitions rows(std::int64_t from, std::int64_t to) {
  const auto item = torch::arange(from, to, at::kLong);
  return transitions{{"item", item},
                     {"observation", torch::stack({item, item * 2}, 1).to(at::kFloat)}};
}

std::vector<std::int64_t> items(const episodic_memory& memory) {
  const auto kept = memory.gather(torch::arange(memory.size()))["item"];
  const auto* item = static_cast<const std::int64_t*>(kept.data_ptr());
  return {item, item + kept.numel()};
}

}  // namespace

TEST_CASE("episodic_memory: protected rows stay, the rest is a ring, whatever the batches",
          "[episodic_memory]") {
  constexpr std::int64_t kept = 3, ring = 5;
  for (const std::int64_t step : {1, 2, 3, 5, 7, 13}) {
    episodic_memory memory{rows(-3, 0), {.capacity = kept + ring}};
    std::vector<std::int64_t> slots;  // the ring, written out one row at a time
    for (std::int64_t from = 0; from < 40; from += step) {
      memory.push(rows(from, from + step));
      for (std::int64_t item = from; item < from + step; ++item) {
        if (item < ring)
          slots.push_back(item);
        else
          slots[static_cast<std::size_t>(item % ring)] = item;
      }
      std::vector<std::int64_t> expected{-3, -2, -1};
      expected.insert(expected.end(), slots.begin(), slots.end());
      REQUIRE(items(memory) == expected);
      REQUIRE(memory.size() == static_cast<std::int64_t>(expected.size()));
    }
    const auto all = memory.gather(torch::arange(memory.size()));
    CHECK(all["observation"].select(1, 1).equal(all["item"].to(at::kFloat) * 2));
  }
}

TEST_CASE("episodic_memory: rows arrive whatever lies behind them", "[episodic_memory]") {
  const auto numbers = torch::arange(1.0f, 25.0f).view({4, 6});
  const auto complex = torch::complex(numbers, numbers + 1);
  const auto wide = torch::randn({2, 40'000});
  const auto columns = GENERATE_COPY(values<std::pair<const char*, at::Tensor>>(
      {{"contiguous", numbers},
       {"every second", numbers.slice(1, 0, 6, 2)},
       {"turned", numbers.t()},
       {"the middle", numbers.narrow(0, 1, 2)},
       {"in a graph", numbers.clone().requires_grad_()},
       {"negative", torch::_neg_view(numbers)},
       {"conjugate", complex.conj()},
       {"many bytes", wide},
       {"double", numbers.to(at::kDouble)},
       {"bool", numbers.gt(5)},
       {"no numbers", torch::empty({3, 0})},
       {"one a row", numbers.select(1, 0).contiguous()},
       {"repeated", torch::ones({1, 2}).expand({5, 2})}}));
  CAPTURE(columns.first);
  const auto& given = columns.second;
  episodic_memory memory{{}, {.capacity = 7}};
  const auto push = [&] {
    const auto again = given.detach().clone();
    for (int i = 0; i < 5; ++i) memory.push({{"x", given}});
    const auto kept = memory.gather(torch::arange(memory.size()))["x"];
    CHECK_FALSE(kept.requires_grad());
    REQUIRE(kept.size(0) == 7);
    for (std::int64_t i = 0; i < 7; ++i) {  // row p of all that were pushed lies in slot p % 7
      const auto total = 5 * given.size(0), newest = total - 1 - ((total - 1 - i) % 7);
      CHECK(kept[i].equal(again[newest % given.size(0)]));
    }
  };
  push();
  memory = episodic_memory{{}, {.capacity = 7}};
  const c10::InferenceMode inference;
  push();
}

TEST_CASE("episodic_memory: drawn uniformly, a batch holds M / size protected rows on average, by "
          "a binomial test",
          "[episodic_memory]") {
  episodic_memory memory{rows(-10, 0), {.capacity = 50, .seed = 3}};
  const auto check = [&](double share) {
    CHECK(memory.protected_share() == Approx(share));
    constexpr std::int64_t n = 20000;
    const auto drawn = memory.sample(n);
    const double kept = drawn["item"].lt(0).sum().item<double>(),
                 error = std::sqrt(static_cast<double>(n) * share * (1 - share));
    CHECK(std::abs(kept - n * share) <= 4 * error);
    // And each row as often as any other.
    const auto counts = torch::bincount(drawn["item"] + 10).to(at::kDouble);
    const auto seen = counts.index({counts.gt(0)});
    CHECK(seen.numel() == memory.size());
    const double mean = static_cast<double>(n) / static_cast<double>(memory.size());
    // 99.9 % at 49 degrees of freedom is 85.4, and there are fewer
    CHECK((seen - mean).square().sum().item<double>() / mean < 90);
  };
  check(1.0);
  memory.push(rows(0, 10));
  check(0.5);
  memory.push(rows(10, 200));
  check(0.2);
}

TEST_CASE("episodic_memory: a fixed share is exact in every batch, to the carried remainder",
          "[episodic_memory]") {
  episodic_memory memory{rows(-10, 0), {.capacity = 1000, .share = 0.25, .seed = 3}};
  CHECK(memory.protected_share() == 1.0);
  CHECK(memory.sample(6)["item"].lt(0).all().item<bool>());
  memory.push(rows(0, 700));
  CHECK(memory.protected_share() == 0.25);
  for (int i = 0; i < 5; ++i)
    CHECK(memory.sample(32)["item"].lt(0).sum().item<std::int64_t>() == 8);
  std::int64_t total = 0;
  for (int batch = 1; batch <= 40; ++batch) {
    const auto here = memory.sample(6)["item"].lt(0).sum().item<std::int64_t>();
    CHECK((here == 1 || here == 2));
    total += here;
  }
  CHECK(total == 60);
  for (const double share : {0.0, 1.0}) {
    episodic_memory extreme{rows(-10, 0), {.capacity = 20, .share = share}};
    extreme.push(rows(0, 3));
    CHECK(extreme.sample(50)["item"].lt(0).sum().item<double>() == 50 * share);
  }
}

TEST_CASE("episodic_memory: without protected rows it is a replay buffer", "[episodic_memory]") {
  episodic_memory memory{{}, {.capacity = 4}};
  CHECK(memory.protected_share() == 0);
  CHECK_THROWS_WITH(memory.sample(1), ContainsSubstring("nothing to draw from"));
  memory.push(rows(0, 6));
  CHECK(items(memory) == std::vector<std::int64_t>{4, 5, 2, 3});
  memory.push(rows(6, 6));
  CHECK(memory.size() == 4);
}

TEST_CASE("episodic_memory: save, load and go on, bit for bit", "[episodic_memory]") {
  const support::temporary_folder folder;
  for (const bool fixed : {false, true}) {
    const auto make = [&](std::uint64_t seed) {
      retain::episodic_memory_options options{.capacity = 12, .seed = seed};
      if (fixed) options.share = 0.3;
      return episodic_memory{rows(-4, 0), options};
    };
    auto a = make(1);
    a.push(rows(0, 11));
    a.sample(5);
    retain::save(folder.file("em"), a);
    retain::state held;
    a.save_state(held, "");
    auto b = make(2);
    b.push(rows(50, 53));
    retain::load(folder.file("em"), b);
    for (int i = 0; i < 6; ++i) {
      a.push(rows(100 * i, 100 * i + 3));
      b.push(rows(100 * i, 100 * i + 3));
      CHECK(a.sample(5)["observation"].equal(b.sample(5)["observation"]));
    }
    CHECK(items(a) == items(b));
    // What was saved before is as it was, although the rows went on.
    auto c = make(3);
    c.load_state(held, "");
    CHECK(items(c) == std::vector<std::int64_t>{-4, -3, -2, -1, 8, 9, 10, 3, 4, 5, 6, 7});
  }
}

TEST_CASE("episodic_memory: a copy and its original part when one is written to",
          "[episodic_memory]") {
  episodic_memory a{rows(-2, 0), {.capacity = 4, .seed = 1}};
  a.push(rows(0, 2));
  auto b = a;
  CHECK(a.sample(6)["item"].equal(b.sample(6)["item"]));
  a.push(rows(2, 3));
  CHECK(items(a) == std::vector<std::int64_t>{-2, -1, 2, 1});
  CHECK(items(b) == std::vector<std::int64_t>{-2, -1, 0, 1});
  const auto given = rows(7, 9);
  b.push(given);
  given["item"].fill_(99);
  CHECK(items(b) == std::vector<std::int64_t>{-2, -1, 7, 8});
}

TEST_CASE("episodic_memory: what does not fit is named and changes nothing", "[episodic_memory]") {
  CHECK_THROWS_WITH((episodic_memory{rows(-5, 0), {.capacity = 5}}),
                    ContainsSubstring("5 protected rows") && ContainsSubstring("capacity of 5"));
  CHECK_THROWS_AS((episodic_memory{rows(-5, 0), {.capacity = 9, .share = 1.5}}),
                  retain::config_error);
  CHECK_THROWS_AS((episodic_memory{{}, {.capacity = 9, .share = 0.5}}), retain::config_error);
  episodic_memory memory{rows(-2, 0), {.capacity = 6, .seed = 1}};
  memory.push(rows(0, 3));
  const auto before = items(memory);
  CHECK_THROWS_WITH(
      memory.push({{"item", torch::arange(2)}}),
      ContainsSubstring("episodic_memory") && ContainsSubstring("no 'observation' [2]"));
  CHECK_THROWS_AS(memory.push({{"item", torch::arange(2)}, {"observation", torch::zeros({2, 5})}}),
                  retain::shape_error);
  CHECK_THROWS_AS(
      memory.push({{"item", torch::arange(2)}, {"observation", torch::zeros({2, 2}, at::kHalf)}}),
      retain::state_error);
  CHECK_THROWS_AS(memory.sample(0), retain::config_error);
  retain::state smaller, damaged;
  episodic_memory{rows(-1, 0), {.capacity = 6}}.save_state(smaller, "");
  CHECK_THROWS_WITH(memory.load_state(smaller, ""),
                    ContainsSubstring("1 protected rows of 6") && ContainsSubstring("2 of 6"));
  memory.save_state(damaged, "");
  damaged.set("rows.item", torch::arange(3));
  CHECK_THROWS_AS(memory.load_state(damaged, ""), retain::shape_error);
  CHECK(items(memory) == before);
  CHECK(memory.size() == 5);
}

TEST_CASE("episodic_memory: the remainders of a share go on bit for bit from wherever it is saved",
          "[episodic_memory]") {
  const retain::transitions kept{{"x", torch::arange(10)}};
  for (const double share : {0.1, 0.3, 0.7})
    for (int saved_at = 1; saved_at < 12; ++saved_at) {
      CAPTURE(share, saved_at);
      const retain::episodic_memory_options options{.capacity = 40, .share = share, .seed = 5};
      retain::episodic_memory one(kept, options), other(kept, options);
      one.push({{"x", torch::arange(100, 120)}});
      for (int i = 0; i < saved_at; ++i) one.sample_indices(1 + i % 3);
      retain::state state;
      one.save_state(state, "m.");
      other.load_state(state, "m.");
      for (int i = 0; i < 30; ++i)
        REQUIRE(one.sample_indices(1 + i % 3).equal(other.sample_indices(1 + i % 3)));
    }
}

TEST_CASE("episodic_memory: a state with one remainder, as the first files have, still loads",
          "[episodic_memory]") {
  const retain::transitions kept{{"x", torch::arange(10)}};
  // its remainders have no rounding
  const retain::episodic_memory_options options{.capacity = 40, .share = 0.25, .seed = 5};
  retain::episodic_memory one(kept, options), other(kept, options);
  one.push({{"x", torch::arange(100, 120)}});
  for (int i = 0; i < 5; ++i) one.sample_indices(3);
  retain::state state, old;
  one.save_state(state, "");
  for (const char* key : {"capacity", "protected", "pushed", "random"})
    old.set(key, state.text(key));
  old.set("credit", state.number("credit"));
  for (const auto& key : state.tensor_keys("rows.")) old.set(key, state.tensor(key));
  REQUIRE(state.number("credit") != 0);
  other.load_state(old, "");
  for (int i = 0; i < 30; ++i) REQUIRE(one.sample_indices(3).equal(other.sample_indices(3)));
}

TEST_CASE("episodic_memory: a row that is not there yet is no row", "[episodic_memory]") {
  retain::episodic_memory memory({}, {.capacity = 10});
  CHECK_THROWS_AS(memory.gather(torch::tensor({0})), retain::config_error);
  memory.push({{"x", torch::arange(3)}});
  CHECK(memory.gather(torch::tensor({2}))["x"].item<std::int64_t>() == 2);
  CHECK_THROWS(memory.gather(torch::tensor({3})));
}

TEST_CASE("episodic_memory: numbers that no memory comes to are refused with their key's name",
          "[episodic_memory]") {
  episodic_memory memory{rows(-2, 0), {.capacity = 6, .share = 0.5}};
  memory.push(rows(0, 9));
  retain::state good;
  memory.save_state(good, "m.");
  const auto before = items(memory);
  const auto refused = [&](const char* key, auto value) {
    auto state = good;
    state.set(std::string("m.") + key, value);
    CHECK_THROWS_AS(memory.load_state(state, "m."), retain::state_error);
    CHECK_THROWS_WITH(memory.load_state(state, "m."), ContainsSubstring(std::string("'m.") + key));
  };
  for (const char* key : {"credit", "other_credit"})
    for (const double credit : {1e17, -1e17, 4.0, std::nan(""), -static_cast<double>(INFINITY)})
      refused(key, credit);
  for (const auto pushed :
       {std::int64_t{-1}, std::int64_t{1} << 62, std::numeric_limits<std::int64_t>::max()})
    refused("pushed", pushed);
  good.set("m.rows.more", torch::arange(6));  // a column that it does not keep
  CHECK_THROWS_AS(memory.load_state(good, "m."), retain::state_error);
  CHECK_THROWS_WITH(memory.load_state(good, "m."),
                    ContainsSubstring("'m.rows.'") && ContainsSubstring("'more'"));
  CHECK(items(memory) == before);
  memory.sample(5);
}

}  // namespace episodic_memory_test
