// SPDX-License-Identifier: MIT
// Demonstrated states as the input of a policy: single states, or stretches of play for a recurrent
// policy.
#pragma once

#include "policy.hpp"

#include <retain/categorical.hpp>
#include <retain/concepts.hpp>
#include <retain/error.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

namespace nethack {

/// A recurrent policy is evaluated on this many steps in a row, from the state of a new game. Its
/// outputs on the first steps do not count, because its state does not yet match the play before
/// them. They do count if a game starts there.
inline constexpr std::int64_t stretch_steps = 32, settling_steps = 8;

inline std::int64_t stretch_length(const policy& network) {
  return network->recurrent() ? stretch_steps : 1;
}
/// The number of stretches for `states` states, at least one.
inline std::int64_t stretches_for(const policy& network, std::int64_t states) {
  return std::max<std::int64_t>(1, states / stretch_length(network));
}

/// `states` [n, ...] in the order of play. Unchanged for a feed-forward policy; otherwise [n /
/// stretch_steps, stretch_steps, ...], from whose first dimension batches can be drawn.
inline at::Tensor in_stretches(const policy& network, const at::Tensor& states) {
  if (!network->recurrent()) return states;
  const auto count = states.size(0) / stretch_steps;
  auto sizes = states.sizes().vec();
  sizes[0] = stretch_steps;
  sizes.insert(sizes.begin(), count);
  return states.narrow(0, 0, count * stretch_steps).view(sizes);
}

/// The steps of `stretches` that count, as bool: [n] or [n, stretch_steps].
inline at::Tensor settled_steps(const at::Tensor& stretches) {
  const auto first = first_steps(stretches);
  if (first.dim() == 1) return at::ones_like(first, at::kBool);
  return first.cumsum(1).gt(0).logical_or(at::arange(first.size(1)).ge(settling_steps));
}

/// The logits of `network` on the result of in_stretches, in the same shape. Every single state
/// counts; for stretches the mask shows which steps count. Throws config_error if a recurrent
/// policy gets single states.
inline retain::masked<retain::categorical> answer(policy& network, const at::Tensor& stretches) {
  if (stretches.dim() == 2 && network->recurrent())
    throw retain::config_error("a recurrent policy cannot be compared with a feed-forward one on "
                               "single states: its teacher must be recurrent too");
  if (stretches.dim() == 2) return {retain::categorical{network->logits(stretches)}, {}};
  return {retain::categorical{network->logits(stretches.transpose(0, 1)).transpose(0, 1)},
          settled_steps(stretches)};
}

}  // namespace nethack
