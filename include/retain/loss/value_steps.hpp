// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/marks.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>

#include <string>

namespace retain {

/// The steps that gae(), two_stream_gae() and vtrace() estimate advantages from: T steps of N
/// environments. The words are those of Gymnasium.
///
///     gae({.rewards = r, .values = v, .last_value = w, .terminated = end,
///          .truncated = cut, .truncated_values = critic_of_final_observations});
///
/// An episode ends in two ways. `terminated`: the task itself ends, and no reward can follow.
/// `truncated`: the episode is cut from outside, for example by a limit of steps that the
/// observation does not show. The task could go on, so the value of the state that was cut off
/// counts. A vector environment that resets at once shows the first state of the next episode
/// instead; ask it for the final observation (`final_obs` in Gymnasium's info), and the critic for
/// its value. A recurrent critic gets the state that it had after the truncated step.
///
/// With V'_t, the value of the state after step t,
///
///     V'_t = 0                       if terminated, also if truncated at the same step
///     V'_t = truncated_values_t      if truncated only
///     V'_t = V_{t+1}, V_T = last_value    otherwise
///
/// nothing passes from one episode to the one before it. Only the values that this formula reads
/// count; all other values after an end, and all other truncated_values, may be anything, also NaN.
///
/// If no state is at hand where an episode was cut, V of the truncated step itself is a usable
/// substitute: `.truncated_values = values`. A limit that belongs to the task, and whose remaining
/// time the observation shows, is terminal (Pardo et al. 2018, arXiv 1712.00378).
///
/// terminated and truncated are bool, or 0 and 1 in any type. On the CPU other numbers are refused.
/// On other devices this check would wait for the device, so there every number but 0 marks an end.
struct value_steps {
  at::Tensor rewards = {};     ///< [T, N]: the reward of the action of step t
  at::Tensor values = {};      ///< [T, N]: V of the state before this action
  at::Tensor last_value = {};  ///< [N]: V of the state after the last step
  at::Tensor terminated = {};  ///< [T, N]: 1 at the step that ended the task
  at::Tensor truncated = {};   ///< [T, N]: 1 at the step after which the episode was cut; optional
  at::Tensor truncated_values = {};  ///< [T, N]: V of the state that was cut off; with `truncated`
  /// [T, N]: multiplies gamma at step t, for actions that take different times; optional
  at::Tensor discounts = {};
};

namespace detail {

/// value_steps, checked and converted to the type of the values, without graph.
struct checked_steps {
  at::Tensor now, last;   // [T, N] and [1, N]
  at::Tensor terminated;  // bool
  at::Tensor truncated;   // bool, or undefined if the caller gave none
  at::Tensor cut_off;     // the value of a state that was cut off
  // 0 at an end, else 1, times the discounts of the steps
  at::Tensor going_on;      // terminated is an end
  at::Tensor same_episode;  // terminated and truncated are ends

  /// Returns the value of the state after each step. `all` [T, N] replaces V, as V-trace needs it.
  at::Tensor following(const at::Tensor& all) const {
    auto next = at::cat({all.slice(0, 1), last});
    if (truncated.defined()) next = at::where(truncated, cut_off, next);
    // The value after an end may be NaN, and 0 times NaN is NaN: replace the value by 0.
    return next.masked_fill(terminated, 0);
  }
};

/// Call under a NoGradGuard. Without ends, `terminated` and `truncated` must be undefined.
inline checked_steps check_steps(const char* who, const value_steps& given, bool with_ends = true) {
  const auto shape = [](const at::Tensor& x) {
    return x.defined() ? shape_text(x.sizes()) : std::string("none");
  };
  const auto& rewards = given.rewards;
  if (!rewards.defined() || !given.values.defined() || rewards.dim() != 2 ||
      given.values.sizes() != rewards.sizes())
    throw shape_error(concat(who, ": rewards and values must have one shape [T, N], got ",
                             shape(rewards), " and ", shape(given.values)));
  if (!given.last_value.defined() || given.last_value.dim() != 1 ||
      given.last_value.size(0) != rewards.size(1))
    throw shape_error(concat(who, ": last_value must have shape [", rewards.size(1),
                             "], one per environment, got ", shape(given.last_value)));
  if (with_ends && (!given.terminated.defined() || given.terminated.sizes() != rewards.sizes()))
    throw shape_error(concat(who, ": terminated must have the shape of rewards, ", shape(rewards),
                             ", zeros if no episode ends; got ", shape(given.terminated)));
  if (given.truncated.defined() != given.truncated_values.defined())
    throw config_error(
        concat(who, given.truncated.defined()
                        ? ": truncated needs truncated_values, the critic's value of each state "
                          "that was cut off, in the shape of values (other steps may hold anything)"
                        : ": truncated_values need truncated, which marks the steps they belong "
                          "to"));
  if (given.truncated.defined() && (given.truncated.sizes() != rewards.sizes() ||
                                    given.truncated_values.sizes() != rewards.sizes()))
    throw shape_error(concat(
        who, ": truncated and truncated_values must have the shape of rewards, ", shape(rewards),
        ", got ", shape(given.truncated), " and ", shape(given.truncated_values)));
  if (given.discounts.defined() && given.discounts.sizes() != rewards.sizes())
    throw shape_error(concat(who, ": discounts must have the shape of rewards, ", shape(rewards),
                             ", got ", shape(given.discounts)));

  checked_steps all;
  all.now = given.values.detach();
  const auto type = all.now.scalar_type();
  all.last = given.last_value.detach().to(type).unsqueeze(0);
  all.terminated =
      with_ends ? marked(who, "terminated", given.terminated) : at::zeros_like(all.now, at::kBool);
  all.going_on = all.same_episode = 1 - all.terminated.to(type);
  if (given.truncated.defined()) {
    all.truncated = marked(who, "truncated", given.truncated);
    all.cut_off = given.truncated_values.detach().to(type);
    all.same_episode = 1 - all.terminated.logical_or(all.truncated).to(type);
  }
  if (given.discounts.defined()) {
    const auto factor = given.discounts.detach().to(type);
    all.going_on = all.going_on * factor;
    all.same_episode = all.same_episode * factor;
  }
  return all;
}

}  // namespace detail

}  // namespace retain
