// SPDX-License-Identifier: MIT
// The state of a policy that starts new episodes.
#pragma once

#include <concepts>
#include <type_traits>

namespace retain {

/// Given to a policy as its state, says: new episodes begin. It converts to any state: to an
/// undefined tensor, to a tuple of undefined tensors, to State{} of a type of one's own. A policy
/// must take this value as the state before the first step of an episode, for example as zeros.
///
///     auto [distribution, next] = policy(observations, new_episodes{}, episode_start);
struct new_episodes {
  template <class State>
    requires(std::default_initializable<State> && std::is_object_v<State> &&
             !std::same_as<std::remove_cv_t<State>, new_episodes>)
  operator State() const {
    return State{};
  }
};

}  // namespace retain
