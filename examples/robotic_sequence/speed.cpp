// SPDX-License-Identifier: MIT
// Measures the speed of the world and of the learner: random decisions in each stage, with an
// observation after each, then decisions with one update each. `taskset -c 0` measures on one core.
// The sum prevents the compiler from removing the observations.
#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <random>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "../common/memory.hpp"
#include "agent.hpp"
#include "learner.hpp"
#include "retention.hpp"
#include "sequence.hpp"

namespace {

using namespace robotic_sequence;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void measure_world(int stage, long decisions) {
  sequence world(all_stages, 1);
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
  std::printf("%-10s %9ld %9ld %9ld %12.0f %9.2f   (%g)\n", name_of(world.kind()), decisions,
              attempts, solved, static_cast<double>(decisions) / passed,
              passed / static_cast<double>(decisions) * 1e6, sum);
}

/// A policy with its own weights as the teacher, and random states. The cost does not depend on the
/// states.
void measure_learner(const char* method, long updates) {
  training_settings settings;
  retention_settings kept;
  kept.choose(method);
  std::vector<bool> known(static_cast<std::size_t>(kinds), false);
  sac_agent agent(settings.agent, known, 1);
  const auto kind = at::randint(kinds, {kept.memory});
  const auto states = at::cat({at::randn({kept.memory, sequence::observation_size}),
                               at::one_hot(kind, kinds).to(at::kFloat)},
                              1);
  retain::transitions protected_rows;
  if (kept.em)
    protected_rows = {{"observation", states},
                      {"action", at::zeros({kept.memory, sequence::action_size})},
                      {"reward", at::zeros({kept.memory})},
                      {"next", states},
                      {"ended", at::zeros({kept.memory})}};
  auto actor = agent.actor();
  auto terms = make_retention(actor, states, kept, 1);
  learner learning(agent, tail(4), settings, episode_kind::whole, protected_rows, std::move(terms),
                   kept);
  const long warm_up = settings.learn_after + 500;
  for (long i = 0; i < warm_up; ++i) learning.step();
  learning.start_clock();
  for (long i = 0; i < updates; ++i) learning.step();
  std::printf("%-10s %9ld %12.0f %12.0f\n", method, updates, learning.updates_per_second(),
              learning.steps_per_second());
}

/// Returns the argument at this place, a whole number above 0, or `otherwise` if there is no such
/// argument. Throws for any other text.
long number(int argc, char** argv, int place, long otherwise) {
  if (argc <= place) return otherwise;
  const std::string_view text = argv[place];
  long value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1)
    throw std::invalid_argument(argv[place]);
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  long decisions = 0, updates = 0;
  try {
    decisions = number(argc, argv, 1, 100'000);
    updates = number(argc, argv, 2, 5'000);
    if (argc > 3) throw std::invalid_argument(argv[3]);
  } catch (const std::invalid_argument& wrong) {
    std::fprintf(stderr,
                 "usage: robotic_sequence_speed [decisions of a stage] [updates of a method], "
                 "whole numbers above 0, not '%s'\n",
                 wrong.what());
    return 2;
  }
  training::keep_freed_memory();
  at::globalContext().setFlushDenormal(true);
  at::set_num_threads(1);
  at::set_num_interop_threads(1);
  try {
    std::printf(
        "stage      decisions  attempts    solved  decisions/s  us/decision   (checksum)\n");
    for (int stage = 0; stage < static_cast<int>(all_stages.size()); ++stage)
      measure_world(stage, decisions);
    std::printf("\nretention    updates    updates/s      steps/s\n");
    for (const char* method : {"none", "l2", "ewc", "bc", "em", "bc+em", "ks"})
      measure_learner(method, updates);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "robotic_sequence_speed: %s\n", error.what());
    return 1;
  }
}
