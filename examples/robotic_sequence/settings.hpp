// SPDX-License-Identifier: MIT
// The settings of a run and of the retention methods.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../common/retention_terms.hpp"

namespace robotic_sequence {

struct agent_settings {
  std::int64_t width = 64;  ///< of the two hidden layers of actor and critics
  /// true: the stage is an input of networks with one head; false: one head per stage, selected by
  /// the stage
  bool one_hot = false;
  double learning_rate = 1e-3;  ///< of Adam, for actor, critics and temperatures
  std::int64_t batch = 128;
  double discount = 0.99, tau = 0.005;
  /// Bound of the critics' targets, above and below 0. A stage pays at most 7.5, to a policy that
  /// solves it at once. Discounted entropy adds at most 1.6 in a known stage, and 5.5 in a new
  /// stage at the first temperature while nothing is paid there. Values beyond the bound are errors
  /// that amplify themselves. This can happen if the critics know stages only from stored
  /// transitions, because the policy does not reach these stages.
  double value_bound = 10;
  double entropy_target = -2;  ///< in nats per action: minus the number of dimensions
  double initial_alpha = 0.1;
  double alpha_floor = 1e-3;  ///< of every stage: keeps exploration in new stages
  double alpha_cap = 7.4;     ///< of a new stage
  /// of a known stage: a policy under retention cannot raise its entropy
  double known_alpha_cap = 0.03;
};

/// The parts of a run that draw random numbers with a generator of the library.
enum class random_stream : std::uint64_t { buffer = 1, cloning = 2 };
/// A separate seed for each part, so that equal generators do not draw equal numbers. Mixed as in
/// splitmix64 (Steele, Lea & Flood 2014).
inline std::uint64_t stream_seed(std::uint64_t seed, random_stream stream) {
  std::uint64_t mixed =
      seed * 0x9E3779B97F4A7C15u + static_cast<std::uint64_t>(stream) * 0xD1342543DE82EF95u;
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
  return mixed ^ (mixed >> 31);
}

struct training_settings {
  agent_settings agent;
  std::uint64_t seed = 1;
  std::int64_t steps = 80'000;          ///< decisions, one update each
  std::int64_t random_steps = 0;        ///< random actions at the start
  std::int64_t learn_after = 1'000;     ///< decisions before the first update
  std::int64_t capacity = 100'000;      ///< transitions in the buffer
  std::int64_t evaluate_every = 5'000;  ///< and at 0, 1000, 2000 and 3000: the early fall is fast
  int evaluation_episodes = 25;         ///< from each stage, and of the whole sequence

  bool evaluation_due(std::int64_t step) const {
    return step == 0 || step == 1'000 || step == 2'000 || step == 3'000 || step == steps ||
           (evaluate_every > 0 && step % evaluate_every == 0);
  }
};

enum class fisher_kind : std::uint8_t {
  gaussian,  ///< of the Gaussian before the squash, in closed form, every layer of the actor
  /// mean after the squash, heads excluded, floor of 1e-5, as in Continual World (Wołczyk et al.
  /// 2021)
  continual_world,
};

struct retention_settings {
  bool l2 = false, ewc = false, bc = false, ks = false, em = false;
  double l2_strength = 0.001, ewc_strength = 1, bc_strength = 0.1, ks_strength = 1;
  double ks_factor = 1;  ///< on ks_strength after each update
  /// above 0: adapt every strength so that the KL to the teacher on the memory stays near this
  double hold_kl = 0;
  std::int64_t memory = 10'000;  ///< transitions of pre-training: BC's states, EM's protected rows
  std::int64_t fisher_states = 2'560;
  std::int64_t bc_batch = 128;
  fisher_kind fisher = fisher_kind::gaussian;

  /// Whether a term adds to the actor's loss or gradient. Episodic memory is in the buffer.
  bool any_term() const { return l2 || ewc || bc || ks; }

  /// The name in the tables, for example bc+em.
  std::vector<std::pair<std::string, bool>> terms() const {
    return {{"l2", l2}, {"ewc", ewc}, {"bc", bc}, {"em", em}, {"ks", ks}};
  }
  std::string name() const { return chosen_terms(terms()); }

  /// "none", or terms joined by +. Throws for any other text.
  void choose(const std::string& text) {
    choose_terms(text, {{"l2", &l2}, {"ewc", &ewc}, {"bc", &bc}, {"em", &em}, {"ks", &ks}});
  }
};

}  // namespace robotic_sequence
