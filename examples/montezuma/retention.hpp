// SPDX-License-Identifier: MIT
// The retention terms of a fine-tuning run.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <retain/behavioral_cloning.hpp>
#include <retain/compose.hpp>
#include <retain/ewc.hpp>
#include <retain/fisher.hpp>
#include <retain/kickstarting.hpp>
#include <retain/l2_init.hpp>
#include <retain/teacher.hpp>

#include <ATen/ATen.h>

#include "policy.hpp"
#include "settings.hpp"

namespace montezuma {

template <trainable_policy P>
using teacher_of = retain::teacher<P>;
template <trainable_policy P>
using retention_of =
    retain::composition<std::optional<retain::l2_init>, std::optional<retain::ewc>,
                        std::optional<retain::behavioral_cloning<at::Tensor, at::Tensor>>,
                        std::optional<retain::kickstarting<teacher_of<P>>>>;
using policy_teacher = teacher_of<policy>;
using retention_terms = retention_of<policy>;
inline constexpr std::size_t kickstarting_term = 3;  ///< its index in retention_terms

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
retention_of<P> make_retention(P& start, const at::Tensor& memory,
                               const retention_settings& settings, std::uint64_t seed) {
  if (settings.needs_memory() && (!memory.defined() || memory.size(0) == 0))
    throw retain::config_error("EWC and BC need states of pre-training, but the memory is empty");
  std::optional<retain::l2_init> l2;
  std::optional<retain::ewc> ewc;
  std::optional<retain::behavioral_cloning<at::Tensor, at::Tensor>> cloning;
  std::optional<retain::kickstarting<teacher_of<P>>> kickstarting;
  if (settings.l2)
    l2.emplace(*start, retain::l2_init_options{.strength = settings.l2_strength,
                                               .exclude = free_parameters});
  if (settings.ewc)
    ewc.emplace(*start, fisher_of(start, memory),
                retain::ewc_options{.strength = settings.ewc_strength, .exclude = free_parameters});
  // the teacher never changes, so its outputs on the stored states are stored with them
  if (settings.bc)
    cloning.emplace(
        memory, logits_of(start, memory),
        retain::behavioral_cloning_options{
            .strength = settings.bc_strength, .batch_size = settings.bc_batch, .seed = seed});
  if (settings.ks)
    kickstarting.emplace(teacher_of<P>{start},
                         retain::kickstarting_options{
                             .strength = retain::exponential_decay{.initial = settings.ks_strength,
                                                                   .factor = settings.ks_factor}});
  return retain::compose(std::move(l2), std::move(ewc), std::move(cloning),
                         std::move(kickstarting));
}

}  // namespace montezuma
