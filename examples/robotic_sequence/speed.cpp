// SPDX-License-Identifier: MIT
// How fast the world is: random decisions in each stage, with an observation after each.
//   robotic_sequence_speed [decisions of a stage]
// `taskset -c 0` measures on one core. The sum keeps the compiler from leaving the observations out.
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>

#include "sequence.hpp"

namespace {

using robotic_sequence::sequence;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void measure(int stage, long decisions) {
  sequence world(robotic_sequence::all_stages, 1);
  world.start(stage);
  std::mt19937 dice(1);
  std::uniform_real_distribution<float> torque(-1, 1);
  std::array<float, sequence::observation_size> seen;
  long attempts = 1, solved = 0;
  double sum = 0;
  const double start = seconds();
  for (long i = 0; i < decisions; ++i) {
    if (world.over()) {
      world.start(stage);
      ++attempts;
    }
    const std::array action{torque(dice), torque(dice)};
    solved += world.step(action.data()).success;
    world.observe(seen.data());
    sum += static_cast<double>(seen[4]);
  }
  const double passed = seconds() - start;
  std::printf("%-10s %9ld %9ld %9ld %12.0f %9.2f   (%g)\n", name_of(world.kind()), decisions, attempts, solved,
              static_cast<double>(decisions) / passed, passed / static_cast<double>(decisions) * 1e6, sum);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const long decisions = argc > 1 ? std::atol(argv[1]) : 100'000;
    std::printf("stage      decisions  attempts    solved  decisions/s  us/decision   (checksum)\n");
    for (int stage = 0; stage < static_cast<int>(robotic_sequence::all_stages.size()); ++stage) measure(stage, decisions);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "robotic_sequence_speed: %s\n", error.what());
    return 1;
  }
}
