// SPDX-License-Identifier: MIT
// Wherever memory runs out, what is added to is as it was, and adding the same again does what it
// would have done. Each allocation fails in turn: those of operator new, which this file replaces
// for the whole program, and those of LibTorch's tensors.
#include <retain/episodic_memory.hpp>
#include <retain/replay/prioritized.hpp>
#include <retain/replay/reservoir.hpp>
#include <retain/replay/sequences.hpp>
#include <retain/replay/stratified.hpp>
#include <retain/replay/uniform.hpp>

#include <c10/core/CPUAllocator.h>

#include <cstdlib>
#include <limits>
#include <new>

#include "replay/contents.hpp"
#include "support.hpp"

namespace {

// allocations before the one that fails; negative: none does
thread_local std::int64_t until_failure = -1;
bool fails() { return until_failure >= 0 && until_failure-- == 0; }

/// allocate() is const in older versions of LibTorch; copy_data() is there in newer ones.
struct failing_allocator : c10::Allocator {
  c10::Allocator* real = c10::GetCPUAllocator();
  c10::DataPtr allocate(std::size_t n) const {
    return const_cast<failing_allocator*>(this)->allocate(n);
  }
  c10::DataPtr allocate(std::size_t n) {
    if (fails()) TORCH_CHECK(false, "no memory for ", n, " bytes");
    return real->allocate(n);
  }
  void copy_data(void* to, const void* from, std::size_t count) const {
    std::memcpy(to, from, count);
  }
};

struct failing_tensors {
  failing_tensors() { c10::SetCPUAllocator(&allocator); }
  ~failing_tensors() { c10::SetCPUAllocator(allocator.real); }
  failing_allocator allocator;
};

/// `make()` is the same whenever it is called; `add(it)` is to change all or nothing.
template <class Make, class Add>
void all_or_nothing(Make make, Add add) {
  failing_tensors tensors;
  auto untroubled = make();
  const auto before = contents::of(untroubled);
  add(untroubled);
  const auto after = contents::of(untroubled);
  REQUIRE(!(after == before));
  std::int64_t failures = 0;
  for (bool failed = true; failed; ++failures) {
    CAPTURE(failures);
    failed = false;
    auto troubled = make();
    until_failure = failures;
    try {
      add(troubled);
    } catch (const std::exception&) {
      failed = true;
    }
    failed = failed || until_failure < 0;
    until_failure = -1;
    if (failed && !(contents::of(troubled) == after)) {
      REQUIRE(contents::of(troubled) == before);
      add(troubled);
    }
    REQUIRE(contents::of(troubled) == after);
  }
  CHECK(failures > 1);  // the last time none did
}

at::Tensor list(const std::vector<std::int64_t>& values) {
  return torch::tensor(values, at::kLong);
}
retain::transitions rows(std::int64_t from, std::int64_t to) {
  const auto item = torch::arange(from, to, at::kLong);
  return {{"item", item}, {"pair", torch::stack({item, -item}, 1).to(at::kFloat)}};
}
/// Rows so wide that none is ever stored, which take no memory themselves.
at::Tensor wide(std::int64_t n) { return torch::zeros({1, 1}).expand({n, std::int64_t{1} << 46}); }
constexpr std::int64_t huge[] = {std::int64_t{1} << 50, std::int64_t{1} << 62,
                                 std::numeric_limits<std::int64_t>::max()};

}  // namespace

#if defined(__SANITIZE_ADDRESS__)
/// What is too large is to be refused as it is without a sanitizer, not to end the program.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
#endif

[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return fails() ? nullptr : std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (void* memory = operator new(size, std::nothrow)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

TEST_CASE("failing memory: a push to a reservoir_memory is stored, then counted", "[replay]") {
  retain::reservoir_memory memory{{.capacity = 4}};
  const auto item = torch::arange(3);
  CHECK_THROWS_WITH(memory.push({{"item", item}, {"wide", wide(3)}}),
                    ContainsSubstring("'wide'") && ContainsSubstring("smaller capacity"));
  CHECK_THROWS_AS(memory.push({{"item", item}, {"wide", wide(3)}}), retain::config_error);
  CHECK(memory.seen() == 0);
  CHECK_THROWS_WITH(memory.sample(1), ContainsSubstring("nothing to draw"));
  memory.push(rows(0, 3));  // nothing is left of the other columns either
  CHECK(memory.seen() == 3);

  for (const std::int64_t there : {0, 3, 9}) {
    const auto make = [&] {
      retain::reservoir_memory made{{.capacity = 4, .seed = 3}};
      if (there > 0) made.push(rows(0, there));
      return made;
    };
    all_or_nothing(make, [batch = rows(10, 22)](retain::reservoir_memory& m) { m.push(batch); });
    const auto shared = make();  // and where the rows are shared with a copy
    all_or_nothing([&] { return shared; },
                   [batch = rows(10, 22)](retain::reservoir_memory& m) { m.push(batch); });
  }
}

TEST_CASE("failing memory: a push to an episodic_memory is stored, then counted",
          "[episodic_memory]") {
  retain::episodic_memory memory{{}, {.capacity = 4}};
  CHECK_THROWS_AS(memory.push({{"item", torch::arange(3)}, {"wide", wide(3)}}),
                  retain::config_error);
  CHECK(memory.size() == 0);
  memory.push(rows(0, 3));
  CHECK(memory.size() == 3);
  CHECK_THROWS_AS((retain::episodic_memory{{{"wide", wide(3)}}, {.capacity = 4}}),
                  retain::config_error);
  for (const std::int64_t there : {0, 3, 9}) {
    const auto make = [&] {
      retain::episodic_memory made{rows(-2, 0), {.capacity = 7, .seed = 3}};
      made.push(rows(0, there));
      return made;
    };
    all_or_nothing(make, [batch = rows(10, 14)](retain::episodic_memory& m) { m.push(batch); });
    const auto shared = make();
    all_or_nothing([&] { return shared; },
                   [batch = rows(10, 22)](retain::episodic_memory& m) { m.push(batch); });
  }
}

TEST_CASE("failing memory: what is added to a sampler is added, or nothing is", "[replay]") {
  all_or_nothing([] { return retain::reservoir(3, 1); }, [](retain::reservoir& r) { r.offer(9); });
  all_or_nothing([] { return retain::prioritized(3); }, [](retain::prioritized& p) { p.push(5); });
  all_or_nothing([] { return retain::prioritized(3); },
                 [](retain::prioritized& p) { p.update(list({0, 2}), torch::tensor({2.0, 3.0})); });
  for (const bool pad : {false, true})
    all_or_nothing([&] { return retain::sequences(list({4}), {.length = 3, .pad = pad}); },
                   [](retain::sequences& s) { s.push(list({1, 5, 2, 8, 3})); });
  const auto strata = [] { return retain::stratified(list({1, 1, 3}), {.seed = 1}); };
  all_or_nothing(strata, [](retain::stratified& s) { s.push(list({3, 2, 1, 9, 9, 9, 3, 2, 8})); });
  all_or_nothing(strata, [](retain::stratified& s) { s.update(list({0, 2, 0}), list({5, 6, 3})); });
}

TEST_CASE("failing memory: a draw that fails has drawn nothing", "[replay]") {
  all_or_nothing([] { return retain::prioritized(3); },
                 [](retain::prioritized& s) { s.sample(4); });
  all_or_nothing([] { return retain::sequences(list({4, 9}), {.length = 3, .pad = true}); },
                 [](retain::sequences& s) { s.sample(4); });
  all_or_nothing([] { return retain::stratified(list({1, 2, 2, 3})); },
                 [](retain::stratified& s) { s.sample(4); });
  const auto episodic = [](std::optional<double> share) {
    return [=] {
      retain::episodic_memory made{rows(-2, 0), {.capacity = 7, .share = share}};
      made.push(rows(0, 9));
      return made;
    };
  };
  for (const auto& share : {std::optional<double>(), std::optional<double>(0.3)})
    all_or_nothing(episodic(share), [](retain::episodic_memory& m) { m.sample(4); });
  const auto reservoir = [] {
    retain::reservoir_memory made{{.capacity = 4}};
    made.push(rows(0, 9));
    return made;
  };
  all_or_nothing(reservoir, [](retain::reservoir_memory& m) { m.sample(4); });
}

TEST_CASE("failing memory: a load that fails has loaded nothing", "[replay]") {
  retain::reservoir_memory reservoir{{.capacity = 4, .seed = 9}};
  reservoir.push(rows(0, 9));
  all_or_nothing([] { return retain::reservoir_memory{{.capacity = 4}}; },
                 [state = contents::of(reservoir).as_state()](retain::reservoir_memory& m) {
                   m.load_state(state, "m.");
                 });
  retain::episodic_memory episodic{rows(-2, 0), {.capacity = 7, .seed = 9}};
  episodic.push(rows(0, 9));
  all_or_nothing([] { return retain::episodic_memory{rows(-2, 0), {.capacity = 7}}; },
                 [state = contents::of(episodic).as_state()](retain::episodic_memory& m) {
                   m.load_state(state, "m.");
                 });
  all_or_nothing([] { return retain::stratified(list({4})); },
                 [state = contents::of(retain::stratified(list({1, 2, 1}))).as_state()](
                     retain::stratified& s) { s.load_state(state, "m."); });
  all_or_nothing([] { return retain::sequences(list({4})); },
                 [state = contents::of(retain::sequences(list({1, 2, 1}))).as_state()](
                     retain::sequences& s) { s.load_state(state, "m."); });
  all_or_nothing([] { return retain::prioritized(3); },
                 [state = contents::of(retain::prioritized(7, {.seed = 3})).as_state()](
                     retain::prioritized& p) { p.load_state(state, "m."); });
}

TEST_CASE("failing memory: what no memory holds is a config_error, and changes nothing",
          "[replay]") {
  const auto refused = [](auto& memory, auto use) {
    const auto before = contents::of(memory);
    CHECK_THROWS_AS(use(), retain::config_error);
    CHECK(contents::of(memory) == before);
  };
  for (const std::int64_t n : huge) {
    CAPTURE(n);
    CHECK_THROWS_AS(retain::prioritized(n), retain::config_error);
    retain::prioritized prioritized(3);
    refused(prioritized, [&] { prioritized.push(n); });
    refused(prioritized, [&] { prioritized.sample(n); });
    retain::uniform uniform(3);
    refused(uniform, [&] { uniform.sample(n); });
    retain::reservoir reservoir(3);
    refused(reservoir, [&] { reservoir.offer(n); });
    reservoir.offer(2);
    refused(reservoir, [&] { reservoir.offer(n); });
    refused(reservoir, [&] { reservoir.sample(n); });
    retain::stratified stratified(list({1, 2}));
    refused(stratified, [&] { stratified.sample(n); });
    retain::sequences sequences(list({3})), long_ones(list({3}), {.length = n, .pad = true});
    refused(sequences, [&] { sequences.sample(n); });
    refused(long_ones, [&] { long_ones.sample(1); });
    refused(long_ones, [&] { long_ones.sample(1000); });
    refused(sequences, [&] { sequences.push(list({n, n, n, n, n, n, n, n})); });
    retain::reservoir_memory kept{{.capacity = 4}};
    kept.push(rows(0, 3));
    refused(kept, [&] { kept.sample(n); });
    retain::episodic_memory episodic{rows(-2, 0), {.capacity = 7}};
    refused(episodic, [&] { episodic.sample(n); });
    CHECK_THROWS_AS((retain::episodic_memory{rows(-2, 0), {.capacity = n}}), retain::config_error);
    CHECK_THROWS_AS((retain::reservoir_memory{{.capacity = n}}.push(rows(0, 2))),
                    retain::config_error);
  }
  // Indices that there is room for, of rows that there is none for: more than can be addressed.
  const auto row = torch::zeros({1, 1 << 22});
  retain::episodic_memory fixed{{{"x", row}}, {.capacity = 2, .share = 0.5}};
  fixed.push({{"x", row}});
  refused(fixed, [&] { fixed.sample(std::int64_t{1} << 23); });
}
