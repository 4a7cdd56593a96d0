// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/new_episodes.hpp>
#include <retain/kernels/gather.hpp>
#include <retain/terms/ask.hpp>
#include <retain/terms/carried_state.hpp>

#include <ATen/ATen.h>

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain {

/// The steps of a rollout, for users without a type of their own. Only `observations` is needed. An
/// undefined tensor is absent.
///
///     retain::steps rollout{.observations = observations, .episode_start = episode_start};
///     auto loss = ppo_loss + keep.loss(student, rollout);
///
/// The rows are [N] for N single steps, or [T, N] for T steps of N environments. A rollout is a
/// sequence [T, N] if episode_start, mask, weights or reference_log_probs has two dimensions.
/// Distributions that are not categorical need a type of one's own for `teacher`; it may derive
/// from this one:
///
///     struct gaussian_steps : retain::steps { retain::diagonal_gaussian teacher; };
///
/// `Observations` is a tensor [N, ...] or [T, N, ...], or any type. `State` is the type of the
/// policy's state, for example a tuple of two tensors.
template <class Observations = at::Tensor, class State = at::Tensor>
struct basic_steps {
  Observations observations;
  at::Tensor actions = {};        ///< [N] or [T, N], or with one more dimension
  at::Tensor mask = {};           ///< 1 for a valid step, 0 for padding
  at::Tensor weights = {};        ///< the weight of each step, not negative
  at::Tensor episode_start = {};  ///< 1 at the first step of an episode, where a state is reset
  State state = {};               ///< the policy's state before the first step
  at::Tensor teacher = {};        ///< the teacher's logits for these steps, [..., actions]
  /// the logits of several teachers; an empty list is absent
  std::vector<at::Tensor> teachers = {};
  at::Tensor reference_log_probs = {};  ///< log pi*(a|s) of the actions

  /// The dimension of the N environments or single steps: 1 for sequences [T, N], otherwise 0.
  std::int64_t dimension() const {
    for (const auto* rows : {&episode_start, &mask, &weights, &reference_log_probs})
      if (rows->defined()) return rows->dim() == 2 ? 1 : 0;
    return 0;
  }
  /// Returns N.
  std::int64_t size() const
    requires requires(const Observations& o) { o.size(std::int64_t{0}); }
  {
    return observations.dim() > dimension() ? observations.size(dimension()) : 0;
  }

  /// Returns the environments (or single steps) [start, start + length). `Observations` needs
  /// narrow(dimension, start, length). The first dimension of every tensor of the state must be N.
  /// Throws shape_error if a member has another N.
  basic_steps narrow(std::int64_t start, std::int64_t length) const
    requires requires(const Observations& o, std::int64_t i) { o.narrow(i, i, i); }
  {
    return chosen(
        [&](const auto& all, std::int64_t along) { return all.narrow(along, start, length); });
  }
  /// Returns the environments (or single steps) at `indices`, int64 [n]. Single steps may also be
  /// gathered into sequences by indices [L, n]. Otherwise like narrow.
  basic_steps gather(const at::Tensor& indices) const
    requires std::convertible_to<const Observations&, const at::Tensor&>
  {
    if (indices.dim() != 1 && (dimension() != 0 || indices.dim() != 2))
      throw shape_error(detail::concat("steps: indices of sequences need the shape [n], got ",
                                       detail::shape_text(indices.sizes())));
    auto result = chosen([&](const at::Tensor& all, std::int64_t along) {
      return along == 0 ? detail::gather_rows(all, indices)
                        : all.index_select(along, indices.to(all.device()));
    });
    if (indices.dim() != 2) return result;
    // Sequences begin with the state of their first step, and a member says that they are
    // sequences.
    detail::each_part(result.state, [](auto& part) {
      if constexpr (detail::is_tensor<std::remove_reference_t<decltype(part)>>)
        if (part.defined()) part = part.select(0, 0);
    });
    if (result.dimension() == 0) result.mask = at::ones(indices.sizes(), at::kBool);
    return result;
  }

 private:
  template <class Choose>
  basic_steps chosen(Choose choose) const {
    const std::int64_t along = dimension(), n = size();
    const auto of = [&](const char* name, const at::Tensor& all, std::int64_t where) {
      if (!all.defined()) return all;
      if (all.dim() <= where || all.size(where) != n)
        throw shape_error(detail::concat("steps: ", name, " of shape ",
                                         detail::shape_text(all.sizes()), " do not fit N = ", n,
                                         " in dimension ", where));
      return at::Tensor(choose(all, where));
    };
    basic_steps result{.observations = choose(observations, along)};
    result.actions = of("actions", actions, along);
    result.mask = of("mask", mask, along);
    result.weights = of("weights", weights, along);
    result.episode_start = of("episode_start", episode_start, along);
    result.teacher = of("the teacher's logits", teacher, along);
    for (const auto& one : teachers)
      result.teachers.push_back(of("the teachers' logits", one, along));
    result.reference_log_probs = of("reference_log_probs", reference_log_probs, along);
    result.state = state;
    detail::each_part(result.state, [&](auto& part) {
      if constexpr (detail::is_tensor<std::remove_reference_t<decltype(part)>>)
        part = of("the state's tensors", part, 0);
      else
        throw config_error("steps: a state with save_state and load_state cannot be split into "
                           "environments");
    });
    return result;
  }
};

using steps = basic_steps<>;

namespace detail {

template <class T>
struct is_steps : std::false_type {};
template <class Observations, class State>
struct is_steps<basic_steps<Observations, State>> : std::true_type {};

/// Asks a policy about a batch: retain::steps, or observations alone.
template <class Policy, class Batch>
auto ask_batch(Policy& policy, const Batch& batch) {
  if constexpr (is_steps<Batch>::value)
    return ask(policy, batch);
  else
    return call(policy, batch);
}

}  // namespace detail
}  // namespace retain
