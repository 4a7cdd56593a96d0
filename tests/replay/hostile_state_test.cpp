// SPDX-License-Identifier: MIT
// What a state may say without a memory going wrong: each number of each, one at a time and several
// at random, is replaced by what nothing comes to.
#include <retain/episodic_memory.hpp>
#include <retain/replay/prioritized.hpp>
#include <retain/replay/reservoir.hpp>
#include <retain/replay/sequences.hpp>
#include <retain/replay/stratified.hpp>
#include <retain/replay/uniform.hpp>

#include <functional>
#include <limits>

#include "replay/contents.hpp"
#include "support.hpp"

namespace replay_hostile_state_test {

namespace {

const std::vector<std::string> hostile_texts{"-1",
                                             "0",
                                             "-0",
                                             "1",
                                             "1.5",
                                             "1e17",
                                             "-1e17",
                                             "1e308",
                                             "-1e308",
                                             "5e-324",
                                             "nan",
                                             "inf",
                                             "-inf",
                                             "4000000000",
                                             "4611686018427387904",
                                             "9223372036854775807",
                                             "-9223372036854775808",
                                             "18446744073709551615",
                                             "",
                                             "x"};
const std::vector<std::int64_t> hostile_integers{-1,
                                                 0,
                                                 1,
                                                 2,
                                                 4'000'000'000,
                                                 std::int64_t{1} << 53,
                                                 (std::int64_t{1} << 53) + 1,
                                                 std::int64_t{1} << 62,
                                                 std::numeric_limits<std::int64_t>::max(),
                                                 std::numeric_limits<std::int64_t>::min()};
const std::vector<double> hostile_doubles{
    -1, 0, -0.0, 1, 1e17, -1e17, 1e300, 1e308, 5e-324, std::nan(""), INFINITY, -INFINITY};

using change = std::function<void(contents&)>;

/// Another value for one number, and lists that are a number shorter or longer than what belongs to
/// them.
std::vector<change> changes(const contents& saved) {
  std::vector<change> all;
  for (const auto& [key, text] : saved.texts)
    for (const auto& value : hostile_texts)
      all.push_back([key = key, value](contents& c) { c.texts[key] = value; });
  for (const auto& [key, tensor] : saved.tensors) {
    // which an earlier change may have taken away
    const auto to_list = [&, key = key](auto change_list) {
      all.push_back([key, change_list](contents& c) {
        if (const auto found = c.tensors.find(key); found != c.tensors.end())
          found->second = change_list(found->second);
      });
    };
    const auto set = [&, type = tensor.scalar_type()](std::int64_t i, auto value) {
      to_list([i, value, type](const at::Tensor& list) {
        if (list.scalar_type() != type || i >= list.numel()) return list;
        const auto changed = list.clone();
        changed.view({-1})[i].fill_(value);
        return changed;
      });
    };
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
      if (tensor.scalar_type() == at::kLong)
        for (const auto value : hostile_integers) set(i, value);
      else
        for (const auto value : hostile_doubles) set(i, value);
    }
    to_list([](const at::Tensor& list) { return list.slice(0, 1); });
    to_list([](const at::Tensor& list) { return torch::cat({list, list.slice(0, 0, 1)}); });
    to_list([](const at::Tensor& list) { return list.to(at::kInt); });
    to_list([](const at::Tensor& list) { return list.unsqueeze(0); });
    all.push_back([key = key](contents& c) { c.tensors.erase(key); });
  }
  return all;
}

template <class Memory>
void draw(Memory& memory, std::int64_t n) {
  if (memory.size() == 0) {  // as before the first push
    CHECK_THROWS_WITH(memory.sample(n), ContainsSubstring("nothing to draw from"));
    return;
  }
  if constexpr (retain::sampler<Memory>) {
    const auto drawn = memory.sample(n);
    const auto* index = drawn.indices.template data_ptr<std::int64_t>();
    bool in_range = drawn.indices.numel() >= n;
    for (std::int64_t i = 0; i < drawn.indices.numel(); ++i)
      in_range = in_range && index[i] >= 0 && index[i] < memory.size();
    if (drawn.weights.defined())
      for (std::int64_t i = 0; i < n; ++i) {
        const double weight = drawn.weights.template data_ptr<double>()[i];
        in_range = in_range && weight >= 0 && weight <= 1;
      }
    if (!in_range) FAIL("drawn: " << drawn.indices << drawn.weights);
  } else {
    // an index beyond the rows throws
    if (memory.sample(n).size() != n) FAIL("a batch of another size");
  }
}

/// `memory` saves; `other` was built the same way, has lived through something else, and loads.
template <class Memory>
void attack(const Memory& memory, const Memory& other) {
  const auto saved = contents::of(memory), before = contents::of(other);
  int refused = 0, taken = 0;
  const auto attempt = [&](const contents& hostile) {
    auto victim = other;
    const int refusals = refused;
    const retain::state state = hostile.as_state();
    try {
      victim.load_state(state, "m.");
      ++taken;
    } catch (const retain::state_error&) {
      ++refused;
    } catch (const retain::shape_error&) {  // columns of rows that differ in number
      ++refused;
    }
    if (contents::of(victim) == before) return;
    if (refused > refusals) FAIL("a refused state has changed something");
    for (int i = 0; i < 100; ++i) draw(victim, 1 + i % 7);
  };
  attempt(saved);
  REQUIRE(taken == 1);
  const auto all = changes(saved);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CAPTURE(i);
    auto hostile = saved;
    all[i](hostile);
    attempt(hostile);
  }
  retain::detail::splitmix64 random(7);
  for (int trial = 0; trial < 200; ++trial) {
    CAPTURE(trial);
    auto hostile = saved;
    for (std::uint64_t i = 2 + random.below(4); i-- > 0;) all[random.below(all.size())](hostile);
    attempt(hostile);
  }
  CHECK(refused > 0);
}

at::Tensor list(const std::vector<std::int64_t>& values) {
  return torch::tensor(values, at::kLong);
}
retain::transitions rows(std::int64_t from, std::int64_t to) {
  const auto item = torch::arange(from, to, at::kLong);
  return {{"item", item}, {"x", item.to(at::kDouble)}};
}

}  // namespace

TEST_CASE("a hostile state: uniform", "[replay]") {
  attack(retain::uniform(9, 1), retain::uniform(9, 2));
}

TEST_CASE("a hostile state: reservoir and its memory", "[replay]") {
  retain::reservoir a(5, 1), b(5, 2);
  a.offer(9);
  b.offer(3);
  attack(a, b);
  retain::reservoir_memory c{{.capacity = 5, .seed = 1}}, d{{.capacity = 5, .seed = 2}};
  c.push(rows(0, 9));
  d.push(rows(20, 23));
  attack(c, d);
  attack(c, retain::reservoir_memory{{.capacity = 5, .seed = 2}});
}

TEST_CASE("a hostile state: stratified", "[replay]") {
  retain::stratified a(list({4, 4, 2, 7, 2, 4}), {.seed = 1}), b(list({1, 2}), {.seed = 2});
  a.update(list({3}), list({2}));  // nothing of 7 is left
  a.sample(5);
  attack(a, b);
  const retain::stratified_options shares{.shares = {{2, 1.0}, {4, 0.25}, {7, 0.0}}};
  retain::stratified c(list({4, 4, 2, 7, 2, 4}), shares), d(list({2}), shares);
  c.sample(3);
  attack(c, d);
}

TEST_CASE("a hostile state: prioritized", "[replay]") {
  const retain::prioritized_options options{
      .beta = retain::linear{.initial = 0.4, .last = 1.0, .over = 10}};
  retain::prioritized a(5, options), b(3, options);
  a.update(list({0, 1, 2}), torch::tensor({3.0, 0.0, 0.25}));
  a.push(2);
  a.step(4);
  a.sample(3);
  attack(a, b);
}

TEST_CASE("a hostile state: sequences", "[replay]") {
  for (const bool pad : {false, true}) {
    const retain::sequences_options options{.length = 3, .pad = pad};
    attack(retain::sequences(list({4, 3, 9, 1}), options), retain::sequences(list({5}), options));
  }
}

TEST_CASE("a hostile state: episodic_memory", "[episodic_memory]") {
  for (const bool fixed : {false, true}) {
    retain::episodic_memory_options options{.capacity = 7};
    if (fixed) options.share = 0.3;
    retain::episodic_memory a{rows(-2, 0), options}, b{rows(-2, 0), options};
    a.push(rows(0, 9));
    a.sample(4);
    b.push(rows(30, 32));
    attack(a, b);
  }
}

}  // namespace replay_hostile_state_test
