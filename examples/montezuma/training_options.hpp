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

/// What the command line can say; an empty optional leaves the preset's value.
struct training_options {
  std::optional<std::int64_t> steps, games, horizon, minibatches, evaluate_every;
  std::optional<int> epochs, evaluation_games, warm_up;
  std::optional<double> learning_rate, clip, entropy, value_weight, longest_gradient, discount,
      novelty_discount, gae_decay, novelty_weight, rnd_fraction;
  std::optional<std::string> bonus;

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
  }
};

inline void declare_training(CLI::App* command, training_options& o) {
  const std::string group = "Learning (the preset's values where not given)";
  const auto add = [&](const char* flag, auto& where, const char* text) {
    return command->add_option(flag, where, text)->group(group);
  };
  add("--steps", o.steps, "Environment steps, all games together")->check(positive_number);
  add("--learning-rate", o.learning_rate, "Of Adam")->check(positive_number);
  add("--entropy", o.entropy, "Weight of the entropy bonus")->check(non_negative_number);
  add("--bonus", o.bonus,
      "What pays for novelty: none, count (places seen), rnd (random network distillation)")
      ->check(CLI::IsMember({"none", "count", "rnd"}));
  add("--novelty-weight", o.novelty_weight, "Of the bonus's advantage beside the task's")
      ->check(non_negative_number);
  add("--games", o.games, "Games side by side")->check(positive_number);
  add("--horizon", o.horizon, "Steps of each game between updates")->check(positive_number);
  add("--epochs", o.epochs, "Times that an update shows its steps")->check(positive_number);
  add("--minibatches", o.minibatches, "Parts of an epoch")->check(positive_number);
  add("--clip", o.clip, "PPO: ratios beyond 1 - x ... 1 + x gain nothing")
      ->check(CLI::Range(0.0, 1.0));
  add("--discount", o.discount, "Gamma of the task's reward")->check(CLI::Range(0.0, 1.0));
  add("--novelty-discount", o.novelty_discount, "Gamma of the bonus")->check(CLI::Range(0.0, 1.0));
  add("--gae-decay", o.gae_decay, "Lambda")->check(CLI::Range(0.0, 1.0));
  add("--value-weight", o.value_weight, "Of each value's squared error")
      ->check(non_negative_number);
  add("--longest-gradient", o.longest_gradient,
      "The task's gradients are shortened to this norm; 0: never")
      ->check(non_negative_number);
  add("--rnd-fraction", o.rnd_fraction,
      "Of the steps, that distillation learns from; 0: 32 games' worth")
      ->check(CLI::Range(0.0, 1.0));
  add("--warm-up", o.warm_up, "Rollouts of random actions before distillation begins")
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
          {"normalise_advantages", s.normalise_advantages},
          {"evaluate_every", s.evaluate_every},
          {"evaluation_games", s.evaluation_games}};
}

inline nlohmann::json to_json(const retention_settings& r) {
  return {{"l2_strength", r.l2_strength}, {"ewc_strength", r.ewc_strength},
          {"bc_strength", r.bc_strength}, {"bc_batch", r.bc_batch},
          {"ks_strength", r.ks_strength}, {"ks_factor", r.ks_factor}};
}

}  // namespace montezuma
