// SPDX-License-Identifier: MIT
#include <retain/replay/reservoir.hpp>

#include <limits>
#include <map>
#include <set>

#include "support.hpp"

namespace replay_reservoir_test {

using retain::reservoir;
using retain::reservoir_memory;
using retain::transitions;

namespace {

transitions rows(std::int64_t from, std::int64_t to) {
  const auto item = torch::arange(from, to, at::kLong);
  return transitions{{"item", item}, {"pair", torch::stack({item, -item}, 1).to(at::kFloat)}};
}

}  // namespace

TEST_CASE("reservoir: every subset of what was seen is equally likely, by chi-square", "[replay]") {
  constexpr int runs = 30000;
  std::map<std::set<std::int64_t>, int> counts;
  for (int run = 0; run < runs; ++run) {
    reservoir keep(2, static_cast<std::uint64_t>(run));
    std::vector<std::int64_t> slots(2);
    const auto offered = keep.offer(6);
    const auto* slot = static_cast<const std::int64_t*>(offered.data_ptr());
    for (std::int64_t item = 0; item < 6; ++item)
      if (slot[item] >= 0) slots[static_cast<std::size_t>(slot[item])] = item;
    ++counts[{slots.begin(), slots.end()}];
  }
  REQUIRE(counts.size() == 15);  // two of six
  double chi = 0;
  for (const auto& [subset, count] : counts)
    chi += std::pow(count - runs / 15.0, 2) / (runs / 15.0);
  CHECK(chi < 36.1);  // 99.9 % at 14 degrees of freedom
}

TEST_CASE("reservoir: an item of a long stream is kept whenever it came, by chi-square",
          "[replay]") {
  constexpr int runs = 400, capacity = 50, seen = 1000;
  auto kept = torch::zeros({10}, at::kDouble);  // by tenth of the stream
  for (int run = 0; run < runs; ++run) {
    reservoir keep(capacity, static_cast<std::uint64_t>(run));
    std::vector<std::int64_t> slots(capacity);
    const auto offered = keep.offer(seen);
    const auto* slot = static_cast<const std::int64_t*>(offered.data_ptr());
    for (std::int64_t item = 0; item < seen; ++item)
      if (slot[item] >= 0) slots[static_cast<std::size_t>(slot[item])] = item;
    for (const auto item : slots) kept[item / 100] += 1;
  }
  const double expected = runs * capacity / 10.0;
  // 99.9 % at 9 degrees of freedom
  CHECK((kept - expected).square().sum().item<double>() / expected < 27.9);
}

TEST_CASE("reservoir: batches keep what single items would, and name no slot twice", "[replay]") {
  reservoir one(7, 3), many(7, 3);
  std::vector<std::int64_t> by_one(7, -1), by_batch(7, -1);
  std::int64_t item = 0;
  for (const std::int64_t n : {3, 0, 10, 1, 40, 200}) {
    const auto slots = many.offer(n);
    const auto* slot = static_cast<const std::int64_t*>(slots.data_ptr());
    std::set<std::int64_t> unique;
    for (std::int64_t i = 0; i < n; ++i, ++item) {
      if (const auto s = *static_cast<std::int64_t*>(one.offer(1).data_ptr()); s >= 0)
        by_one[static_cast<std::size_t>(s)] = item;
      if (slot[i] < 0) continue;
      CHECK(unique.insert(slot[i]).second);
      by_batch[static_cast<std::size_t>(slot[i])] = item;
    }
    CHECK(by_batch == by_one);
  }
  CHECK_THROWS_WITH(one.offer(-1), ContainsSubstring("cannot offer -1 items"));
  CHECK_THROWS_AS(one.offer(-1), retain::config_error);
  CHECK(one.seen() == 254);
  CHECK(one.size() == 7);
}

TEST_CASE("reservoir_memory: rows stay together, and the first are all kept while there is room",
          "[replay]") {
  reservoir_memory memory{{.capacity = 8, .seed = 2}};
  memory.push(rows(0, 5));
  CHECK(memory.size() == 5);
  CHECK(memory.gather(torch::arange(5))["item"].equal(torch::arange(5)));
  for (std::int64_t from = 5; from < 95; from += 9) memory.push(rows(from, from + 9));
  CHECK(memory.seen() == 95);
  CHECK(memory.size() == 8);
  const auto all = memory.gather(torch::arange(8));
  const auto items = all["item"].to(at::kFloat);
  CHECK(all["pair"].equal(torch::stack({items, -items}, 1)));
  CHECK(std::get<0>(torch::_unique(all["item"])).numel() == 8);
  CHECK(memory.sample(3)["pair"].sizes() == at::IntArrayRef({3, 2}));
}

TEST_CASE("reservoir_memory: save, load and go on, bit for bit; copies and saved states keep what "
          "they had",
          "[replay]") {
  const support::temporary_folder folder;
  reservoir_memory a{{.capacity = 6, .seed = 1}};
  a.push(rows(0, 20));
  retain::state held;
  a.save_state(held, "");
  retain::save(folder.file("r"), a);
  reservoir_memory b{{.capacity = 6, .seed = 5}};
  retain::load(folder.file("r"), b);
  const auto before = a.gather(torch::arange(6))["item"];
  auto copy = a;
  for (int i = 0; i < 5; ++i) {
    a.push(rows(20 + 30 * i, 50 + 30 * i));
    b.push(rows(20 + 30 * i, 50 + 30 * i));
    CHECK(a.sample(4)["pair"].equal(b.sample(4)["pair"]));
  }
  CHECK(!a.gather(torch::arange(6))["item"].equal(before));
  CHECK(copy.gather(torch::arange(6))["item"].equal(before));
  a.load_state(held, "");
  CHECK(a.gather(torch::arange(6))["item"].equal(before));
  CHECK(a.seen() == 20);

  reservoir_memory other{{.capacity = 7}};
  other.push(rows(0, 3));
  CHECK_THROWS_WITH(retain::load(folder.file("r"), other),
                    ContainsSubstring("capacity of 6") && ContainsSubstring("capacity here is 7"));
  CHECK(other.size() == 3);
}

TEST_CASE("reservoir_memory: rows that do not belong to it are named and change nothing",
          "[replay]") {
  reservoir_memory memory{{.capacity = 4}};
  CHECK_THROWS_AS(memory.sample(1), retain::config_error);
  CHECK_THROWS_AS(memory.push(transitions{}), retain::config_error);
  memory.push(rows(0, 2));
  const auto item = torch::arange(2), pair = torch::zeros({2, 2});
  CHECK_THROWS_WITH(memory.push({{"item", item}}), ContainsSubstring("no 'pair' [2]"));
  CHECK_THROWS_WITH(memory.push({{"item", item}, {"pair", pair}, {"reward", item}}),
                    ContainsSubstring("'reward'"));
  CHECK_THROWS_WITH(memory.push({{"item", item}, {"pair", torch::zeros({2, 3})}}),
                    ContainsSubstring("'pair' has rows of shape [3]"));
  CHECK_THROWS_AS(memory.push({{"item", item}, {"pair", pair.to(at::kDouble)}}),
                  retain::state_error);
  CHECK(memory.seen() == 2);
  memory.push({{"pair", pair}, {"item", item}});  // in any order
  CHECK(memory.seen() == 4);
  CHECK_THROWS_AS((reservoir_memory{{.capacity = 0}}), retain::config_error);
}

TEST_CASE("reservoir: a stream that cannot be is refused by who loads and by who offers",
          "[replay]") {
  reservoir keep(3, 1);
  keep.offer(2);
  retain::state state;
  keep.save_state(state, "r.");
  for (const std::int64_t seen :
       {std::int64_t{-1}, (std::int64_t{1} << 53) + 1, std::numeric_limits<std::int64_t>::max()}) {
    state.set("r.seen", seen);
    CHECK_THROWS_AS(keep.load_state(state, "r."), retain::state_error);
    CHECK_THROWS_WITH(keep.load_state(state, "r."), ContainsSubstring("'r.seen'"));
  }
  CHECK(keep.seen() == 2);
  state.set("r.seen", std::int64_t{1} << 53);
  keep.load_state(state, "r.");
  CHECK_THROWS_AS(keep.offer(1), retain::config_error);
  CHECK(keep.sample(9).indices.max().item<std::int64_t>() < 3);
}

TEST_CASE("reservoir_memory: rows arrive whatever lies behind them, alone and in batches",
          "[replay]") {
  const auto numbers = torch::arange(1.0f, 25.0f).view({4, 6});
  const auto given = GENERATE_COPY(values<at::Tensor>(
      {numbers, numbers.t(), numbers.slice(1, 0, 6, 2), torch::_neg_view(numbers),
       numbers.clone().requires_grad_(), torch::complex(numbers, numbers + 1).conj(), numbers.gt(5),
       torch::empty({3, 0}), torch::randn({3, 40'000}), numbers.select(1, 0),
       torch::ones({1, 2}).expand({5, 2})}));
  reservoir_memory memory{{.capacity = 5, .seed = 4}};
  reservoir slots(5, 4);
  std::vector<at::Tensor> expected(5);
  for (int i = 0; i < 6; ++i) {
    memory.push({{"x", given}});
    const auto where = slots.offer(given.size(0));
    for (std::int64_t row = 0; row < given.size(0); ++row)
      if (const auto slot = where[row].item<std::int64_t>(); slot >= 0)
        expected[static_cast<std::size_t>(slot)] = given[row].detach().clone();
  }
  const auto kept = memory.gather(torch::arange(5))["x"];
  CHECK_FALSE(kept.requires_grad());
  for (std::int64_t slot = 0; slot < 5; ++slot)
    CHECK(kept[slot].equal(expected[static_cast<std::size_t>(slot)]));
}

TEST_CASE("reservoir_memory: a load that is undone leaves it as new", "[replay]") {
  const support::temporary_folder folder;
  reservoir_memory a{{.capacity = 6}}, b{{.capacity = 6}};
  a.push(rows(0, 4));
  retain::state saved;
  a.save_state(saved, "");
  saved.set("more", 1);  // which fails once everything else is loaded
  saved.write(folder.file("r"));
  CHECK_THROWS_AS(retain::load(folder.file("r"), b), retain::state_error);
  CHECK(b.size() == 0);
  b.push({{"other", torch::zeros({2, 5})}});
  CHECK(b.size() == 2);
}

}  // namespace replay_reservoir_test
