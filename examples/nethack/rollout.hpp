// SPDX-License-Identifier: MIT
// What PPO keeps of a stretch of play.
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

/// What is learnt from, [steps, stretches] of everything: the rollout of each game where the policy
/// is recurrent, else each step by itself, as a stretch of one.
struct stretch_batch {
  at::Tensor observations, actions, log_probs, advantages, returns, values;
  at::Tensor state;  ///< [stretches, width], the policy's before the first step

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

/// What retain's distillation terms read: where the policy was, and what the teacher says of it.
struct visited_steps {
  at::Tensor observations, done;  ///< done: 1 at the first step of a game
};
struct distilled_steps {
  at::Tensor observations;
  retain::categorical teacher;
};

/// [T, N] of everything; observations and values have one step more, where the rollout ends.
/// `state` is the policy's where it begins.
struct rollout {
  rollout(std::int64_t horizon, std::int64_t games, std::int64_t action_count, at::Tensor begin)
      : observations(at::empty({horizon + 1, games, static_cast<std::int64_t>(sizeof(features))},
                               at::kByte)),
        values(at::empty({horizon + 1, games})),
        logits(at::empty({horizon, games, action_count})),
        actions(at::empty({horizon, games}, at::kLong)),
        rewards(at::empty({horizon, games})),
        done(at::empty({horizon, games})),
        state(std::move(begin)) {}

  features* records(std::int64_t t) {
    return reinterpret_cast<features*>(observations[t].data_ptr<std::uint8_t>());
  }

  stretch_batch batch(bool recurrent, double reward_unit,
                      const retain::gae_options& options) const {
    const at::NoGradGuard no_grad;
    const auto horizon = rewards.size(0);
    const auto value = values.narrow(0, 0, horizon);
    const auto estimates =
        retain::gae(rewards / reward_unit, value, done, values[horizon], options);
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

  at::Tensor observations, values, logits, actions, rewards, done, state;
};

/// The standard deviation of the discounted return so far: rewards are divided by it, so that
/// values are of the order of one whatever a policy earns.
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
  /// The games begin anew, and their returns with them.
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
