// SPDX-License-Identifier: MIT
// The members of a rollout: which are read, and which are refused because they look like them.
#pragma once

#include <ATen/core/Tensor.h>

namespace retain::detail {

/// Refuses, when compiling, a rollout without observations, and members whose names look like those
/// that the terms read. An unknown member is ignored; so is a look-alike beside the right name.
template <class Rollout>
constexpr void check_rollout() {
  constexpr bool observations = requires(const Rollout& r) { r.observations; };
  constexpr bool obs = requires(const Rollout& r) { r.obs; };
  constexpr bool observation = requires(const Rollout& r) { r.observation; };
  constexpr bool told = requires(const Rollout& r) { r.episode_start; } ||
                        requires(const Rollout& r) { r.terminated; };
  static_assert(observations || !obs, "rollout.obs: name this member observations");
  static_assert(observations || !observation, "rollout.observation: name this member observations");
  static_assert(observations || obs || observation, "a rollout needs a member observations");
  static_assert(
      told || !requires(const Rollout& r) { r.done; },
      "rollout.done is ambiguous: name this member episode_start (1 at the first step of "
      "an episode) or terminated (1 at the last step)");
  static_assert(
      told || !requires(const Rollout& r) { r.dones; },
      "rollout.dones is ambiguous: name this member episode_start (1 at the first step "
      "of an episode) or terminated (1 at the last step)");
  static_assert(
      requires(const Rollout& r) { r.episode_start; } ||
          !requires(const Rollout& r) { r.episode_starts; },
      "rollout.episode_starts: name this member episode_start");
  static_assert(
      requires(const Rollout& r) { r.mask; } || !requires(const Rollout& r) { r.masks; },
      "rollout.masks: name this member mask (1 for a valid step, 0 for padding)");
  static_assert(
      requires(const Rollout& r) { r.weights; } || !requires(const Rollout& r) { r.weight; },
      "rollout.weight: name this member weights");
  static_assert(
      requires(const Rollout& r) { r.state; } || !requires(const Rollout& r) { r.states; },
      "rollout.states: name this member state (the policy's state before the first step)");
  static_assert(
      requires(const Rollout& r) { r.actions; } || !requires(const Rollout& r) { r.action; },
      "rollout.action: name this member actions");
  static_assert(
      requires(const Rollout& r) { r.reference_log_probs; } ||
          !requires(const Rollout& r) { r.reference_log_prob; },
      "rollout.reference_log_prob: name this member reference_log_probs");
}

// Undefined if the rollout has no such member.
template <class Rollout>
at::Tensor rollout_mask(const Rollout& rollout) {
  if constexpr (requires { rollout.mask; })
    return rollout.mask;
  else
    return {};
}
template <class Rollout>
at::Tensor rollout_weights(const Rollout& rollout) {
  if constexpr (requires { rollout.weights; })
    return rollout.weights;
  else
    return {};
}
template <class Rollout>
at::Tensor rollout_episode_start(const Rollout& rollout) {
  if constexpr (requires { rollout.episode_start; })
    return rollout.episode_start;
  else
    return {};
}

}  // namespace retain::detail
