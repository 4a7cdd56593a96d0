// SPDX-License-Identifier: MIT
// Measures the speed of the environment: random keys, every prompt answered, every observation
// complete.
//   nethack_speed [steps [nle]]
// The parent's time in user mode is the time for the screen and the status. Its time in system
// mode is the time to wake games and to go to sleep. The rest of a step is waiting. `taskset -c 0`
// measures on one core.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <string_view>
#include <vector>

#include "vector_environment.hpp"

namespace {

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
}

struct clocks {
  double wall = wall_seconds(), user = 0, system = 0;
  clocks() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    user = seconds(usage.ru_utime);
    system = seconds(usage.ru_stime);
  }
};

void measure(std::size_t count, long wanted_steps, const nethack::environment_options& options) {
  nethack::vector_environment games(count, 1, options);
  games.reset();
  std::mt19937 random(1);
  std::vector<nethack::key> keys(count);
  std::vector<nethack::step_result> results(count);
  long steps = 0, episodes = 0;
  const clocks before;
  while (steps < wanted_steps) {
    for (nethack::key& code : keys)
      code = nethack::small_actions[random() % nethack::small_actions.size()].code;
    games.step(keys, results);
    steps += static_cast<long>(count);
    episodes += static_cast<long>(games.finished().size());
  }
  const clocks after;
  const double microseconds = 1e6 / static_cast<double>(steps);
  const double wall = after.wall - before.wall, user = after.user - before.user,
               system = after.system - before.system;
  std::printf("%5zu %10ld %9ld %10.0f %9.1f %9.1f %9.1f %9.1f %9ld\n", count, steps, episodes,
              static_cast<double>(steps) / wall, wall * microseconds, user * microseconds,
              system * microseconds, (wall - user - system) * microseconds, games.replaced());
}

void measure_resets(const nethack::environment_options& options) {
  constexpr int resets = 100;
  nethack::environment game(options);
  double longest = 0;
  const double start = wall_seconds();
  for (int i = 0; i < resets; ++i) {
    const double before = wall_seconds();
    game.reset(static_cast<std::uint64_t>(i));
    longest = std::max(longest, wall_seconds() - before);
  }
  std::printf("%d resets: %.2f ms each, the longest %.2f ms\n", resets,
              (wall_seconds() - start) / resets * 1e3, longest * 1e3);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const long steps = argc > 1 ? std::atol(argv[1]) : 200'000;
    nethack::environment_options options;
    if (argc > 2 && std::string_view(argv[2]) == "nle")
      options.source.backend = nethack::backend::nle;
    std::printf(
        "                                        microseconds per step, of which the parent\n");
    std::printf("games      steps  episodes    steps/s     total   parsing    system   waiting  "
                "replaced\n");
    for (const std::size_t count : {1u, 8u, 32u}) measure(count, steps, options);
    measure_resets(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "nethack_speed: %s\n", error.what());
    return 1;
  }
}
