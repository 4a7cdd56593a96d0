// SPDX-License-Identifier: MIT
// The steps of a rollout, as rows that an update shuffles and splits.
#pragma once

#include <cstdint>

#include <retain/categorical.hpp>

#include <ATen/ATen.h>

namespace montezuma {

/// The states on which kickstarting evaluates its teacher, once per rollout; and the rows of a
/// minibatch, with the teacher's outputs.
struct visited_states_only {
  at::Tensor observations;
};
struct visited_steps {
  at::Tensor observations;
  retain::categorical teacher;
};

/// The rows of steps that an epoch shuffles.
struct step_batch {
  at::Tensor observations, next_observations, actions, log_probs, advantages, returns,
      teacher_logits;

  step_batch select(const at::Tensor& order) const {
    const auto pick = [&](const at::Tensor& rows) {
      return rows.defined() ? rows.index_select(0, order) : rows;
    };
    return {pick(observations), pick(next_observations), pick(actions),       pick(log_probs),
            pick(advantages),   pick(returns),           pick(teacher_logits)};
  }
  step_batch part(std::int64_t from, std::int64_t count) const {
    const auto cut = [&](const at::Tensor& rows) {
      return rows.defined() ? rows.narrow(0, from, count) : rows;
    };
    return {cut(observations), cut(next_observations), cut(actions),       cut(log_probs),
            cut(advantages),   cut(returns),           cut(teacher_logits)};
  }
};

}  // namespace montezuma
