// SPDX-License-Identifier: MIT
#include <retain/replay/sequences.hpp>

#include <map>
#include <set>

#include "support.hpp"

namespace replay_sequences_test {

using retain::sequences;

namespace {

at::Tensor lengths_of(const std::vector<std::int64_t>& lengths) {
  return torch::tensor(lengths, at::kLong);
}

/// Which episode every step belongs to, and which step of it it is.
struct place {
  std::int64_t episode, step, left;
};
std::vector<place> places(const std::vector<std::int64_t>& lengths) {
  std::vector<place> all;
  for (std::size_t e = 0; e < lengths.size(); ++e)
    for (std::int64_t t = 0; t < lengths[e]; ++t)
      all.push_back({static_cast<std::int64_t>(e), t, lengths[e] - t});
  return all;
}

}  // namespace

TEST_CASE("sequences: one episode throughout, consecutive, marked at its first step", "[replay]") {
  const std::vector<std::int64_t> lengths{5, 2, 9, 4, 1};
  const auto all = places(lengths);
  sequences sampler(lengths_of(lengths), {.length = 4, .seed = 1});
  const auto drawn = sampler.sample(300);
  REQUIRE(drawn.indices.sizes() == at::IntArrayRef({4, 300}));
  REQUIRE(drawn.episode_start.sizes() == drawn.indices.sizes());
  CHECK(!drawn.mask.defined());
  CHECK(!drawn.weights.defined());
  const auto index = drawn.indices.accessor<std::int64_t, 2>();
  for (std::int64_t i = 0; i < 300; ++i)
    for (std::int64_t t = 0; t < 4; ++t) {
      const auto& here = all.at(static_cast<std::size_t>(index[t][i]));
      REQUIRE(index[t][i] == index[0][i] + t);
      REQUIRE(here.episode == all[static_cast<std::size_t>(index[0][i])].episode);
      REQUIRE(drawn.episode_start[t][i].item<bool>() == (here.step == 0));
    }
}

TEST_CASE("sequences: every valid start is drawn, equally often, and no other", "[replay]") {
  const std::vector<std::int64_t> lengths{5, 2, 9, 4, 1};
  for (const bool pad : {false, true}) {
    std::set<std::int64_t> valid;
    const auto all = places(lengths);
    for (std::size_t i = 0; i < all.size(); ++i)
      if (pad || all[i].left >= 4) valid.insert(static_cast<std::int64_t>(i));
    sequences sampler(lengths_of(lengths), {.length = 4, .pad = pad, .seed = 2});
    CHECK(sampler.starts() == static_cast<std::int64_t>(valid.size()));
    CHECK(sampler.size() == 21);
    constexpr std::int64_t n = 18000;
    const auto counts = torch::bincount(sampler.sample(n).indices[0], {}, 21).to(at::kDouble);
    double chi = 0;
    const double expected = static_cast<double>(n) / static_cast<double>(valid.size());
    for (std::int64_t i = 0; i < 21; ++i) {
      const double count = counts[i].item<double>();
      if (valid.count(i))
        chi += (count - expected) * (count - expected) / expected;
      else
        CHECK(count == 0);
    }
    CHECK(chi < (pad ? 45.3 : 26.1));  // 99.9 % at 20 and at 8 degrees of freedom
  }
}

TEST_CASE("sequences: padding stays at the last step and is masked", "[replay]") {
  const std::vector<std::int64_t> lengths{3, 1, 6};
  const auto all = places(lengths);
  sequences sampler(lengths_of(lengths), {.length = 4, .pad = true, .seed = 3});
  const auto drawn = sampler.sample(200);
  for (std::int64_t i = 0; i < 200; ++i) {
    const auto start = drawn.indices[0][i].item<std::int64_t>();
    const std::int64_t left = all[static_cast<std::size_t>(start)].left;
    for (std::int64_t t = 0; t < 4; ++t) {
      REQUIRE(drawn.mask[t][i].item<bool>() == (t < left));
      REQUIRE(drawn.indices[t][i].item<std::int64_t>() == start + std::min(t, left - 1));
      REQUIRE(drawn.episode_start[t][i].item<bool>() ==
              (t == 0 && all[static_cast<std::size_t>(start)].step == 0));
    }
  }
}

TEST_CASE("sequences: episodes from flags at their first steps", "[replay]") {
  CHECK(retain::episode_lengths(torch::tensor({1, 0, 0, 1, 1, 0}, at::kFloat))
            .equal(lengths_of({3, 1, 2})));
  CHECK(retain::episode_lengths(torch::zeros({0}, at::kBool)).numel() == 0);
  CHECK_THROWS_WITH(retain::episode_lengths(torch::tensor({0, 0, 1})),
                    ContainsSubstring("last steps"));
  CHECK_THROWS_AS(retain::episode_lengths(torch::ones({2, 2})), retain::shape_error);
}

TEST_CASE("sequences: save, load and go on; episodes that come later are drawn", "[replay]") {
  sequences a(lengths_of({5, 7}), {.length = 3, .seed = 4});
  a.sample(5);
  a.push(lengths_of({6}));
  CHECK(a.size() == 18);
  retain::state saved;
  a.save_state(saved, "q.");
  sequences b(lengths_of({3}), {.length = 3});
  b.load_state(saved, "q.");
  CHECK(b.size() == 18);
  const auto x = a.sample(500), y = b.sample(500);
  CHECK(x.indices.equal(y.indices));
  CHECK(x.episode_start.equal(y.episode_start));
  CHECK(x.indices.max().item<std::int64_t>() == 17);
}

TEST_CASE("sequences: what cannot be drawn is refused", "[replay]") {
  CHECK_THROWS_WITH((sequences{lengths_of({3, 2}), {.length = 4}}.sample(1)),
                    ContainsSubstring("no episode has 4 steps"));
  CHECK_NOTHROW((sequences{lengths_of({3, 2}), {.length = 4, .pad = true}}.sample(1)));
  CHECK_THROWS_WITH((sequences{lengths_of({}), {.length = 4}}.sample(1)),
                    ContainsSubstring("nothing to draw from"));
  CHECK_THROWS_AS((sequences{lengths_of({3}), {.length = 0}}), retain::config_error);
  CHECK_THROWS_WITH((sequences{lengths_of({3, 0})}), ContainsSubstring("episode 1 has 0 steps"));
  CHECK_THROWS_AS((sequences{torch::ones({3})}), retain::shape_error);
  retain::state other;
  other.set("q.steps", torch::zeros({2, 2}, at::kLong));
  sequences sampler(lengths_of({4}), {.length = 2});
  CHECK_THROWS_AS(sampler.load_state(other, "q."), retain::state_error);
}

TEST_CASE("sequences: steps that no episodes have are refused by who loads and by who pushes",
          "[replay]") {
  constexpr auto huge = std::int64_t{1} << 62;
  sequences sampler(lengths_of({4, 3}), {.length = 2});
  for (const auto& steps : {std::vector<std::int64_t>{0, huge},
                            {0, 4, huge},
                            {1, 4},
                            {0, 4, 4},
                            {0, 4, 3},
                            {0, -huge - huge},
                            {0, 4, -huge - huge},
                            {}}) {
    retain::state state;
    sampler.save_state(state, "q.");
    state.set("q.steps", lengths_of(steps));
    CHECK_THROWS_AS(sampler.load_state(state, "q."), retain::state_error);
    CHECK_THROWS_WITH(sampler.load_state(state, "q."), ContainsSubstring("'q.steps'"));
  }
  CHECK_THROWS_AS(sampler.push(lengths_of({5, huge, huge})), retain::config_error);
  CHECK(sampler.size() == 7);
  CHECK(sampler.sample(50).indices.max().item<std::int64_t>() == 6);
}

}  // namespace replay_sequences_test
