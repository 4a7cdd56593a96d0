// SPDX-License-Identifier: MIT
// The settings of fine-tuning, and the three recipes.
#pragma once

#include <retain/error.hpp>
#include <retain/loss/ppo.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../common/retention_terms.hpp"

namespace nethack {

/// The retention terms and their strengths. With the default strengths L2 and EWC keep the policy
/// about as close to the clone as kickstarting does.
struct retention_options {
  bool l2 = false, ewc = false, behavioral_cloning = false, kickstarting = false;
  double l2_strength = 1.0;
  double ewc_strength = 300.0;
  std::int64_t ewc_states = 2000;
  double bc_strength = 1.0;
  std::int64_t bc_states = 100'000, bc_batch_size = 256;
  /// strength · factor^n after n optimizer steps, at least the floor
  double ks_strength = 0.5, ks_factor = 0.9993, ks_floor = 0.1;

  bool any() const { return l2 || ewc || behavioral_cloning || kickstarting; }
  bool needs_demonstrations() const { return ewc || behavioral_cloning; }

  /// The name in the tables, for example bc+ks.
  std::vector<std::pair<std::string, bool>> terms() const {
    return {{"l2", l2}, {"ewc", ewc}, {"bc", behavioral_cloning}, {"ks", kickstarting}};
  }
  std::string name() const { return chosen_terms(terms()); }

  /// "none", or terms joined by +. Throws for anything else.
  void choose(const std::string& text) {
    choose_terms(text,
                 {{"l2", &l2}, {"ewc", &ewc}, {"bc", &behavioral_cloning}, {"ks", &kickstarting}});
  }
};

enum class rate_schedule : std::uint8_t { constant, linear };  ///< linear: to 0 over `steps`

struct finetune_options {
  std::int64_t steps = 600'000;  ///< environment steps over all games
  std::uint64_t seed = 1;

  std::int64_t games = 32, horizon = 64;  ///< an update uses games × horizon steps
  int epochs = 2;
  std::int64_t minibatch = 512;
  double learning_rate = 3e-4, adam_epsilon = 1e-5;
  rate_schedule schedule = rate_schedule::constant;
  retain::clip_range clip{1 / 1.1, 1.1};
  double discount = 0.999, gae_decay = 0.95;
  double entropy = 0.001, value_weight = 0.5;
  double value_clip = 0;  ///< 0: none
  double longest_gradient = 1;

  /// factor from points to reward; the reward is then divided by the running standard deviation of
  /// the discounted return
  double reward_scale = 1 / 20.0, reward_clip = 5;

  bool separate_critic = false;
  /// the value head of a clone is untrained: start with a new one
  bool fresh_critic = true;
  /// steps in which only the value head learns, with `critic_warmup_rate`
  std::int64_t critic_warmup = 0;
  double critic_warmup_rate = 1e-3;
  /// share of the steps at the start from which nothing is learned
  double collect_first = 0;
  /// patterns of parameter names that do not learn: "encoder.*"
  std::vector<std::string> freeze{};

  retention_options retention;

  std::int64_t checkpoint_every = 200'000;  ///< steps; 0: only at the end
  std::int64_t monitor_every = 50'000;      ///< steps; 0: never
};

/// A fast recipe in which plain fine-tuning forgets.
inline finetune_options quick_recipe() { return {}; }

/// Half the drift of the quick recipe: the critic cannot disturb the policy and learns before the
/// policy does.
inline finetune_options careful_recipe() {
  finetune_options options;
  options.learning_rate = 1e-4;
  options.entropy = 0;
  options.separate_critic = true;
  options.critic_warmup = 100'000;
  return options;
}

/// As Wołczyk et al. 2024, on this network and this number of games: batches of 4096 steps, one
/// epoch, a learning rate that falls to 0, ratios kept within 0.05 to 20, no learning from the
/// first twentieth of the steps (25 of 500 million), a frozen encoder under retention, an entropy
/// bonus only without retention. Choose the retention terms before calling it.
inline finetune_options paper_recipe(const retention_options& retention) {
  finetune_options options;
  options.retention = retention;
  options.games = 128;
  options.horizon = 32;
  options.epochs = 1;
  options.minibatch = 4096;
  options.learning_rate = 1e-4;
  options.adam_epsilon = 1e-7;
  options.schedule = rate_schedule::linear;
  options.clip = {1 / 1.1, 1.1, 0.05, 20};
  options.collect_first = 0.05;
  options.discount = 0.999999;
  options.gae_decay = 1.0;
  options.entropy = retention.any() ? 0 : 0.001;
  options.value_weight = 1;
  options.value_clip = 1;
  options.longest_gradient = 4;
  options.reward_scale = 1;
  options.reward_clip = 10;
  options.retention.ks_strength = 0.5;
  options.retention.ks_factor = 0.99998;
  options.retention.ks_floor = 0;
  options.retention.bc_strength = 2;
  if (retention.any()) options.freeze = {"encoder.*"};
  return options;
}

inline finetune_options recipe(std::string_view name, const retention_options& retention) {
  finetune_options options;
  if (name == "quick")
    options = quick_recipe();
  else if (name == "careful")
    options = careful_recipe();
  else if (name == "paper")
    return paper_recipe(retention);
  else
    throw retain::config_error("there is no recipe '" + std::string(name) +
                               "': use quick, careful or paper");
  options.retention = retention;
  return options;
}

}  // namespace nethack
