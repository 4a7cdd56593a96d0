// SPDX-License-Identifier: MIT
// The settings of a training run, and the presets.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../common/retention_terms.hpp"

namespace montezuma {

/// The kind of the novelty bonus.
enum class bonus_kind : std::uint8_t {
  none,
  count,  ///< 1 / √n of a place (room, position, keys, doors) seen n times in this run
  rnd,    ///< random network distillation
};

inline const char* name(bonus_kind kind) {
  return kind == bonus_kind::count ? "count" : kind == bonus_kind::rnd ? "rnd" : "none";
}
inline bonus_kind bonus_of_name(const std::string& text) {
  for (const auto kind : {bonus_kind::none, bonus_kind::count, bonus_kind::rnd})
    if (text == name(kind)) return kind;
  throw std::runtime_error("there is no bonus '" + text + "': use none, count or rnd");
}

struct training_settings {
  std::int64_t steps = 1'500'000;  ///< over all games
  int room = 1;                    ///< first room of the episodes
  std::uint64_t seed = 1;

  std::int64_t games = 32, horizon = 128;
  int epochs = 4;
  std::int64_t minibatches = 8;
  double learning_rate = 1e-3, adam_epsilon = 1e-5;
  double clip = 0.2, entropy = 0.01;
  double value_weight = 0.25;  ///< of each of the two squared errors
  /// norm to which the gradient of task and critic is clipped; the gradient of retention is added
  /// after that
  double longest_gradient = 0.5;
  double discount = 0.995, novelty_discount = 0.99, gae_decay = 0.95;
  double reward_weight = 1, novelty_weight = 0.3;  ///< of the two advantages in their sum
  bonus_kind bonus = bonus_kind::count;
  double rnd_learning_rate = 1e-3;
  /// share of the steps from which the predictor learns; 0: 32 games' worth
  double rnd_fraction = 0.25;
  /// rollouts of random actions that initialize the observation statistics
  int rnd_warm_up = 50;
  bool reward_signs = false;         ///< learn from the sign of a reward only
  bool normalize_advantages = true;  ///< over the rollout

  std::int64_t evaluate_every = 32'768;  ///< steps
  int evaluation_games = 64;             ///< from each room

  double predictor_share() const {
    return rnd_fraction > 0 ? rnd_fraction : std::min(1.0, 32.0 / static_cast<double>(games));
  }
};

/// quick: plain fine-tuning forgets. careful: a smaller learning rate and entropy bonus. Both from
/// room 1. pretrain: from room 7, with a larger bonus. ram-pretrain and ram: the same on the real
/// game, seen by its memory. paper: PPO and RND on the real game, as in Burda et al. 2018 and
/// Wołczyk et al. 2024.
inline training_settings preset(const std::string& which) {
  training_settings s;
  if (which == "quick") {
    s.learning_rate = 2e-3;
    s.entropy = 0.03;
  } else if (which == "pretrain") {
    s.room = 7;
    s.steps = 4'000'000;
    s.novelty_weight = 1;
  } else if (which == "ram" || which == "ram-pretrain") {
    // rewards of 100 to 3000 make the values, and with them the shared layers, jump
    s.reward_signs = true;
    s.steps = 2'000'000;
    s.novelty_weight = which == "ram" ? 0.5 : 1;
    s.evaluate_every = 131'072;
    s.evaluation_games = 16;
    if (which == "ram-pretrain") s.room = 7;
  } else if (which == "paper") {
    s.steps = 100'000'000;
    s.games = 128;
    s.minibatches = 4;
    s.learning_rate = s.rnd_learning_rate = 1e-4;
    s.adam_epsilon = 1e-8;
    s.clip = 0.1;
    s.entropy = 0.001;
    s.value_weight = 0.5;
    s.longest_gradient = 0;
    s.discount = 0.999;
    s.reward_weight = 2;
    s.novelty_weight = 1;
    s.bonus = bonus_kind::rnd;
    s.rnd_fraction = 0;
    s.reward_signs = true;
    s.normalize_advantages = false;
    s.evaluate_every = 5'000'000;
    s.evaluation_games = 16;
  } else if (which != "careful") {
    throw std::runtime_error("there is no preset '" + which +
                             "': use quick, careful, pretrain, ram, ram-pretrain or paper");
  }
  return s;
}

struct retention_settings {
  bool l2 = false, ewc = false, bc = false, ks = false;
  double l2_strength = 0.003, ewc_strength = 30, bc_strength = 3, ks_strength = 0.1;
  double ks_factor = 0.9994;  ///< after each optimizer step
  /// above 0: adapt every strength so that the KL to the teacher on the memory stays near this
  double hold_kl = 0;
  std::int64_t bc_batch = 128;

  bool any() const { return l2 || ewc || bc || ks; }
  bool needs_memory() const { return ewc || bc; }

  /// The name in the tables, for example bc+ks.
  std::vector<std::pair<std::string, bool>> terms() const {
    return {{"l2", l2}, {"ewc", ewc}, {"bc", bc}, {"ks", ks}};
  }
  std::string name() const { return chosen_terms(terms()); }

  /// "none", or terms joined by +. Throws for any other text.
  void choose(const std::string& text) {
    choose_terms(text, {{"l2", &l2}, {"ewc", &ewc}, {"bc", &bc}, {"ks", &ks}});
  }
};

}  // namespace montezuma
