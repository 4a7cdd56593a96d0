// SPDX-License-Identifier: MIT
// The settings of training as options of a command line, and as JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/option_checks.hpp"
#include "settings.hpp"

namespace montezuma {

/// The options of the command line; an empty optional keeps the preset's value.
struct training_options {
  std::optional<std::int64_t> steps, games, horizon, minibatches, evaluate_every;
  std::optional<int> epochs, evaluation_games, warm_up;
  std::optional<double> learning_rate, clip, entropy, value_weight, longest_gradient, discount,
      novelty_discount, gae_decay, novelty_weight, rnd_fraction;
  std::optional<std::string> bonus, rewards;

  void apply(training_settings& to) const {
    const auto take = [](auto& setting, const auto& given) {
      if (given) setting = *given;
    };
    take(to.steps, steps);
    take(to.games, games);
    take(to.horizon, horizon);
    take(to.minibatches, minibatches);
    take(to.evaluate_every, evaluate_every);
    take(to.epochs, epochs);
    take(to.evaluation_games, evaluation_games);
    take(to.learning_rate, learning_rate);
    take(to.clip, clip);
    take(to.entropy, entropy);
    take(to.value_weight, value_weight);
    take(to.longest_gradient, longest_gradient);
    take(to.discount, discount);
    take(to.novelty_discount, novelty_discount);
    take(to.gae_decay, gae_decay);
    take(to.novelty_weight, novelty_weight);
    take(to.rnd_warm_up, warm_up);
    if (bonus) to.bonus = bonus_of_name(*bonus);
    take(to.rnd_fraction, rnd_fraction);
    if (rewards) to.reward_signs = *rewards == "signs";
  }
};

inline void declare_training(CLI::App* command, training_options& o) {
  const std::string group = "Learning (defaults: the values of the preset)";
  const auto add = [&](const char* flag, auto& where, const char* text) {
    return command->add_option(flag, where, text)->group(group);
  };
  add("--steps", o.steps, "Environment steps over all games")->check(positive_number);
  add("--learning-rate", o.learning_rate, "Learning rate of Adam")->check(positive_number);
  add("--entropy", o.entropy, "Weight of the entropy bonus")->check(non_negative_number);
  add("--bonus", o.bonus,
      "Novelty bonus: none, count (places seen), rnd (random network distillation)")
      ->check(CLI::IsMember({"none", "count", "rnd"}));
  add("--novelty-weight", o.novelty_weight, "Weight of the bonus's advantage; the task's has 1")
      ->check(non_negative_number);
  add("--rewards", o.rewards,
      "What is learned from: paid, the rewards as the game pays them, or signs, +1 for any gain")
      ->check(CLI::IsMember({"paid", "signs"}));
  add("--games", o.games, "Number of parallel games")->check(positive_number);
  add("--horizon", o.horizon, "Steps of each game between updates")->check(positive_number);
  add("--epochs", o.epochs, "Passes over the steps in an update")->check(positive_number);
  add("--minibatches", o.minibatches, "Minibatches per epoch")->check(positive_number);
  add("--clip", o.clip, "PPO's clipping range: ratios are clipped to 1 - x ... 1 + x")
      ->check(CLI::Range(0.0, 1.0));
  add("--discount", o.discount, "Discount (gamma) of the task's reward")
      ->check(CLI::Range(0.0, 1.0));
  add("--novelty-discount", o.novelty_discount, "Discount (gamma) of the bonus")
      ->check(CLI::Range(0.0, 1.0));
  add("--gae-decay", o.gae_decay, "Decay (lambda) of GAE")->check(CLI::Range(0.0, 1.0));
  add("--value-weight", o.value_weight, "Weight of each value's squared error")
      ->check(non_negative_number);
  add("--longest-gradient", o.longest_gradient,
      "Norm to which the task's gradient is clipped; 0: no clipping")
      ->check(non_negative_number);
  add("--rnd-fraction", o.rnd_fraction,
      "Share of the steps from which distillation learns; 0: 32 games' worth")
      ->check(CLI::Range(0.0, 1.0));
  add("--warm-up", o.warm_up, "Rollouts of random actions before training with distillation")
      ->check(non_negative_number);
  add("--evaluate-every", o.evaluate_every, "Steps between evaluations")->check(positive_number);
  add("--evaluation-games", o.evaluation_games, "Games from each room in an evaluation")
      ->check(positive_number);
}

inline nlohmann::json to_json(const training_settings& s) {
  return {{"steps", s.steps},
          {"room", s.room},
          {"seed", s.seed},
          {"games", s.games},
          {"horizon", s.horizon},
          {"epochs", s.epochs},
          {"minibatches", s.minibatches},
          {"learning_rate", s.learning_rate},
          {"adam_epsilon", s.adam_epsilon},
          {"clip", s.clip},
          {"entropy", s.entropy},
          {"value_weight", s.value_weight},
          {"longest_gradient", s.longest_gradient},
          {"discount", s.discount},
          {"novelty_discount", s.novelty_discount},
          {"gae_decay", s.gae_decay},
          {"reward_weight", s.reward_weight},
          {"novelty_weight", s.novelty_weight},
          {"bonus", name(s.bonus)},
          {"rnd_learning_rate", s.rnd_learning_rate},
          {"rnd_fraction", s.predictor_share()},
          {"rnd_warm_up", s.rnd_warm_up},
          {"reward_signs", s.reward_signs},
          {"normalise_advantages", s.normalize_advantages},
          {"evaluate_every", s.evaluate_every},
          {"evaluation_games", s.evaluation_games}};
}

inline nlohmann::json to_json(const retention_settings& r) {
  nlohmann::json file{{"l2_strength", r.l2_strength}, {"ewc_strength", r.ewc_strength},
                      {"bc_strength", r.bc_strength}, {"bc_batch", r.bc_batch},
                      {"ks_strength", r.ks_strength}, {"ks_factor", r.ks_factor}};
  if (r.hold_kl > 0) file["hold_kl"] = r.hold_kl;
  return file;
}

}  // namespace montezuma
