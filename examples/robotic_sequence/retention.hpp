// SPDX-License-Identifier: MIT
// The retention terms of the actor; episodic memory is in the buffer.
#pragma once

#include <algorithm>
#include <cstdint>

#include <retain/behavioral_cloning.hpp>
#include <retain/diagonal_gaussian.hpp>
#include <retain/ewc.hpp>
#include <retain/fisher.hpp>
#include <retain/kickstarting.hpp>
#include <retain/l2_init.hpp>
#include <retain/retention.hpp>
#include <retain/tanh_gaussian.hpp>
#include <retain/teacher.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "agent.hpp"
#include "settings.hpp"

namespace robotic_sequence {

/// The actor's distributions on stored states: the fixed target of cloning.
struct stored_gaussians {
  at::Tensor mean, log_std;  ///< [n, actions]

  std::int64_t size() const { return mean.size(0); }
  retain::tanh_gaussian gather(const at::Tensor& indices) const {
    return {mean.index_select(0, indices), log_std.index_select(0, indices)};
  }
};

inline stored_gaussians answers_of(actor_network& actor, const at::Tensor& observations) {
  const at::NoGradGuard no_grad;
  const auto said = actor->forward(observations);
  return {said.unsquashed().mean().contiguous(), said.unsquashed().log_std().contiguous()};
}

/// The Fisher information of the actor over stored states, exact over the actions.
inline retain::fisher fisher_of(actor_network& actor, const at::Tensor& observations,
                                fisher_kind kind) {
  const auto batches = at::split(observations, 256);
  if (kind == fisher_kind::gaussian)
    return retain::estimate_fisher(
        *actor, batches,
        [&](const at::Tensor& batch) { return actor->forward(batch).unsquashed(); },
        retain::exact_actions{});
  return retain::estimate_fisher(*actor, batches,
                                 [&](const at::Tensor& batch) {
                                   const auto said = actor->forward(batch);
                                   return retain::diagonal_gaussian{said.unsquashed().mean().tanh(),
                                                                    said.unsquashed().log_std()};
                                 },
                                 retain::exact_actions{}, {.exclude = {"policy_head.*"}});
}

/// What kickstarting needs of a batch.
struct visited_steps {
  at::Tensor observations;
};
using retention_terms = retain::retention<visited_steps, retain::tanh_gaussian>;

/// Terms that keep an actor close to `start`. `states` [n, observation]: of pre-training, in random
/// order.
inline retention_terms make_retention(actor_network& start, const at::Tensor& states,
                                      const retention_settings& settings, std::uint64_t seed) {
  retention_terms keep;
  if (settings.l2) keep.add(retain::l2_init{*start, {.strength = settings.l2_strength}});
  if (settings.ewc) {
    const auto seen = states.narrow(0, 0, std::min(settings.fisher_states, states.size(0)));
    retain::ewc_options options{.strength = settings.ewc_strength};
    if (settings.fisher == fisher_kind::continual_world) options.floor = 1e-5;
    keep.add(retain::ewc{*start, fisher_of(start, seen, settings.fisher), options});
  }
  if (settings.bc) {
    const auto kept = states.narrow(0, 0, std::min(settings.memory, states.size(0)));
    keep.add(retain::behavioral_cloning{
        kept,
        answers_of(start, kept),
        {.strength = settings.bc_strength, .batch_size = settings.bc_batch, .seed = seed}});
  }
  if (settings.ks)
    keep.add(
        retain::kickstarting{retain::teacher{start},
                             {.strength = retain::exponential_decay{
                                  .initial = settings.ks_strength, .factor = settings.ks_factor}}});
  return keep;
}

}  // namespace robotic_sequence
