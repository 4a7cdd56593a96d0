// SPDX-License-Identifier: MIT
// Shows forgetting before the score falls. Measures how far a policy is from its teacher on states
// that it is not trained on, at the start of the game (CLOSE: dungeon level 1) and later in the
// game (FAR: level 3 and deeper).
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
#include "stretches.hpp"
#include "training_states.hpp"

namespace nethack {

/// The measurements on one set of states.
struct forgetting {
  double kl = 0;         ///< KL(teacher ‖ policy), mean, in nats
  double agreement = 0;  ///< share of states with the teacher's most likely action
  double accuracy = 0;   ///< share of states with the demonstrator's action as the most likely
};

struct forgetting_report {
  forgetting close, far;

  /// As columns of metrics.csv and keys of evaluation.json.
  std::map<std::string, double> named() const {
    return {{"kl/close", close.kl},
            {"kl/far", far.kl},
            {"agreement/close", close.agreement},
            {"agreement/far", far.agreement},
            {"accuracy/close", close.accuracy},
            {"accuracy/far", far.accuracy}};
  }
};

/// The states on which a policy is evaluated, and the steps that are measured.
struct probe_states {
  at::Tensor observations;  ///< as in_stretches returns them
  at::Tensor measured;      ///< int64 [n], indices of the measured steps
  at::Tensor actions;       ///< the demonstrator's actions in the measured steps

  std::int64_t size() const { return measured.size(0); }
};

/// About `most` of the states on the levels that `wanted` accepts, drawn with a fixed seed, so that
/// every run of an experiment is measured on the same states. For a recurrent policy the states are
/// in stretches of play, and all such states in a stretch are used.
template <class Wanted>
probe_states draw_probe(const training_states& from, const policy& network, std::int64_t most,
                        Wanted wanted) {
  const auto all = in_stretches(network, from.observations),
             actions = in_stretches(network, from.actions);
  const auto counts = settled_steps(all).contiguous();
  const bool* counted = counts.data_ptr<bool>();
  const auto length = stretch_length(network);
  const auto measured_in = [&](std::int64_t stretch) {
    std::vector<std::int64_t> steps;
    for (std::int64_t i = stretch * length; i < (stretch + 1) * length; ++i)
      if (counted[i] && wanted(from.at(i).depth)) steps.push_back(i - stretch * length);
    return steps;
  };
  std::vector<std::int64_t> candidates;
  for (std::int64_t i = 0; i < all.size(0); ++i)
    if (!measured_in(i).empty()) candidates.push_back(i);
  std::mt19937_64 random(5);
  std::vector<std::int64_t> measured;
  std::size_t taken = 0;
  for (; taken < candidates.size() && static_cast<std::int64_t>(measured.size()) < most; ++taken) {
    std::swap(candidates[taken],
              candidates[taken + (((random() >> 32) * (candidates.size() - taken)) >> 32)]);
    for (const auto step : measured_in(candidates[taken]))
      measured.push_back(static_cast<std::int64_t>(taken) * length + step);
  }
  candidates.resize(taken);
  const auto indices = at::tensor(candidates, at::kLong), steps = at::tensor(measured, at::kLong);
  return {all.index_select(0, indices), steps,
          actions.index_select(0, indices).flatten().index_select(0, steps)};
}

class forgetting_monitor {
 public:
  /// Evaluates the teacher once. A measurement then costs one forward pass of the policy over both
  /// sets.
  forgetting_monitor(const training_states& held_out, policy teacher, std::int64_t states_each)
      : close_(
            make(draw_probe(held_out, teacher, states_each, [](int depth) { return depth == 1; }),
                 teacher, "dungeon level 1")),
        far_(make(draw_probe(held_out, teacher, states_each, [](int depth) { return depth >= 3; }),
                  teacher, "dungeon level 3 and deeper")) {}

  forgetting_report measure(policy network) const {
    return {measure(close_, network), measure(far_, network)};
  }

  std::int64_t close_states() const { return close_.states.size(); }
  std::int64_t far_states() const { return far_.states.size(); }

 private:
  struct probe {
    probe_states states;
    at::Tensor teacher_log_probs, teacher_mode;
  };

  static at::Tensor log_probs(policy& network, const probe_states& states) {
    const at::NoGradGuard no_graph;
    const auto logits = answer(network, states.observations).distribution.logits;
    return retain::categorical{
        logits.reshape({-1, logits.size(-1)}).index_select(0, states.measured)}
        .log_probs();
  }

  static probe make(probe_states states, policy& teacher, const std::string& what) {
    if (states.size() == 0)
      throw std::runtime_error("the held-out demonstrations have no state on " + what +
                               ": record more steps");
    const bool training = teacher->is_training();
    teacher->eval();
    auto asked = log_probs(teacher, states);
    teacher->train(training);
    auto mode = asked.argmax(-1);
    return {std::move(states), std::move(asked), std::move(mode)};
  }

  static forgetting measure(const probe& on, policy& network) {
    const bool training = network->is_training();
    network->eval();
    const auto asked = log_probs(network, on.states);
    network->train(training);
    const auto mode = asked.argmax(-1);
    const auto share = [](const at::Tensor& equal) {
      return equal.to(at::kDouble).mean().item<double>();
    };
    return {retain::kl(retain::categorical{on.teacher_log_probs}, retain::categorical{asked})
                .to(at::kDouble)
                .mean()
                .item<double>(),
            share(mode.eq(on.teacher_mode)), share(mode.eq(on.states.actions))};
  }

  probe close_, far_;
};

}  // namespace nethack
