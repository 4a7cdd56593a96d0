// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/core/module_tensors.hpp>
#include <retain/core/parameters.hpp>
#include <retain/policy/head_net.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/policy/orthogonal.hpp>
#include <retain/policy/recurrent_core.hpp>
#include <retain/policy/select_head.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numbers>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain {

enum class critic_kind : std::uint8_t {
  shared,    ///< policy and values use the same features, and both train the encoder
  detached,  ///< the values use the same features, but do not train the encoder
  separate,  ///< the values have their own encoder and core, initialized as copies
};

struct actor_critic_options {
  core_kind core = core_kind::none;
  std::int64_t core_width = 256;
  /// widths of the hidden layers between the encoder (or core) and the distribution
  std::vector<std::int64_t> policy_hidden = {};
  std::vector<std::int64_t> value_hidden = {};  ///< widths of the hidden layers before the values
  /// the activation of these hidden layers
  activation_kind activation = activation_kind::relu;
  /// number of values: 0 for a policy without a critic, 2 for two kinds of rewards
  std::int64_t values = 1;
  critic_kind critic = critic_kind::shared;
  /// S above 1: the last S numbers of an observation are a one-hot vector that selects the heads;
  /// the encoder does not receive them
  std::int64_t stages = 1;
  std::int64_t features = 0;  ///< F, if the encoder has no output_size()
  bool orthogonal = false;  ///< initialize all weights again, also the encoder's, with these gains
  double encoder_gain = std::numbers::sqrt2, policy_gain = 0.01, value_gain = 1.0;
};

/// The result of an actor_critic for observations [N, ...] or [T, N, ...].
template <action_distribution Distribution>
struct actor_critic_answer {
  Distribution distribution;  ///< rows [N] or [T, N]
  at::Tensor values;          ///< [..., values]; undefined without a critic
  at::Tensor state;           ///< [N, state_width()], after the last step; undefined without a core

  at::Tensor value(std::int64_t which = 0) const { return values.select(-1, which); }
};

/// A policy and its critic over any encoder, with or without a recurrent core. Parameters by name:
///
///     encoder.*, core.input.*, core.hidden.*             shared by policy and values
///     policy_head.hidden.*, policy_head.out.*
///     critic_encoder.*, critic_core.*                    of a separate critic
///     value_head.hidden.*, value_head.out.*
///
/// Observations are [N, ...] for one step of N episodes, or [T, N, ...] for T steps. A sequence
/// gives the same results as its steps one after the other. `state` is the state after the previous
/// step; an undefined state, or new_episodes{}, starts new episodes. `episode_start`, [N] or [T,
/// N], is 1 at the first step of an episode, and the state is reset before this step; an undefined
/// `episode_start` marks no step. A policy without a core ignores `state` and `episode_start`.
template <observation_encoder Encoder, policy_head Head>
class actor_critic_net : public torch::nn::Cloneable<actor_critic_net<Encoder, Head>> {
 public:
  using distribution_type =
      std::remove_cvref_t<std::invoke_result_t<const Head&, const at::Tensor&>>;
  using answer = actor_critic_answer<distribution_type>;

  /// Throws config_error if an option is out of its range.
  actor_critic_net(Encoder encoder, Head head, actor_critic_options options)
      : encoder_(std::move(encoder)), head_(std::move(head)), options_(std::move(options)) {
    if constexpr (requires { encoder_->output_size(); })
      options_.features = encoder_->output_size();
    if (options_.features < 1)
      throw config_error("actor_critic: the encoder has no output_size(): set the option "
                         "`features` to its number of features");
    if (options_.values < 0 || options_.stages < 1 || head_.outputs() < 1)
      throw config_error(detail::concat(
          "actor_critic: needs values of at least 0, and stages and outputs of at least 1, got ",
          options_.values, ", ", options_.stages, " and ", head_.outputs()));
    reset();
    if (options_.orthogonal) initialize();
  }

  void reset() override {
    // This network uses the given encoder itself; a copy of this network gets a copy of the
    // encoder.
    if (registered_) encoder_ = detail::copy_of(encoder_);
    this->register_module("encoder", encoder_);
    const bool recurrent = options_.core != core_kind::none;
    const auto make_core = [&](const char* name) {
      return recurrent_core(this->register_module(
          name, recurrent_core(options_.core, options_.features, options_.core_width)));
    };
    if (recurrent) core_ = make_core("core");
    const auto width = recurrent ? options_.core_width : options_.features;
    policy_head_ = this->register_module(
        "policy_head",
        std::make_shared<detail::head_net>(width, options_.policy_hidden, options_.activation,
                                           options_.stages * head_.outputs()));
    if (own_critic()) {
      critic_encoder_ = detail::copy_of(registered_ ? critic_encoder_ : encoder_);
      this->register_module("critic_encoder", critic_encoder_);
      if (recurrent) {
        critic_core_ = make_core("critic_core");
        copy_values(core_, critic_core_);
      }
    }
    if (options_.values > 0)
      value_head_ = this->register_module(
          "value_head",
          std::make_shared<detail::head_net>(width, options_.value_hidden, options_.activation,
                                             options_.stages * options_.values));
    registered_ = true;
  }

  bool recurrent() const { return options_.core != core_kind::none; }
  /// Returns the width of the state of one episode: 0 without a core.
  std::int64_t state_width() const {
    return !recurrent() ? 0 : core_->state_width() * (own_critic() ? 2 : 1);
  }
  /// Returns the state of n new episodes: zeros [n, state_width()].
  at::Tensor initial_state(std::int64_t n) const {
    return at::zeros({n, state_width()}, policy_head_->out->weight.options().requires_grad(false));
  }
  const actor_critic_options& options() const { return options_; }

  /// Returns distributions and values in one graph, for a training step. Throws shape_error if the
  /// shapes do not fit.
  template <class Observations>
  answer evaluate(const Observations& observations, const at::Tensor& state = {},
                  const at::Tensor& episode_start = {}) {
    return with_stages(observations, [&](const auto& seen, const at::Tensor& stage) {
      auto [features, next] = follow(encoder_, core_, seen, part(state, 0), episode_start);
      at::Tensor values;
      if (options_.values > 0) {
        auto read = options_.critic == critic_kind::detached ? features.detach() : features;
        if (own_critic()) std::tie(read, next) = follow_critic(seen, state, episode_start, next);
        values = own_head(value_head_->forward(read), stage);
      }
      return answer{head_(own_head(policy_head_->forward(features), stage)), values, next};
    });
  }

  /// Returns the distributions for independent observations: see retain::policy. Throws
  /// config_error if the policy has a core, because its result depends on earlier steps.
  template <class Observations>
  distribution_type forward(const Observations& observations) {
    if (recurrent())
      throw config_error("actor_critic: a recurrent policy needs its state: call "
                         "forward(observations, state, episode_start), with "
                         "new_episodes{} as the state of new episodes; in a term of this "
                         "library, give the rollout an episode_start");
    return std::get<0>(forward(observations, at::Tensor(), at::Tensor()));
  }

  /// Returns the distributions and the state after the last step: see retain::recurrent_policy. A
  /// policy without a core returns the given state.
  template <class Observations>
  std::tuple<distribution_type, at::Tensor> forward(const Observations& observations,
                                                    const at::Tensor& state,
                                                    const at::Tensor& episode_start) {
    return with_stages(observations, [&](const auto& seen, const at::Tensor& stage) {
      auto [features, next] = follow(encoder_, core_, seen, part(state, 0), episode_start);
      // Update the critic's part of the state too, so that later values are computed from it.
      if (recurrent() && own_critic())
        next = std::get<1>(follow_critic(seen, state, episode_start, next));
      return std::tuple<distribution_type, at::Tensor>{
          head_(own_head(policy_head_->forward(features), stage)), next};
    });
  }

 private:
  template <class Module>
  static void copy_values(const Module& from, const Module& to) {
    const at::NoGradGuard no_grad;
    for (auto [place, value] :
         detail::paired("actor_critic", parameters(to), detail::all_names(from)))
      place.copy_(value);
  }

  bool own_critic() const {
    return options_.values > 0 && options_.critic == critic_kind::separate;
  }

  void initialize() {
    const auto core_weights = [](const recurrent_core& core) {
      parameter_list weights;  // without the biases: an LSTM's forget-gate bias stays 1
      for (const auto& entry : parameters(core))
        if (entry.tensor.dim() == 2) weights.push_back(entry);
      return weights;
    };
    orthogonal(encoder_, options_.encoder_gain);
    if (recurrent()) orthogonal(core_weights(core_), 1);
    orthogonal(policy_head_, options_.encoder_gain);
    orthogonal(policy_head_->out, options_.policy_gain);
    if (own_critic()) copy_values(encoder_, critic_encoder_);
    if (own_critic() && recurrent()) copy_values(core_, critic_core_);
    if (options_.values == 0) return;
    orthogonal(value_head_, options_.encoder_gain);
    orthogonal(value_head_->out, options_.value_gain);
  }

  /// Calls `use` with the encoder's observations and the stage of each observation. The stage is
  /// undefined if there is only one stage.
  template <class Observations, class Use>
  auto with_stages(const Observations& observations, Use use) {
    if (options_.stages == 1) return use(observations, at::Tensor());
    if constexpr (std::convertible_to<const Observations&, at::Tensor>) {
      const at::Tensor all(observations);
      const auto seen = all.dim() < 1 ? 0 : all.size(-1) - options_.stages;
      if (seen < 1)
        throw shape_error(
            detail::concat("actor_critic: observations of shape ", detail::shape_text(all.sizes()),
                           " do not end in a one-hot of ", options_.stages, " stages"));
      return use(all.narrow(-1, 0, seen), stage_of(all, options_.stages));
    } else {
      throw config_error(
          "actor_critic: with more than one stage, observations must be a tensor that ends in a "
          "one-hot vector of the stages");
      return use(observations, at::Tensor());
    }
  }

  template <class Observations>
  std::pair<at::Tensor, at::Tensor> follow(Encoder& encoder, recurrent_core& core,
                                           const Observations& seen, const at::Tensor& state,
                                           const at::Tensor& episode_start) {
    static_assert(
        requires {
          { encoder->forward(seen) } -> std::convertible_to<at::Tensor>;
        }, "actor_critic: the encoder needs forward(observations), which returns the features "
           "as a tensor [..., F]");
    at::Tensor features = encoder->forward(seen);
    if (features.dim() < 1 || features.size(-1) != options_.features)
      throw shape_error(detail::concat("actor_critic: the encoder must return [..., ",
                                       options_.features, "], got ",
                                       detail::shape_text(features.sizes())));
    if (!recurrent()) return {features, state};
    // an encoder may return a sequence [T, N] flattened to rows
    if (episode_start.defined() && features.numel() == episode_start.numel() * options_.features) {
      auto sizes = episode_start.sizes().vec();
      sizes.push_back(options_.features);
      features = features.view(sizes);
    }
    return core(features, state, episode_start);
  }
  template <class Observations>
  std::pair<at::Tensor, at::Tensor> follow_critic(const Observations& seen, const at::Tensor& state,
                                                  const at::Tensor& episode_start,
                                                  const at::Tensor& next) {
    auto critic = follow(critic_encoder_, critic_core_, seen, part(state, 1), episode_start);
    critic.second = recurrent() ? at::cat({next, critic.second}, 1) : next;
    return critic;
  }

  /// Returns a part of a state: 0 for the policy, 1 for a critic that has its own core.
  at::Tensor part(const at::Tensor& state, std::int64_t which) const {
    if (!state.defined() || !recurrent() || !own_critic()) return state;
    if (state.dim() != 2 || state.size(1) != state_width())
      throw shape_error(detail::concat("actor_critic: the state needs the shape [N, ",
                                       state_width(), "], got ",
                                       detail::shape_text(state.sizes())));
    return state.narrow(1, which * core_->state_width(), core_->state_width());
  }

  at::Tensor own_head(const at::Tensor& outputs, const at::Tensor& stage) const {
    if (!stage.defined()) return outputs;
    return select_head(
        outputs, options_.stages,
        stage.reshape(outputs.sizes().slice(0, static_cast<std::size_t>(outputs.dim() - 1))));
  }

  Encoder encoder_;
  Head head_;
  actor_critic_options options_;
  bool registered_ = false;
  Encoder critic_encoder_{nullptr};
  recurrent_core core_{nullptr}, critic_core_{nullptr};
  std::shared_ptr<detail::head_net> policy_head_, value_head_;
};

/// A shared handle to an actor_critic_net, like LibTorch's module holders: a copy of the handle is
/// the same network. retain::teacher and clone() create another network.
///
///     actor_critic policy{mlp(8, mlp_options{.hidden = {64, 64}}), categorical_head{.actions = 4},
///                         {.core = core_kind::lstm}};
///     auto said = policy->evaluate(observations, state, episode_start);
///     // said.distribution, said.values, said.state
///     teacher expert{policy, recurrent_forward{}};
template <observation_encoder Encoder, policy_head Head>
class actor_critic : public torch::nn::ModuleHolder<actor_critic_net<Encoder, Head>> {
  using holder = torch::nn::ModuleHolder<actor_critic_net<Encoder, Head>>;

 public:
  using holder::holder;
  actor_critic(Encoder encoder, Head head, actor_critic_options options = {})
      : holder(std::make_shared<actor_critic_net<Encoder, Head>>(
            std::move(encoder), std::move(head), std::move(options))) {}

  /// Calls forward(observations) or forward(observations, state, episode_start).
  template <class... Arguments>
    requires requires(actor_critic_net<Encoder, Head>& net, const Arguments&... arguments) {
      net.forward(arguments...);
    }
  auto operator()(const Arguments&... arguments) const {
    return this->ptr()->forward(arguments...);
  }
};

/// The forward function of a teacher that always has a state: calls the model and returns
/// {prediction, state}. Without a forward function, a teacher of an actor_critic may be called both
/// with observations alone and with a state.
struct recurrent_forward {
  template <class Model, class Observations, class State>
    requires requires(Model& model, const Observations& observations, const State& state,
                      const at::Tensor& start) { model->forward(observations, state, start); }
  auto operator()(Model& model, const Observations& observations, const State& state,
                  const at::Tensor& episode_start) const {
    return model->forward(observations, state, episode_start);
  }
};

}  // namespace retain
