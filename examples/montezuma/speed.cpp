// SPDX-License-Identifier: MIT
// Measures the speed of the pyramid: random actions, with and without an observation after each.
//   montezuma_speed [steps]
// `taskset -c 0` measures on one core. The sum prevents the compiler from removing the
// observations.
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

#include "pyramid.hpp"

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void measure(const char* map, bool observing, long wanted_steps) {
  constexpr std::size_t count = 32;
  std::vector<montezuma::pyramid> games;
  for (std::size_t i = 0; i < count; ++i)
    games.emplace_back(i + 1, montezuma::pyramid_options{.map = map});
  std::vector<std::array<float, montezuma::feature_layout::count>> seen(count);
  std::uint64_t dice = 1;
  long episodes = 0;
  double sum = 0;
  const double start = seconds();
  for (long step = 0; step < wanted_steps; step += count)
    for (std::size_t i = 0; i < count; ++i) {
      dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
      const auto result =
          games[i].step(static_cast<int>(((dice >> 32) * montezuma::pyramid::actions) >> 32));
      if (result.ended) games[i].reset(episodes++ % 2 == 0 ? 1 : 7);
      if (observing) {
        games[i].observe(seen[i].data());
        sum += static_cast<double>(seen[i][31]);
      }
      sum += static_cast<double>(result.reward);
    }
  const double passed = seconds() - start;
  std::printf("%-9s %-12s %10ld %9ld %14.0f %9.1f   (%g)\n", map, observing ? "yes" : "no",
              wanted_steps, episodes, static_cast<double>(wanted_steps) / passed,
              passed / static_cast<double>(wanted_steps) * 1e9, sum);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const long steps = argc > 1 ? std::atol(argv[1]) : 10'000'000;
    std::printf(
        "map       observing        steps  episodes        steps/s   ns/step   (checksum)\n");
    for (const auto* map : montezuma::all_maps)
      for (const bool observing : {false, true}) measure(map->name.data(), observing, steps);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "montezuma_speed: %s\n", error.what());
    return 1;
  }
}
