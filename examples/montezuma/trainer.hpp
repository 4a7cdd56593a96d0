// SPDX-License-Identifier: MIT
// Proximal policy optimization with a novelty bonus and with retention, on many games at once.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <retain/loss/ppo.hpp>
#include <retain/loss/two_stream_gae.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "../common/adam.hpp"
#include "../common/interrupt.hpp"
#include "../common/progress.hpp"
#include "evaluate.hpp"
#include "games.hpp"
#include "novelty.hpp"
#include "policy.hpp"
#include "retention.hpp"
#include "settings.hpp"
#include "step_batch.hpp"
#include "update_report.hpp"

namespace montezuma {

/// `start` itself is trained. Equal settings and games give equal runs, bit for bit. A run that is
/// saved, loaded and continued also gives the same result.
template <emulator Game, trainable_policy Policy = policy>
class trainer {
 public:
  trainer(Policy start, std::vector<Game> all, training_settings settings,
          retention_terms retention = {}, retention_settings kept = {})
      : settings_(std::move(settings)),
        kept_(kept),
        network_(std::move(start)),
        games_(std::move(all), settings_.room),
        dice_(settings_.seed),
        retention_(std::move(retention)),
        novelty_(settings_, newest_shape<Game>()) {
    if (static_cast<std::int64_t>(games_.size()) != settings_.games)
      throw retain::config_error("trainer: " + std::to_string(games_.size()) +
                                 " games, but the settings say " + std::to_string(settings_.games));
    if (settings_.games * settings_.horizon % settings_.minibatches != 0)
      throw retain::config_error("trainer: " + std::to_string(settings_.games * settings_.horizon) +
                                 " steps do not divide into " +
                                 std::to_string(settings_.minibatches) + " minibatches");
    if (kept_.any() == retention_.empty())
      throw retain::config_error("trainer: retention terms and their settings do not match");
    std::vector<std::pair<std::string, at::Tensor>> learning;
    for (auto& parameter : network_->named_parameters())
      learning.emplace_back(parameter.key(), parameter.value());
    for (auto& [name, tensor] : learning) parameters_.push_back(tensor);
    optimizer_.emplace(std::move(learning),
                       training::adam_options{.learning_rate = settings_.learning_rate,
                                              .epsilon = settings_.adam_epsilon});
    auto sizes = Game::observation_shape();
    for (const auto size : sizes) numbers_ *= static_cast<std::size_t>(size);
    sizes.insert(sizes.begin(), {settings_.horizon + 1, settings_.games});
    observations_ = at::empty(sizes, observation_type<Game>);
    values_ = at::empty({settings_.horizon + 1, settings_.games, 2});
    for (auto* each : {&rewards_, &terminated_, &truncated_, &log_probs_})
      *each = at::empty({settings_.horizon, settings_.games});
    truncated_values_ = at::zeros({settings_.horizon, settings_.games});
    actions_ = at::empty({settings_.horizon, settings_.games}, at::kLong);
    places_.resize(static_cast<std::size_t>(settings_.horizon * settings_.games));
  }

  Policy network() const { return network_; }
  std::int64_t steps() const { return steps_; }
  const training_settings& settings() const { return settings_; }
  bool finished() const { return steps_ >= settings_.steps; }
  std::size_t places_seen() const { return novelty_.places(); }

  /// Plays one rollout and learns from it.
  update_report update() {
    update_report report;
    if (steps_ == 0 && settings_.bonus == bonus_kind::rnd) warm_up();
    const auto begin = clock::now();
    play();
    const auto played = clock::now();
    learn(report);
    const auto learned = clock::now();
    playing_ += std::chrono::duration<double>(played - begin).count();
    learning_ += std::chrono::duration<double>(learned - played).count();
    steps_here_ += settings_.games * settings_.horizon;
    steps_ += settings_.games * settings_.horizon;
    report.steps = steps_;
    report.steps_per_second = static_cast<double>(steps_here_) / (playing_ + learning_);
    report.playing_seconds = playing_;
    report.learning_seconds = learning_;
    report.episodes = games_.take_finished();
    report.retention = retention_.breakdown();
    return report;
  }

  /// The terms, whose strengths a caller may set or adapt.
  retention_terms& retention() { return retention_; }

  void save_state(retain::state& out, const std::string& prefix) const {
    save_network(out, network_, prefix + "policy.");
    optimizer_->save_state(out, prefix + "adam.");
    retention_.save_state(out, prefix + "retention.");
    novelty_.save_state(out, prefix + "novelty.");
    games_.save_state(out, prefix + "games.");
    std::ostringstream dice;
    dice << dice_;
    out.set(prefix + "dice", dice.str());
    out.set(prefix + "steps", steps_);
    out.set(prefix + "optimizer_steps", optimizer_steps_);
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    const auto saved = load_network<Policy>(in, prefix + "policy.");
    if (shape_of(saved) != shape_of(network_))
      throw retain::shape_error("the checkpoint has a policy of another shape");
    const at::NoGradGuard no_grad;
    auto own = network_->named_parameters();
    for (const auto& parameter : saved->named_parameters())
      own[parameter.key()].copy_(parameter.value());
    optimizer_->load_state(in, prefix + "adam.");
    retention_.load_state(in, prefix + "retention.");
    novelty_.load_state(in, prefix + "novelty.");
    games_.load_state(in, prefix + "games.");
    std::istringstream(in.text(prefix + "dice")) >> dice_;
    steps_ = in.integer(prefix + "steps");
    optimizer_steps_ = in.integer(prefix + "optimizer_steps");
  }

 private:
  using clock = std::chrono::steady_clock;
  using value_type = typename Game::value_type;

  template <class Number>
  static std::span<Number> row(at::Tensor& of, std::int64_t t) {
    const auto width = static_cast<std::size_t>(of.size(1));
    return {of.template data_ptr<Number>() + static_cast<std::size_t>(t) * width, width};
  }
  void look(std::int64_t t) {
    games_.observe(observations_.template data_ptr<value_type>() +
                       static_cast<std::size_t>(t * settings_.games) * numbers_,
                   numbers_);
  }

  /// Plays fifty rollouts of random actions, as Burda et al. 2018 do. With pictures of a real game
  /// this takes minutes, so it shows its progress and stops at Ctrl-C. Nothing is lost then.
  void warm_up() {
    std::uniform_int_distribution<std::int64_t> any(0, Game::actions - 1);
    const auto total = settings_.rnd_warm_up * settings_.horizon * settings_.games;
    progress shown("warm-up", static_cast<double>(total), "steps");
    std::int64_t done = 0;
    for (int rollout = 0; rollout < settings_.rnd_warm_up; ++rollout) {
      for (std::int64_t t = 0; t < settings_.horizon; ++t) {
        if (interrupt::requested()) throw std::runtime_error("stopped before training began");
        shown.update(static_cast<double>(done));
        done += settings_.games;
        for (auto& action : row<std::int64_t>(actions_, 0)) action = any(dice_);
        games_.step(row<std::int64_t>(actions_, 0), row<float>(rewards_, 0),
                    row<float>(terminated_, 0), row<float>(truncated_, 0),
                    {places_.data(), games_.size()});
        look(t + 1);
      }
      novelty_.warm_up(newest_of<Game>(observations_.narrow(0, 1, settings_.horizon)));
    }
    games_.take_finished();
  }

  void play() {
    const at::NoGradGuard no_grad;
    std::uniform_real_distribution<double> quantile;
    const auto width = games_.size();
    for (std::int64_t t = 0; t <= settings_.horizon; ++t) {
      look(t);
      const auto said = network_->evaluate(observations_[t]);
      values_[t].copy_(said.values);
      if (t == settings_.horizon) break;
      const auto logits = said.distribution.logits.contiguous();
      const auto count = static_cast<std::size_t>(logits.size(1));
      auto actions = row<std::int64_t>(actions_, t);
      auto log_probs = row<float>(log_probs_, t);
      for (std::size_t i = 0; i < width; ++i) {
        const auto drawn =
            draw_action({logits.template data_ptr<float>() + i * count, count}, quantile(dice_));
        actions[i] = drawn.action;
        log_probs[i] = drawn.log_probability;
      }
      games_.step(actions, row<float>(rewards_, t), row<float>(terminated_, t),
                  row<float>(truncated_, t),
                  {places_.data() + static_cast<std::size_t>(t) * width, width});
      evaluate_truncated(t);
    }
  }

  /// Writes the values of the states at which step t cut episodes off.
  void evaluate_truncated(std::int64_t t) {
    if (games_.truncated().games.empty()) return;
    auto cut = games_.truncated();
    auto sizes = Game::observation_shape();
    sizes.insert(sizes.begin(), static_cast<std::int64_t>(cut.games.size()));
    const auto said =
        network_->evaluate(at::from_blob(cut.observations.data(), sizes, observation_type<Game>));
    truncated_values_[t].index_copy_(0, at::tensor(cut.games, at::kLong),
                                     said.values.select(1, task_value));
  }

  step_batch make_batch(update_report& report) {
    const at::NoGradGuard no_grad;
    const auto horizon = settings_.horizon;
    const auto next = newest_of<Game>(observations_.narrow(0, 1, horizon));
    const auto bonus = novelty_.rewards(places_, next);
    report.bonus = bonus.mean().template item<double>();
    const auto stream = [&](const at::Tensor& rewards, std::int64_t which) {
      const auto values = values_.select(2, which);
      return retain::value_steps{.rewards = rewards,
                                 .values = values.narrow(0, 0, horizon),
                                 .last_value = values[horizon]};
    };
    auto task = stream(settings_.reward_signs ? rewards_.sign() : rewards_, task_value);
    task.terminated = terminated_;
    task.truncated = truncated_;
    task.truncated_values = truncated_values_;
    const auto estimates = retain::two_stream_gae(
        task, stream(bonus, novelty_value),
        {.extrinsic = {.gamma = settings_.discount, .gae_lambda = settings_.gae_decay},
         .intrinsic = {.gamma = settings_.novelty_discount, .gae_lambda = settings_.gae_decay},
         .extrinsic_weight = settings_.reward_weight,
         .intrinsic_weight = settings_.bonus == bonus_kind::none ? 0 : settings_.novelty_weight});
    step_batch all{
        observations_.narrow(0, 0, horizon).flatten(0, 1),
        settings_.bonus == bonus_kind::rnd ? next.flatten(0, 1) : at::Tensor(),
        actions_.flatten(),
        log_probs_.flatten(),
        settings_.normalize_advantages ? retain::normalized(estimates.advantages.flatten())
                                       : estimates.advantages.flatten(),
        at::stack({estimates.extrinsic_returns.flatten(), estimates.intrinsic_returns.flatten()},
                  1),
        {}};
    if (kept_.ks)
      all.teacher_logits = retention_.template find<kickstarting_of<Policy>>("kickstarting")
                               ->target(visited_states_only{all.observations})
                               .logits;
    return all;
  }

  void learn(update_report& report) {
    const auto all = make_batch(report);
    const auto count = settings_.games * settings_.horizon, each = count / settings_.minibatches;
    auto order = at::empty({count}, at::kLong);
    auto* place = order.template data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < count; ++i) place[i] = i;
    for (int epoch = 0; epoch < settings_.epochs; ++epoch) {
      std::shuffle(place, place + count, dice_);
      const auto shuffled = all.select(order);
      for (std::int64_t from = 0; from < count; from += each)
        learn_from(shuffled.part(from, each), report);
    }
    const auto minibatches =
        static_cast<double>(settings_.epochs) * static_cast<double>(settings_.minibatches);
    for (double* sum : {&report.policy_loss, &report.value_loss, &report.entropy, &report.approx_kl,
                        &report.clip_fraction, &report.gradient_norm})
      *sum /= minibatches;
  }

  void learn_from(const step_batch& some, update_report& report) {
    const auto said = network_->evaluate(some.observations);
    const auto& log_probs = said.distribution.log_probs();
    const auto surrogate = retain::ppo_policy_loss(
        said.distribution.log_prob(some.actions), some.log_probs, some.advantages,
        {.lowest = 1 - settings_.clip, .highest = 1 + settings_.clip});
    // The mean over both values, so twice this mean is the sum of their mean squared errors.
    const auto value_loss = retain::ppo_value_loss(said.values, some.returns) * 2;
    const auto entropy = -(log_probs.exp() * log_probs).sum(-1).mean();
    optimizer_->zero_grad();
    // Distillation uses the graph of the forward pass. Its gradient is added after the task's
    // gradient was clipped.
    (surrogate.loss + settings_.value_weight * value_loss - settings_.entropy * entropy)
        .backward({}, /*retain_graph=*/kept_.ks);
    report.gradient_norm += shorten_gradient();
    if (kept_.bc || kept_.ks) {
      const auto student = [&](const at::Tensor& observations) {
        return observations.is_same(some.observations) ? said.distribution
                                                       : network_->forward(observations);
      };
      const retain::categorical teacher{
          some.teacher_logits.defined() ? some.teacher_logits : said.distribution.logits.detach()};
      // The result has no graph if every strength is 0.
      if (const auto distance =
              retention_.distillation(student, visited_steps{some.observations, teacher});
          distance.requires_grad())
        distance.backward();
    }
    retention_.add_gradient(*network_);
    optimizer_->step();
    ++optimizer_steps_;
    retention_.step(static_cast<double>(optimizer_steps_));
    novelty_.learn(some.next_observations);

    report.policy_loss += surrogate.loss.template item<double>();
    report.value_loss += value_loss.template item<double>();
    report.entropy += entropy.template item<double>();
    report.approx_kl += surrogate.approx_kl.template item<double>();
    report.clip_fraction += surrogate.clip_fraction.template item<double>();
  }

  double shorten_gradient() {
    const double norm = optimizer_->gradient_norm();
    if (settings_.longest_gradient > 0 && norm > settings_.longest_gradient)
      for (auto& parameter : parameters_)
        if (parameter.grad().defined())
          parameter.mutable_grad().mul_(settings_.longest_gradient / norm);
    return norm;
  }

  training_settings settings_;
  retention_settings kept_;
  Policy network_;
  games<Game> games_;
  std::mt19937_64 dice_;
  retention_terms retention_;
  novelty novelty_;
  std::optional<training::adam> optimizer_;
  std::vector<at::Tensor> parameters_;
  std::size_t numbers_ = 1;  // of an observation
  at::Tensor observations_, values_, rewards_, terminated_, truncated_, truncated_values_,
      log_probs_, actions_;
  std::vector<std::uint64_t> places_;
  std::int64_t steps_ = 0, optimizer_steps_ = 0, steps_here_ = 0;
  double playing_ = 0, learning_ = 0;
};

}  // namespace montezuma
