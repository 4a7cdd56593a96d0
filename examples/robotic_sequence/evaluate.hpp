// SPDX-License-Identifier: MIT
// Measures how often a policy solves each stage alone, and all stages in one episode.
#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "agent.hpp"
#include "learner.hpp"
#include "sequence.hpp"

namespace robotic_sequence {

/// Returns the share of `episodes` that are solved from the start of `stage`. Without `onward` an
/// episode is this stage alone; with `onward` it includes all later stages. `play` maps
/// observations [n, observation_width] to actions [n, action_size]. Equal seeds give equal starts.
template <class Play>
  requires std::invocable<Play&, const at::Tensor&>
double success_from(Play&& play, const std::vector<stage_kind>& stages, int stage, bool onward,
                    int episodes, std::uint64_t seed) {
  std::vector<sequence> playing;
  for (int i = 0; i < episodes; ++i) {
    playing.emplace_back(stages, seed * 1'000'003u + static_cast<std::uint64_t>(i));
    playing.back().start(stage);
  }
  int solved = 0;
  while (!playing.empty()) {
    const auto observations =
        at::empty({static_cast<std::int64_t>(playing.size()), observation_width});
    for (std::size_t i = 0; i < playing.size(); ++i)
      write_observation(playing[i], observations.data_ptr<float>() +
                                        i * static_cast<std::size_t>(observation_width));
    const at::Tensor actions = play(observations);
    for (std::size_t i = 0; i < playing.size(); ++i) {
      const auto said = playing[i].step(actions.data_ptr<float>() + i * sequence::action_size);
      if (said.success && !(onward && playing[i].advance())) ++solved;
    }
    std::erase_if(playing, [](const sequence& each) { return each.over(); });
  }
  return static_cast<double>(solved) / static_cast<double>(episodes);
}

/// The success of a policy that plays its mode.
inline double success_from(actor_network actor, const std::vector<stage_kind>& stages, int stage,
                           bool onward, int episodes, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  return success_from(
      [&](const at::Tensor& seen) { return actor->forward(seen).mode().contiguous(); }, stages,
      stage, onward, episodes, seed);
}

/// The success by stage, and as "all" the success in the whole sequence.
inline std::map<std::string, double> measure_success(const actor_network& actor,
                                                     const std::vector<stage_kind>& stages,
                                                     int episodes, std::uint64_t seed) {
  std::map<std::string, double> share;
  for (int stage = 0; stage < static_cast<int>(stages.size()); ++stage)
    share[name_of(stages[static_cast<std::size_t>(stage)])] = success_from(
        actor, stages, stage, false, episodes, seed + static_cast<std::uint64_t>(stage));
  share["all"] = success_from(actor, stages, 0, true, episodes, seed + 17);
  return share;
}

}  // namespace robotic_sequence
