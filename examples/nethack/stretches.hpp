// SPDX-License-Identifier: MIT
// Demonstrated states as a policy is to be asked about them: one by one, or as stretches of play
// where it is recurrent.
#pragma once

#include "policy.hpp"

#include <retain/categorical.hpp>
#include <retain/concepts.hpp>
#include <retain/error.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

namespace nethack {

/// A recurrent policy is asked about so many steps in a row, from the state of a new game. What it
/// says in the first few, before it has seen enough to be in a state that play would have brought
/// it to, does not count, unless a game begins there.
inline constexpr std::int64_t stretch_steps = 32, settling_steps = 8;

inline std::int64_t stretch_length(const policy& network) {
  return network->recurrent() ? stretch_steps : 1;
}
/// How many stretches hold `states` states, at least one.
inline std::int64_t stretches_for(const policy& network, std::int64_t states) {
  return std::max<std::int64_t>(1, states / stretch_length(network));
}

/// `states` [n, ...] in the order of play; as they are for a feed-forward policy, else [n /
/// stretch_steps, stretch_steps, ...], of which the first dimension can be drawn from.
inline at::Tensor in_stretches(const policy& network, const at::Tensor& states) {
  if (!network->recurrent()) return states;
  const auto count = states.size(0) / stretch_steps;
  auto sizes = states.sizes().vec();
  sizes[0] = stretch_steps;
  sizes.insert(sizes.begin(), count);
  return states.narrow(0, 0, count * stretch_steps).view(sizes);
}

/// Which steps of `stretches` count, as bool: [n] or [n, stretch_steps].
inline at::Tensor settled_steps(const at::Tensor& stretches) {
  const auto first = first_steps(stretches);
  if (first.dim() == 1) return at::ones_like(first, at::kBool);
  return first.cumsum(1).gt(0).logical_or(at::arange(first.size(1)).ge(settling_steps));
}

/// What `network` says of what in_stretches made, in that shape. Every single state counts; of
/// stretches the mask says which steps. Throws config_error where a recurrent policy is asked about
/// single states.
inline retain::masked<retain::categorical> answer(policy& network, const at::Tensor& stretches) {
  if (stretches.dim() == 2 && network->recurrent())
    throw retain::config_error("a recurrent policy cannot be compared with a feed-forward one on "
                               "single states: its teacher must be recurrent too");
  if (stretches.dim() == 2) return {retain::categorical{network->logits(stretches)}, {}};
  return {retain::categorical{network->logits(stretches.transpose(0, 1)).transpose(0, 1)},
          settled_steps(stretches)};
}

}  // namespace nethack
