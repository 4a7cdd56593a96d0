// SPDX-License-Identifier: MIT
#include "toy/apple_retrieval.hpp"

#include <array>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "../nethack/catch2.hpp"
#include "common/parallel.hpp"
#include "common/seeds.hpp"

namespace toy_apple_world_test {

namespace {

/// The rules once more, as they are told: no class, no tricks.
struct told {
  int phase, place, steps = 0;
  double reward = 0;
  bool reached, home = false;
  bool over(int cap) const { return home || steps == cap; }
  void go(bool right, int distance) {
    if (phase == 1) reward += right ? 1 : -1;
    if (phase == 2) reward += right ? -1 : 1;
    place += right ? 1 : -1;
    if (place < 0) place = 0;
    ++steps;
    if (phase == 1 && place == distance) {
      phase = 2;
      reached = true;
    } else if (phase == 2 && place == 0) {
      home = true;
    }
  }
};

/// All sequences of actions, one by one, with their probabilities.
toy::apple_outcome enumerate(const told& now, int distance, int cap, double right1, double right2) {
  if (now.over(cap)) return {now.reached ? 1.0 : 0.0, now.home ? 1.0 : 0.0, now.reward};
  toy::apple_outcome all;
  for (const bool right : {false, true}) {
    const double p = now.phase == 1 ? right1 : right2, probability = right ? p : 1 - p;
    auto next = now;
    next.go(right, distance);
    const auto rest = enumerate(next, distance, cap, right1, right2);
    all.reach += probability * rest.reach;
    all.success += probability * rest.success;
    all.reward += probability * rest.reward;
  }
  return all;
}

}  // namespace

TEST_CASE("AppleRetrieval: an episode by hand", "[toy][apple]") {
  toy::apple_retrieval game({2, 0.25, 100});
  struct row {
    bool right;
    double reward;
    int place, phase;
  };
  for (const auto& [right, reward, place, phase] : std::vector<row>{{false, -1, 0, 1},
                                                                    {true, 1, 1, 1},
                                                                    {false, -1, 0, 1},
                                                                    {true, 1, 1, 1},
                                                                    {true, 1, 2, 2},
                                                                    {true, -1, 3, 2},
                                                                    {false, 1, 2, 2},
                                                                    {false, 1, 1, 2}}) {
    CHECK(game.observation() == (game.phase() == 1 ? -0.25 : 0.25));
    CHECK(game.step(right) == reward);
    CHECK(game.place() == place);
    CHECK(game.phase() == phase);
    CHECK(!game.over());
  }
  CHECK(game.step(false) == 1);
  CHECK(game.success());
  CHECK(game.over());
  CHECK(game.steps() == 9);

  toy::apple_retrieval far({3, 0.25, 4}, 2);
  CHECK(far.phase() == 2);
  CHECK(far.place() == 3);
  for (const bool right : {true, false, false, false}) far.step(right);
  CHECK(far.over());
  CHECK(!far.success());
}

TEST_CASE("AppleRetrieval: exact outcomes are those of all sequences of actions", "[toy][apple]") {
  for (const int distance : {1, 2, 3})
    for (const int cap : {6, 9, 11})
      for (const auto& [right1, right2] : std::vector<std::array<double, 2>>{
               {0.5, 0.5}, {0.8, 0.3}, {0.9, 0.05}, {0.2, 0.9}, {1, 0}})
        for (const int phase : {1, 2}) {
          CAPTURE(distance, cap, right1, right2, phase);
          const auto exact = toy::exact_outcome({distance, 0.25, cap}, right1, right2, phase);
          const auto slow = enumerate({phase, phase == 1 ? 0 : distance, 0, 0, phase == 2, false},
                                      distance, cap, right1, right2);
          CHECK(exact.reach == Approx(slow.reach).margin(1e-12));
          CHECK(exact.success == Approx(slow.success).margin(1e-12));
          CHECK(exact.reward == Approx(slow.reward).margin(1e-12));
        }
}

TEST_CASE("AppleRetrieval: played episodes follow the rules and succeed as often as they should",
          "[toy][apple]") {
  const toy::apple_world world{20, 0.25, 100};
  const toy::apple_weights policy{-3, 0.2};
  toy::random_numbers random(7);
  toy::apple_episode episode;
  constexpr int games = 8000;
  double reached = 0, succeeded = 0, reward = 0;
  for (int i = 0; i < games; ++i) {
    toy::play(world, policy, 1, random, episode);
    told literal{1, 0, 0, 0, false, false};
    double rewards = 0;
    for (std::size_t t = 0; t < episode.right.size(); ++t) {
      REQUIRE(!literal.over(world.cap));
      REQUIRE((literal.phase == 1) == (t < episode.turn));
      literal.go(episode.right[t] != 0, world.distance);
      rewards += episode.reward(t);
    }
    REQUIRE(literal.over(world.cap));
    REQUIRE(literal.home == episode.success);
    REQUIRE(literal.reward == rewards);
    reached += literal.reached;
    succeeded += episode.success;
    reward += rewards;
  }
  const auto exact = toy::exact_outcome(world, policy.right(world, 1), policy.right(world, 2));
  REQUIRE(exact.success > 0.1);
  REQUIRE(exact.success < 0.9);
  const auto error = [](double p) { return 4.5 * std::sqrt(p * (1 - p) / games); };
  CHECK(std::abs(reached / games - exact.reach) < error(exact.reach));
  CHECK(std::abs(succeeded / games - exact.success) < error(exact.success));
  CHECK(std::abs(reward / games - exact.reward) < 4.5 * 100 / std::sqrt(games));
}

TEST_CASE("random numbers: a seed and a stream determine them", "[toy]") {
  toy::random_numbers a(3, 1), b(3, 1), other_stream(3, 2), other_seed(4, 1);
  const double first = a();
  CHECK(first == b());
  CHECK(first != other_stream());
  CHECK(first != other_seed());
  CHECK((first >= 0 && first < 1));
}

TEST_CASE("parallel: every piece once, and the first failure is told", "[toy][common]") {
  for (const std::size_t threads : {1u, 3u}) {
    std::vector<int> times(50);
    parallel(times.size(), threads, [&](std::size_t i) { ++times[i]; });
    CHECK(times == std::vector<int>(50, 1));
    CHECK_THROWS_AS(parallel(50, threads,
                             [](std::size_t i) {
                               if (i == 20) throw std::logic_error("twenty");
                             }),
                    std::logic_error);
  }
  parallel(0, 2, [](std::size_t) { FAIL("there is nothing to do"); });
}

TEST_CASE("seeds: lists and ranges", "[toy][common]") {
  CHECK(seed_list({"1-3", "7"}) == std::vector<unsigned long>{1, 2, 3, 7});
  CHECK_THROWS_WITH(seed_list({"x"}, "--tuning-seeds"), ContainsSubstring("--tuning-seeds"));
  CHECK(seed_list({"2-4", "3", "1"}) == std::vector<unsigned long>{2, 3, 4, 1});
  CHECK_THROWS(seed_list({"3-1"}));
}

}  // namespace toy_apple_world_test
