// SPDX-License-Identifier: MIT
// Soft actor-critic with a head and a temperature for every kind of stage.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <retain/loss/sac.hpp>
#include <retain/loss/sac_temperature.hpp>
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/policy/twin_critic.hpp>
#include <retain/polyak.hpp>
#include <retain/replay/transitions.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "../common/adam.hpp"
#include "sequence.hpp"
#include "settings.hpp"

namespace robotic_sequence {

using actor_network = retain::actor_critic<retain::mlp, retain::tanh_gaussian_head>;

/// An observation is the world's numbers followed by a one-hot of the kind of stage. The one-hot
/// covers all six kinds for every sequence, so a policy of one sequence works in another one.
inline constexpr std::int64_t kinds = 6;
inline constexpr std::int64_t observation_width = sequence::observation_size + kinds;

inline actor_network make_actor(const agent_settings& settings) {
  const std::int64_t seen = settings.one_hot ? observation_width : sequence::observation_size;
  return actor_network{
      retain::mlp(seen, retain::mlp_options{.hidden = {settings.width, settings.width}}),
      retain::tanh_gaussian_head{
          .dimensions = sequence::action_size, .least_log_std = -5, .greatest_log_std = 2},
      {.values = 0, .stages = settings.one_hot ? 1 : kinds}};
}
inline retain::twin_critic make_critics(const agent_settings& settings) {
  const std::int64_t seen = settings.one_hot ? observation_width : sequence::observation_size;
  return retain::twin_critic(seen, sequence::action_size,
                             retain::twin_critic_options{.hidden = {settings.width, settings.width},
                                                         .stages = settings.one_hot ? 1 : kinds});
}

template <class Network>
void copy_weights(Network& to, const Network& from) {
  retain::polyak_update(*to, *from, 1);
}
template <class Network>
void save_weights(retain::state& out, const Network& network, const std::string& prefix) {
  for (const auto& parameter : network->named_parameters())
    out.set(prefix + parameter.key(), parameter.value().detach());
}
template <class Network>
void load_weights(const retain::state& in, Network& network, const std::string& prefix) {
  const at::NoGradGuard no_grad;
  for (auto& parameter : network->named_parameters()) {
    const auto& saved = in.tensor(prefix + parameter.key());
    if (saved.sizes() != parameter.value().sizes())
      throw retain::shape_error(
          "the saved '" + parameter.key() +
          "' has another shape than its network: was it made with another --width?");
    parameter.value().copy_(saved);
  }
}

/// One temperature for each kind of stage. The kinds marked in `known` get the cap of known stages.
inline retain::sac_temperature make_temperature(const agent_settings& settings,
                                                const std::vector<bool>& known) {
  std::vector<double> cap;
  for (std::size_t kind = 0; kind < static_cast<std::size_t>(kinds); ++kind)
    cap.push_back(kind < known.size() && known[kind] ? settings.known_alpha_cap
                                                     : settings.alpha_cap);
  return retain::sac_temperature(
      settings.entropy_target, kinds,
      {.initial = {settings.initial_alpha}, .floor = {settings.alpha_floor}, .cap = cap});
}

struct update_losses {
  at::Tensor critics, actor;  ///< 0-dim, detached
  at::Tensor log_probs;       ///< [batch], of the actions that the actor drew
};

/// The networks and their optimizers. One update computes
///
///     critics: (Q_k(s, a) − y)² / 2, y of retain::sac_target
///     actor: retain::sac_policy_loss + the retention loss
///     temperatures: retain::sac_temperature::add_gradient
///     target critics: a step of τ towards the critics
///
/// All of them use the actor from before the update.
class sac_agent {
 public:
  /// `known`: the kinds of stage that use the temperature cap of pre-trained stages.
  sac_agent(const agent_settings& settings, std::vector<bool> known, std::uint64_t seed)
      : settings_(settings),
        actor_((at::manual_seed(seed), make_actor(settings))),
        critics_(make_critics(settings)),
        targets_(make_critics(settings)),
        temperature_(make_temperature(settings, known)),
        dice_(at::detail::createCPUGenerator(seed)) {
    copy_weights(targets_, critics_);
    for (auto& parameter : targets_->parameters()) parameter.set_requires_grad(false);
    actor_weights_ = actor_->parameters();
    build_optimizers();
  }
  sac_agent(const sac_agent&) = delete;
  sac_agent& operator=(const sac_agent&) = delete;

  actor_network actor() const { return actor_; }
  retain::twin_critic critics() const { return critics_; }
  retain::twin_critic targets() const { return targets_; }
  const retain::sac_temperature& temperature() const { return temperature_; }
  const agent_settings& settings() const { return settings_; }

  /// Returns one action for each row of observations [n, observation_width]. The action is a
  /// sample, or the mode of the distribution.
  at::Tensor act(const at::Tensor& observations, bool draw) {
    const at::NoGradGuard no_grad;
    const auto said = actor_->forward(observations);
    return draw ? said.sample(dice_) : said.mode();
  }

  /// `batch` has observation, action, reward, next and ended. `retention` returns a loss that is
  /// added to the actor's loss, with its graph. `pull` adds to the actor's gradients after the
  /// backward pass. Both may be empty.
  update_losses update(
      const retain::transitions& batch,
      const std::function<at::Tensor(const at::Tensor& observations)>& retention = {},
      const std::function<void()>& pull = {}) {
    const auto& observations = batch["observation"];
    const auto& next = batch["next"];
    const auto stage = stage_of(observations);

    const auto alpha = temperature_.alpha(stage);
    at::Tensor target;
    {
      const at::NoGradGuard no_grad;
      // The successor of a stage that continues is the same stage. A stage that ended has no
      // successor.
      const auto then = actor_->forward(next).rsample_with_log_prob(dice_);
      target = retain::sac_target(
          batch["reward"], batch["ended"], targets_->forward(next, then.action), then.log_prob,
          alpha, settings_.discount, {-settings_.value_bound, settings_.value_bound});
    }
    const auto now = actor_->forward(observations).rsample_with_log_prob(dice_);
    critic_adam_->zero_grad();
    const auto critic_loss =
        retain::sac_critic_loss(critics_->forward(observations, batch["action"]), target);
    critic_loss.backward();
    critic_adam_->step();

    const auto actor =
        retain::sac_policy_loss(critics_->forward(observations, now.action), now.log_prob, alpha);
    const update_losses said{critic_loss.detach(), actor.loss.detach(), actor.log_probs};
    actor_adam_->zero_grad();
    // the actor's loss gives no gradient to the critics' weights
    (retention ? actor.loss + retention(observations) : actor.loss)
        .backward({}, false, false, actor_weights_);
    if (pull) pull();
    actor_adam_->step();

    temperature_adam_->zero_grad();
    temperature_.add_gradient(actor.log_probs, stage);
    temperature_adam_->step();
    retain::polyak_update(*targets_, *critics_, settings_.tau);
    return said;
  }

  /// The kind of stage of each row, as int64.
  static at::Tensor stage_of(const at::Tensor& observations) {
    return retain::stage_of(observations, kinds);
  }

  /// Loads the weights and temperatures of a pre-trained agent. The optimizers start fresh.
  void begin_with(const retain::state& in, const std::string& prefix) {
    load_networks(in, prefix);
    build_optimizers();
  }
  void save_networks(retain::state& out, const std::string& prefix) const {
    save_weights(out, actor_, prefix + "actor.");
    save_weights(out, critics_, prefix + "critics.");
    save_weights(out, targets_, prefix + "targets.");
    temperature_.save_state(out, prefix + "temperature.");
  }
  void save_state(retain::state& out, const std::string& prefix) const {
    save_networks(out, prefix);
    actor_adam_->save_state(out, prefix + "actor_adam.");
    critic_adam_->save_state(out, prefix + "critic_adam.");
    temperature_adam_->save_state(out, prefix + "temperature_adam.");
    out.set(prefix + "dice", dice_.get_state());
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    load_networks(in, prefix);
    actor_adam_->load_state(in, prefix + "actor_adam.");
    critic_adam_->load_state(in, prefix + "critic_adam.");
    temperature_adam_->load_state(in, prefix + "temperature_adam.");
    dice_.set_state(in.tensor(prefix + "dice"));
  }

 private:
  template <class Network>
  std::unique_ptr<training::adam> adam_of(const Network& network) const {
    std::vector<std::pair<std::string, at::Tensor>> parameters;
    for (auto& parameter : network->named_parameters())
      parameters.emplace_back(parameter.key(), parameter.value());
    return std::make_unique<training::adam>(
        std::move(parameters), training::adam_options{.learning_rate = settings_.learning_rate});
  }
  void build_optimizers() {
    actor_adam_ = adam_of(actor_);
    critic_adam_ = adam_of(critics_);
    std::vector<std::pair<std::string, at::Tensor>> temperatures;
    for (const auto& [name, tensor] : temperature_.named_parameters())
      temperatures.emplace_back(name, tensor);
    temperature_adam_ = std::make_unique<training::adam>(
        std::move(temperatures), training::adam_options{.learning_rate = settings_.learning_rate});
  }
  void load_networks(const retain::state& in, const std::string& prefix) {
    load_weights(in, actor_, prefix + "actor.");
    load_weights(in, critics_, prefix + "critics.");
    load_weights(in, targets_, prefix + "targets.");
    temperature_.load_state(in, prefix + "temperature.");
  }

  agent_settings settings_;
  actor_network actor_;
  retain::twin_critic critics_, targets_;
  retain::sac_temperature temperature_;
  at::Generator dice_;
  std::vector<at::Tensor> actor_weights_;
  std::unique_ptr<training::adam> actor_adam_, critic_adam_, temperature_adam_;
};

}  // namespace robotic_sequence
