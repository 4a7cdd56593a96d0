// SPDX-License-Identifier: MIT
// The data that PPO keeps of a stretch of play.
#pragma once

#include "policy.hpp"

#include <retain/categorical.hpp>
#include <retain/loss/gae.hpp>
#include <retain/state.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace nethack {

/// The data to learn from, [steps, stretches]: the whole rollout of each game for a recurrent
/// policy; otherwise each step alone, as a stretch of one step.
struct stretch_batch {
  at::Tensor observations, actions, log_probs, advantages, returns, values;
  at::Tensor state;  ///< [stretches, width], the policy's state before the first step

  std::int64_t steps() const { return actions.size(0); }
  std::int64_t stretches() const { return actions.size(1); }
  stretch_batch select(const at::Tensor& indices) const {
    const auto of = [&](const at::Tensor& all) { return all.index_select(1, indices); };
    return {of(observations),
            of(actions),
            of(log_probs),
            of(advantages),
            of(returns),
            of(values),
            state.index_select(0, indices)};
  }
};

/// The input of retain's distillation terms: the visited states and the teacher's outputs.
struct visited_steps {
  at::Tensor observations, episode_start;
};
struct distilled_steps {
  at::Tensor observations;
  retain::categorical teacher;
};

/// [T, N] for every tensor; observations and values have one more step, the end of the rollout.
/// `state` is the policy's state at the start.
struct rollout {
  rollout(std::int64_t horizon, std::int64_t games, std::int64_t action_count, at::Tensor begin)
      : observations(at::empty({horizon + 1, games, static_cast<std::int64_t>(sizeof(features))},
                               at::kByte)),
        values(at::empty({horizon + 1, games})),
        logits(at::empty({horizon, games, action_count})),
        actions(at::empty({horizon, games}, at::kLong)),
        rewards(at::empty({horizon, games})),
        terminated(at::empty({horizon, games})),
        truncated(at::empty({horizon, games})),
        truncated_values(at::zeros({horizon, games})),
        state(std::move(begin)) {}

  features* records(std::int64_t t) {
    return reinterpret_cast<features*>(observations[t].data_ptr<std::uint8_t>());
  }

  stretch_batch batch(bool recurrent, double reward_unit,
                      const retain::gae_options& options) const {
    const at::NoGradGuard no_grad;
    const auto horizon = rewards.size(0);
    const auto value = values.narrow(0, 0, horizon);
    const auto estimates = retain::gae({.rewards = rewards / reward_unit,
                                        .values = value,
                                        .last_value = values[horizon],
                                        .terminated = terminated,
                                        .truncated = truncated,
                                        .truncated_values = truncated_values},
                                       options);
    const auto log_probs = retain::categorical{logits}.log_prob(actions);
    const auto visited = observations.narrow(0, 0, horizon);
    if (recurrent)
      return {visited, actions, log_probs, estimates.advantages, estimates.returns, value, state};
    const auto apart = [](const at::Tensor& all) { return all.flatten(0, 1).unsqueeze(0); };
    return {apart(visited),
            apart(actions),
            apart(log_probs),
            apart(estimates.advantages),
            apart(estimates.returns),
            apart(value),
            state.new_empty({actions.numel(), state.size(1)})};
  }

  at::Tensor observations, values, logits, actions, rewards, terminated, truncated,
      truncated_values, state;
};

/// The running standard deviation of the discounted return. Rewards are divided by it, so that
/// values have an order of magnitude of one for every policy.
class return_scaler {
 public:
  return_scaler(std::size_t games, double discount) : discount_(discount), returns_(games, 0.0) {}

  void add(std::size_t game, double reward, bool done) {
    double& sum = returns_[game];
    sum = sum * discount_ + reward;
    ++count_;
    const double off = sum - mean_;
    mean_ += off / count_;
    squares_ += off * (sum - mean_);
    if (done) sum = 0;
  }
  double deviation() const {
    return count_ > 1 ? std::max(1e-2, std::sqrt(squares_ / count_)) : 1.0;
  }

  void save_state(retain::state& out, const std::string& prefix) const {
    out.set(prefix + "count", count_);
    out.set(prefix + "mean", mean_);
    out.set(prefix + "squares", squares_);
  }
  /// The games start again, and so do their returns.
  void load_state(const retain::state& in, const std::string& prefix) {
    count_ = in.number(prefix + "count");
    mean_ = in.number(prefix + "mean");
    squares_ = in.number(prefix + "squares");
    std::fill(returns_.begin(), returns_.end(), 0.0);
  }

 private:
  double discount_, count_ = 0, mean_ = 0, squares_ = 0;
  std::vector<double> returns_;
};

}  // namespace nethack
