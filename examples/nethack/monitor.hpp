// SPDX-License-Identifier: MIT
// Shows forgetting before the score falls: how far a policy has moved from its teacher on states that it is not
// trained on, near the start of the game (CLOSE: dungeon level 1) and beyond it (FAR: level 3 and deeper).
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <retain/categorical.hpp>

#include "policy.hpp"
#include "training_states.hpp"

namespace nethack {

/// What is measured on one set of states.
struct forgetting {
  double kl = 0;         ///< KL(teacher ‖ policy), mean, in nats
  double agreement = 0;  ///< share of states where the likeliest action is the teacher's
  double accuracy = 0;   ///< share of states where it is the demonstrator's
};

struct forgetting_report {
  forgetting close, far;

  /// As columns of metrics.csv and keys of evaluation.json.
  std::map<std::string, double> named() const {
    return {{"kl/close", close.kl},           {"kl/far", far.kl},           {"agreement/close", close.agreement},
            {"agreement/far", far.agreement}, {"accuracy/close", close.accuracy}, {"accuracy/far", far.accuracy}};
  }
};

/// Up to `most` of the states on the levels that `wanted` accepts, drawn with a fixed seed: every run of an
/// experiment is measured on the same states.
template <class Wanted>
training_states draw_probe(const training_states& from, std::int64_t most, Wanted wanted) {
  std::vector<std::int64_t> candidates;
  for (std::int64_t i = 0; i < from.size(); ++i)
    if (wanted(from.at(i).depth)) candidates.push_back(i);
  std::mt19937_64 random(5);
  const auto take = std::min(candidates.size(), static_cast<std::size_t>(most));
  for (std::size_t i = 0; i < take; ++i)
    std::swap(candidates[i], candidates[i + (((random() >> 32) * (candidates.size() - i)) >> 32)]);
  candidates.resize(take);
  const auto indices = at::tensor(candidates, at::kLong);
  return {from.observations.index_select(0, indices), from.actions.index_select(0, indices)};
}

class forgetting_monitor {
 public:
  /// Asks the teacher once; afterwards it costs one forward pass of the policy over both sets.
  forgetting_monitor(const training_states& held_out, policy teacher, std::int64_t states_each)
      : close_(make(draw_probe(held_out, states_each, [](int depth) { return depth == 1; }), teacher, "dungeon level 1")),
        far_(make(draw_probe(held_out, states_each, [](int depth) { return depth >= 3; }), teacher, "dungeon level 3 and deeper")) {}

  forgetting_report measure(policy network) const { return {measure(close_, network), measure(far_, network)}; }

  std::int64_t close_states() const { return close_.states.size(); }
  std::int64_t far_states() const { return far_.states.size(); }

 private:
  struct probe {
    training_states states;
    at::Tensor teacher_log_probs, teacher_mode;
  };

  static at::Tensor log_probs(policy& network, const at::Tensor& observations) {
    const at::NoGradGuard no_graph;
    return retain::categorical{network->logits(observations)}.log_probs();
  }

  static probe make(training_states states, policy& teacher, const std::string& what) {
    if (teacher->recurrent()) throw retain::config_error("the monitor asks about single states, a recurrent policy needs games");
    if (states.size() == 0)
      throw std::runtime_error("the held-out demonstrations have no state on " + what + ": record more steps");
    const bool training = teacher->is_training();
    teacher->eval();
    auto asked = log_probs(teacher, states.observations);
    teacher->train(training);
    auto mode = asked.argmax(-1);
    return {std::move(states), std::move(asked), std::move(mode)};
  }

  static forgetting measure(const probe& on, policy& network) {
    const bool training = network->is_training();
    network->eval();
    const auto asked = log_probs(network, on.states.observations);
    network->train(training);
    const auto mode = asked.argmax(-1);
    const auto share = [](const at::Tensor& equal) { return equal.to(at::kDouble).mean().item<double>(); };
    return {retain::kl(retain::categorical{on.teacher_log_probs}, retain::categorical{asked}).to(at::kDouble).mean().item<double>(),
            share(mode.eq(on.teacher_mode)), share(mode.eq(on.states.actions))};
  }

  probe close_, far_;
};

}  // namespace nethack
