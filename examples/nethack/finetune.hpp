// SPDX-License-Identifier: MIT
// Fine-tuning by PPO on many games at once, with retention.
#pragma once

#include "../common/adam.hpp"
#include "agent.hpp"
#include "finetune_options.hpp"
#include "memory.hpp"
#include "policy.hpp"
#include "retention.hpp"
#include "rollout.hpp"
#include "vector_environment.hpp"

#include <retain/loss/gae.hpp>
#include <retain/loss/ppo.hpp>
#include <retain/state.hpp>

#include <torch/utils.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace nethack {

/// The report of one update.
struct update_report {
  std::int64_t steps = 0, updates = 0, optimizer_steps = 0;
  double steps_per_second = 0;
  std::vector<episode_summary> episodes;  ///< games that ended since the last update
  double approx_kl = 0, clip_fraction = 0, policy_loss = 0, value_loss = 0, entropy = 0,
         explained_variance = 0;
  double gradient_norm = 0, learning_rate = 0, return_deviation = 0;
  std::vector<retain::term_report> retention;
  /// since the start or the resume; computing features counts as game time
  double game_seconds = 0, inference_seconds = 0, learning_seconds = 0;

  /// The values under the usual names of PPO plots.
  std::map<std::string, double> named() const {
    std::map<std::string, double> values{{"charts/SPS", steps_per_second},
                                         {"charts/learning_rate", learning_rate},
                                         {"losses/approx_kl", approx_kl},
                                         {"losses/clipfrac", clip_fraction},
                                         {"losses/policy_loss", policy_loss},
                                         {"losses/value_loss", value_loss},
                                         {"losses/entropy", entropy},
                                         {"losses/explained_variance", explained_variance},
                                         {"losses/gradient_norm", gradient_norm},
                                         {"charts/return_deviation", return_deviation},
                                         {"time/game", game_seconds},
                                         {"time/inference", inference_seconds},
                                         {"time/learning", learning_seconds}};
    if (!episodes.empty()) {
      double score = 0, length = 0, depth = 0;
      for (const auto& episode : episodes) {
        score += episode.score;
        length += episode.steps;
        depth += episode.max_depth;
      }
      const auto n = static_cast<double>(episodes.size());
      values["charts/episodic_return"] = score / n;
      values["charts/episodic_length"] = length / n;
      values["charts/max_depth"] = depth / n;
    }
    for (const auto& term : retention) {
      if (term.value.defined()) values["retain/" + term.name] = term.value.item<double>();
      values["retain/" + term.name + "_strength"] = term.strength;
    }
    return values;
  }
};

/// Callbacks to the caller.
struct finetune_hooks {
  std::function<void(const update_report&)> updated{};
  /// called every monitor_every steps, before the first and after the last
  std::function<void(std::int64_t steps, policy)> monitor{};
  std::function<void(std::int64_t steps)> checkpoint{};  ///< should call finetuner::save
  std::function<bool()> stop{};                          ///< called after every update
};

/// `Games` is vector_environment, or any type with its size, reset, view, step, finished,
/// truncated, episodes and set_episodes.
///
///     finetuner run{policy, games, demonstrations, options};
///     if (resuming) run.resume(file);
///     run.run({.updated = ..., .checkpoint = [&](auto) { run.save(file); }});
template <class Games = vector_environment>
class finetuner {
 public:
  /// `start` itself is fine-tuned; load it again for another run. Retention also refers to the
  /// initial weights of `start`.
  finetuner(policy start, Games& games, const at::Tensor& demonstrations, finetune_options options)
      : options_(std::move(options)),
        network_(std::move(start)),
        games_(games),
        dice_(options_.seed),
        scaler_(games.size(), options_.discount) {
    if (static_cast<std::int64_t>(games_.size()) != options_.games)
      throw retain::config_error("finetuner: " + std::to_string(games_.size()) +
                                 " games, but the options say " + std::to_string(options_.games));
    if (options_.games < 1 || options_.horizon < 1 || options_.minibatch < 1 || options_.epochs < 1)
      throw retain::config_error("finetuner: games, horizon, minibatch and epochs are at least 1");
    if (options_.games * options_.horizon % options_.minibatch != 0)
      throw retain::config_error(
          "finetuner: games × horizon = " + std::to_string(options_.games * options_.horizon) +
          " steps do not divide into minibatches of " + std::to_string(options_.minibatch));
    if (network_->recurrent() && options_.minibatch % options_.horizon != 0)
      throw retain::config_error("finetuner: a recurrent policy learns from whole rollouts of some "
                                 "games: the minibatch of " +
                                 std::to_string(options_.minibatch) +
                                 " steps must be a multiple of the horizon of " +
                                 std::to_string(options_.horizon));
    for (const auto& pattern : options_.freeze) {
      bool used = false;
      for (const auto& parameter : network_->named_parameters())
        used = used || retain::detail::covers(pattern, parameter.key());
      if (!used)
        throw retain::config_error("finetuner: freeze: the pattern '" + pattern +
                                   "' matches no parameter");
    }
    torch::manual_seed(options_.seed);
    retention_ = make_retention(network_, demonstrations, options_.retention, options_.seed);
    if (options_.fresh_critic || options_.separate_critic != network_->config().separate_critic)
      network_->reset_critic(options_.separate_critic);
    std::vector<std::pair<std::string, at::Tensor>> learning;
    for (auto& parameter : network_->named_parameters()) {
      const bool frozen = retain::detail::covered(options_.freeze, parameter.key());
      parameter.value().set_requires_grad(!frozen);
      if (!frozen) learning.emplace_back(parameter.key(), parameter.value());
    }
    if (learning.empty()) throw retain::config_error("finetuner: every parameter is frozen");
    optimizer_.emplace(std::move(learning),
                       training::adam_options{.learning_rate = options_.learning_rate,
                                              .epsilon = options_.adam_epsilon});
    state_ = network_->initial_state(options_.games);
    rollout_.emplace(options_.horizon, options_.games, network_->config().actions, state_);
    minds_.resize(games_.size());
    last_actions_.assign(games_.size(), memory::no_action);
  }

  policy network() const { return network_; }
  std::int64_t steps() const { return steps_; }
  const finetune_options& options() const { return options_; }

  /// Runs until options.steps, or until `stop` returns true. Returns whether it reached
  /// options.steps.
  bool run(const finetune_hooks& hooks = {}) {
    began_ = clock::now();
    steps_at_start_ = steps_;
    times_ = {};
    games_.reset();
    for (std::size_t i = 0; i < games_.size(); ++i) begin_game(i);
    // stores the current screens where collect() reads them: at the end of the previous rollout
    look(options_.horizon);
    const std::int64_t each = options_.games * options_.horizon;
    const auto due = [&](std::int64_t every) {
      return every > 0 && steps_ / every != (steps_ - each) / every;
    };
    if (hooks.monitor && steps_ == 0) hooks.monitor(0, network_);
    bool stopped = false;
    while (steps_ < options_.steps && !stopped) {
      update_report report;
      collect(report);
      learn(report);
      finish(report);
      if (hooks.updated) hooks.updated(report);
      const bool last = steps_ >= options_.steps;
      stopped = hooks.stop && hooks.stop();
      if (hooks.monitor && (last || due(options_.monitor_every))) hooks.monitor(steps_, network_);
      if (hooks.checkpoint && (last || stopped || due(options_.checkpoint_every)))
        hooks.checkpoint(steps_);
    }
    return steps_ >= options_.steps;
  }

  /// Writes everything that resume needs to one file, atomically.
  void save(const std::string& file) const {
    retain::state out;
    detail::save_network(out, network_, "policy.");
    optimizer_->save_state(out, "adam.");
    retention_.save_state(out, "retention.");
    scaler_.save_state(out, "returns.");
    std::ostringstream dice;
    dice << dice_;
    out.set("dice", dice.str());
    out.set("steps", steps_);
    out.set("updates", updates_);
    out.set("optimizer_steps", optimizer_steps_);
    const auto& episodes = games_.episodes();
    out.set("games", episodes.size());
    for (std::size_t i = 0; i < episodes.size(); ++i)
      out.set("episode." + std::to_string(i), episodes[i]);
    out.write(file);
  }

  /// Continues from a save() of a run with the same options. The result is bit for bit the same,
  /// except that unfinished games are dropped and new games start.
  void resume(const std::string& file) {
    const retain::state in = retain::state::read(file);
    detail::load_parameters(in, network_, "policy.");
    optimizer_->load_state(in, "adam.");
    retention_.load_state(in, "retention.");
    scaler_.load_state(in, "returns.");
    std::istringstream(in.text("dice")) >> dice_;
    steps_ = in.integer("steps");
    updates_ = in.integer("updates");
    optimizer_steps_ = in.integer("optimizer_steps");
    if (in.integer<std::size_t>("games") != games_.size())
      throw retain::state_error("the checkpoint has another number of games");
    std::vector<std::uint64_t> episodes(games_.size());
    for (std::size_t i = 0; i < episodes.size(); ++i)
      episodes[i] = in.integer<std::uint64_t>("episode." + std::to_string(i));
    games_.set_episodes(episodes);
  }

 private:
  using clock = std::chrono::steady_clock;
  struct seconds_spent {
    double game = 0, inference = 0, learning = 0;
  };
  static double since(clock::time_point& mark) {
    const auto now = clock::now();
    const double passed = std::chrono::duration<double>(now - mark).count();
    mark = now;
    return passed;
  }

  /// Plays `horizon` steps of every game.
  void collect(update_report& report) {
    const at::NoGradGuard no_grad;
    auto mark = clock::now();
    std::vector<key> keys(games_.size());
    std::vector<step_result> results(games_.size());
    rollout_->state = state_;
    for (std::int64_t t = 0; t <= options_.horizon; ++t) {
      if (t == 0)
        rollout_->observations[0].copy_(rollout_->observations[options_.horizon]);
      else
        look(t);
      times_.game += since(mark);
      const auto said = network_->forward(rollout_->observations[t], state_);
      rollout_->values[t].copy_(said.value);
      if (t == options_.horizon) {  // only the value at the end of the rollout is needed
        times_.inference += since(mark);
        break;
      }
      rollout_->logits[t].copy_(said.logits);
      state_ = said.state;
      choose(t, keys);
      times_.inference += since(mark);
      games_.step(keys, results);
      evaluate_truncated(t);
      float* rewards = rollout_->rewards[t].template data_ptr<float>();
      float* terminated = rollout_->terminated[t].template data_ptr<float>();
      float* truncated = rollout_->truncated[t].template data_ptr<float>();
      for (std::size_t i = 0; i < games_.size(); ++i) {
        const double reward = std::clamp(results[i].reward * options_.reward_scale,
                                         -options_.reward_clip, options_.reward_clip);
        scaler_.add(i, reward, results[i].done);
        rewards[i] = static_cast<float>(reward);
        const bool cut = is_truncation(results[i].ending);
        truncated[i] = cut ? 1.0f : 0.0f;
        terminated[i] = results[i].done && !cut ? 1.0f : 0.0f;
        if (results[i].done) begin_game(i);
      }
      for (const auto& episode : games_.finished()) report.episodes.push_back(episode);
      times_.game += since(mark);
    }
    steps_ += options_.games * options_.horizon;
  }

  /// Writes the values of the states at which step t cut episodes off. Call it before begin_game():
  /// the memory and the network's state still belong to these episodes.
  void evaluate_truncated(std::int64_t t) {
    const auto& cut = games_.truncated();
    if (cut.empty()) return;
    std::vector<features> records;
    std::vector<std::int64_t> which;
    for (const auto& [i, last] : cut) {
      minds_[i].observe(last, last_actions_[i]);
      records.push_back(encode(last, minds_[i], network_->config().features()));
      records.back().first = false;
      which.push_back(static_cast<std::int64_t>(i));
    }
    const auto indices = at::tensor(which, at::kLong);
    const auto said = network_->forward(to_tensor(records), state_.index_select(0, indices));
    rollout_->truncated_values[t].index_copy_(0, indices, said.value);
  }

  void begin_game(std::size_t i) {
    minds_[i].reset();
    last_actions_[i] = memory::no_action;
  }

  /// Reads the screen of every game, once per screen, because a memory counts them.
  void look(std::int64_t t) {
    features* records = rollout_->records(t);
    for (std::size_t i = 0; i < games_.size(); ++i) {
      minds_[i].observe(games_.view(i), last_actions_[i]);
      records[i] = encode(games_.view(i), minds_[i], network_->config().features());
      records[i].first = last_actions_[i] == memory::no_action;
    }
  }

  void choose(std::int64_t t, std::vector<key>& keys) {
    const auto actions = static_cast<std::size_t>(network_->config().actions);
    const float* logits = rollout_->logits[t].template data_ptr<float>();
    std::int64_t* chosen = rollout_->actions[t].template data_ptr<std::int64_t>();
    std::uniform_real_distribution<double> quantile;
    for (std::size_t i = 0; i < games_.size(); ++i) {
      last_actions_[i] = action_at_quantile({logits + i * actions, actions}, quantile(dice_));
      chosen[i] = last_actions_[i];
      keys[i] = small_actions[static_cast<std::size_t>(last_actions_[i])].code;
    }
  }

  void learn(update_report& report) {
    auto mark = clock::now();
    const bool recurrent = network_->recurrent();
    const auto batch =
        rollout_->batch(recurrent, scaler_.deviation(),
                        {.gamma = options_.discount, .gae_lambda = options_.gae_decay});
    const bool warming_up = steps_ <= options_.critic_warmup;
    at::Tensor teacher_logits;
    // once per rollout, not once per epoch; a recurrent teacher needs all steps
    if (options_.retention.kickstarting && (recurrent || !warming_up))
      teacher_logits =
          retention_.template find<kickstarting_term>("kickstarting")
              ->target(visited_steps{batch.observations, first_steps(batch.observations)})
              .logits;
    const double progress = static_cast<double>(steps_) / static_cast<double>(options_.steps);
    if (progress <= options_.collect_first) return;
    const double rate = options_.schedule == rate_schedule::linear
                            ? options_.learning_rate * std::max(0.0, 1 - progress)
                            : options_.learning_rate;
    report.learning_rate = warming_up ? options_.critic_warmup_rate : rate;
    optimizer_->set_learning_rate(report.learning_rate);

    double minibatches = 0;
    std::vector<std::int64_t> order(static_cast<std::size_t>(batch.stretches()));
    const auto each = options_.minibatch / batch.steps();
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
    for (int epoch = 0; epoch < options_.epochs; ++epoch) {
      std::shuffle(order.begin(), order.end(), dice_);
      for (std::int64_t start = 0; start < batch.stretches(); start += each, ++minibatches) {
        const auto indices = at::from_blob(order.data() + start, {each}, at::kLong);
        if (warming_up)
          learn_value(batch.select(indices), report);
        else
          learn_all(
              batch.select(indices),
              teacher_logits.defined() ? teacher_logits.index_select(1, indices) : at::Tensor(),
              report);
      }
    }
    for (double* sum : {&report.approx_kl, &report.clip_fraction, &report.policy_loss,
                        &report.value_loss, &report.entropy, &report.gradient_norm})
      *sum /= minibatches;
    report.explained_variance =
        retain::explained_variance(batch.values, batch.returns).template item<double>();
    times_.learning += since(mark);
  }

  void learn_value(const stretch_batch& batch, update_report& report) {
    const auto loss = retain::ppo_value_loss(
        network_->value_with_fixed_trunk(batch.observations, batch.state), batch.returns);
    optimizer_->zero_grad();
    loss.backward();
    report.gradient_norm += optimizer_->step(options_.longest_gradient);
    report.value_loss += loss.template item<double>();
  }

  void learn_all(const stretch_batch& batch, const at::Tensor& teacher_logits,
                 update_report& report) {
    const auto said = network_->forward(batch.observations, batch.state);
    const auto distribution = said.distribution();
    const auto surrogate =
        retain::ppo_policy_loss(distribution.log_prob(batch.actions), batch.log_probs,
                                retain::normalized(batch.advantages), options_.clip);
    const auto value_loss =
        retain::ppo_value_loss(said.value, batch.returns, batch.values, options_.value_clip);
    const auto& log_probs = distribution.log_probs();
    const auto entropy = -(log_probs.exp() * log_probs).sum(-1).mean();
    auto loss = surrogate.loss + options_.value_weight * value_loss;
    if (options_.entropy != 0) loss = loss - options_.entropy * entropy;

    if (options_.retention.any()) {
      // Kickstarting uses the states of this minibatch, whose forward pass is done. Cloning uses
      // its own states.
      const auto student = [&](const at::Tensor& observations) {
        return observations.is_same(batch.observations)
                   ? retain::masked<retain::categorical>{distribution, {}}
                   : answer(network_, observations);
      };
      // Without kickstarting there is no teacher, and no term uses it.
      const retain::categorical teacher{teacher_logits.defined() ? teacher_logits
                                                                 : said.logits.detach()};
      loss = loss + retention_.distillation(student, distilled_steps{batch.observations, teacher});
    }
    optimizer_->zero_grad();
    loss.backward();
    retention_.add_gradient(*network_);
    report.gradient_norm += optimizer_->step(options_.longest_gradient);
    retention_.step(static_cast<double>(++optimizer_steps_));

    report.approx_kl += surrogate.approx_kl.template item<double>();
    report.clip_fraction += surrogate.clip_fraction.template item<double>();
    report.policy_loss += surrogate.loss.template item<double>();
    report.value_loss += value_loss.template item<double>();
    report.entropy += entropy.template item<double>();
  }

  void finish(update_report& report) {
    report.steps = steps_;
    report.updates = ++updates_;
    report.optimizer_steps = optimizer_steps_;
    report.retention = retention_.breakdown();
    report.return_deviation = scaler_.deviation();
    const double passed = std::chrono::duration<double>(clock::now() - began_).count();
    report.steps_per_second = static_cast<double>(steps_ - steps_at_start_) / passed;
    report.game_seconds = times_.game;
    report.inference_seconds = times_.inference;
    report.learning_seconds = times_.learning;
  }

  finetune_options options_;
  policy network_;
  Games& games_;
  std::mt19937_64 dice_;
  return_scaler scaler_;
  retention_terms retention_;
  std::optional<training::adam> optimizer_;
  std::optional<rollout> rollout_;
  at::Tensor state_;  // of the network in every game
  std::vector<memory> minds_;
  std::vector<int> last_actions_;
  std::int64_t steps_ = 0, updates_ = 0, optimizer_steps_ = 0, steps_at_start_ = 0;
  clock::time_point began_;
  seconds_spent times_;
};

}  // namespace nethack
