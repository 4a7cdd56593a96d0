// SPDX-License-Identifier: MIT
// The retention terms of a fine-tuning run.
#pragma once

#include <cstdint>
#include <vector>

#include <retain/behavioral_cloning.hpp>
#include <retain/ewc.hpp>
#include <retain/fisher.hpp>
#include <retain/kickstarting.hpp>
#include <retain/l2_init.hpp>
#include <retain/retention.hpp>
#include <retain/teacher.hpp>

#include <ATen/ATen.h>

#include "policy.hpp"
#include "settings.hpp"
#include "step_batch.hpp"

namespace montezuma {

using retention_terms = retain::retention<visited_steps>;

template <trainable_policy P>
using teacher_of = retain::teacher<P>;
template <trainable_policy P>
using kickstarting_of = retain::kickstarting<teacher_of<P>>;
using policy_teacher = teacher_of<policy>;

/// The logits of a policy on many states, without a graph. Computed for a thousand states at a
/// time, because the intermediate results for pictures are large.
template <trainable_policy P>
at::Tensor logits_of(P& network, const at::Tensor& observations) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> said;
  for (const auto& some : at::split(observations, 1000))
    said.push_back(network->forward(some).logits);
  return at::cat(said);
}

/// Exact, because there are few actions.
template <trainable_policy P>
retain::fisher fisher_of(P& network, const at::Tensor& memory) {
  return retain::estimate_fisher(*network, at::split(memory, 500),
                                 [&](const at::Tensor& batch) { return network->forward(batch); },
                                 retain::exact_actions{}, {.exclude = free_parameters});
}

/// Terms that keep a policy close to `start`, which is copied if needed. `memory` [n, observation]:
/// states of pre-training, for EWC and BC.
template <trainable_policy P>
retention_terms make_retention(P& start, const at::Tensor& memory,
                               const retention_settings& settings, std::uint64_t seed) {
  if (settings.needs_memory() && (!memory.defined() || memory.size(0) == 0))
    throw retain::config_error("EWC and BC need states of pre-training, but the memory is empty");
  retention_terms keep;
  if (settings.l2)
    keep.add(
        retain::l2_init{*start, {.strength = settings.l2_strength, .exclude = free_parameters}});
  if (settings.ewc)
    keep.add(retain::ewc{*start, fisher_of(start, memory), {.strength = settings.ewc_strength}});
  // the teacher never changes, so its outputs on the stored states are stored with them
  if (settings.bc)
    keep.add(retain::behavioral_cloning{
        memory,
        logits_of(start, memory),
        {.strength = settings.bc_strength, .batch_size = settings.bc_batch, .seed = seed}});
  if (settings.ks)
    keep.add(
        retain::kickstarting{teacher_of<P>{start},
                             {.strength = retain::exponential_decay{
                                  .initial = settings.ks_strength, .factor = settings.ks_factor}}});
  return keep;
}

}  // namespace montezuma
