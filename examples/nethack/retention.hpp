// SPDX-License-Identifier: MIT
// The retention terms of a fine-tuning run.
#pragma once

#include "finetune_options.hpp"
#include "policy.hpp"
#include "rollout.hpp"
#include "stretches.hpp"

#include <retain/behavioral_cloning.hpp>
#include <retain/ewc.hpp>
#include <retain/fisher.hpp>
#include <retain/kickstarting.hpp>
#include <retain/l2_init.hpp>
#include <retain/retention.hpp>
#include <retain/teacher.hpp>

#include <algorithm>
#include <cstdint>
#include <random>
#include <tuple>
#include <vector>

namespace nethack {

/// Evaluates the teacher along the student's play. The records themselves mark the first steps of
/// games.
struct ask_actions {
  std::tuple<retain::categorical, at::Tensor> operator()(
      policy& network, const at::Tensor& observations, const at::Tensor& state,
      const at::Tensor& /*episode_start*/) const {
    auto [logits, next] = network->follow(observations, state);
    return {retain::categorical{logits}, next};
  }
};
using policy_teacher = retain::teacher<policy, ask_actions>;

using kickstarting_term = retain::kickstarting<policy_teacher>;
using retention_terms = retain::retention<distilled_steps>;

/// The value head is new and not constrained, because retention applies to the policy only.
inline const std::vector<std::string> free_parameters{"value_head.*"};

namespace detail {

/// Different states, drawn with a seed. For a recurrent policy, stretches with about `states`
/// states. All states if there are fewer.
inline at::Tensor draw_states(const policy& network, const at::Tensor& demonstrations,
                              std::int64_t states, std::uint64_t seed) {
  const auto observations = in_stretches(network, demonstrations);
  const auto count = stretches_for(network, states);
  std::vector<std::int64_t> indices(static_cast<std::size_t>(observations.size(0)));
  for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<std::int64_t>(i);
  std::mt19937_64 dice(seed);
  std::shuffle(indices.begin(), indices.end(), dice);
  indices.resize(std::min(indices.size(), static_cast<std::size_t>(count)));
  return observations.index_select(0, at::tensor(indices, at::kLong));
}

/// Batches of about `states` states each.
inline std::vector<at::Tensor> in_batches(const policy& network, const at::Tensor& observations,
                                          std::int64_t states) {
  return at::split(observations, stretches_for(network, states));
}

}  // namespace detail

/// The diagonal Fisher information of `network` on demonstrated states. For a recurrent policy it
/// is computed from the scores of whole stretches.
inline retain::fisher fisher_of(policy& network, const at::Tensor& demonstrations,
                                const retention_options& options, std::uint64_t seed) {
  network->eval();
  const auto batches = detail::in_batches(
      network, detail::draw_states(network, demonstrations, options.ewc_states, seed), 250);
  return retain::estimate_fisher(*network, batches,
                                 [&](const at::Tensor& batch) { return answer(network, batch); },
                                 retain::sampled_actions{.per_state = 1, .seed = seed},
                                 {.exclude = free_parameters, .sample_dimension = 0});
}

/// Terms that keep a policy close to `start`, which is copied if needed. `demonstrations` [n,
/// sizeof(features)], in the order of play, are for EWC and BC.
inline retention_terms make_retention(policy& start, const at::Tensor& demonstrations,
                                      const retention_options& options, std::uint64_t seed) {
  if (options.needs_demonstrations() && (!demonstrations.defined() || demonstrations.size(0) == 0))
    throw retain::config_error("EWC and BC need demonstrations, but the list is empty");
  retention_terms keep;
  if (options.l2)
    keep.add(
        retain::l2_init{*start, {.strength = options.l2_strength, .exclude = free_parameters}});
  if (options.ewc)
    keep.add(retain::ewc{*start,
                         fisher_of(start, demonstrations, options, seed),
                         {.strength = options.ewc_strength}});
  if (options.behavioral_cloning) {
    // The teacher never changes, so its outputs on the stored states are stored with them.
    const auto states = detail::draw_states(start, demonstrations, options.bc_states, seed);
    std::vector<at::Tensor> logits;
    const at::NoGradGuard no_grad;
    for (const auto& batch : detail::in_batches(start, states, 2048))
      logits.push_back(answer(start, batch).distribution.logits);
    keep.add(retain::behavioral_cloning{states,
                                        at::cat(logits),
                                        {.strength = options.bc_strength,
                                         .batch_size = stretches_for(start, options.bc_batch_size),
                                         .seed = seed}});
  }
  if (options.kickstarting)
    keep.add(
        retain::kickstarting{policy_teacher{start, ask_actions{}},
                             {.strength = retain::exponential_decay{.initial = options.ks_strength,
                                                                    .factor = options.ks_factor,
                                                                    .floor = options.ks_floor}}});
  return keep;
}

}  // namespace nethack
