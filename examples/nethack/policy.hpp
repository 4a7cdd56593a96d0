// SPDX-License-Identifier: MIT
// The small policy: about a million parameters, fast enough to learn and play on one core.
#pragma once

#include "../common/saved_tensor.hpp"
#include "actions.hpp"
#include "core.hpp"
#include "features.hpp"
#include "input_layers.hpp"

#include <retain/categorical.hpp>
#include <retain/error.hpp>
#include <retain/state.hpp>

#include <torch/nn/cloneable.h>

#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace nethack {

struct policy_config {
  int cell_width = 8;  ///< size of the embedding of a cell's token
  int encoder_width = 128;
  int trunk_width = 256;
  bool compass = true;               ///< see feature_options
  core_kind core = core_kind::none;  ///< recurrent: between the trunk and the heads
  /// the value has its own hidden layer, and its gradient does not reach the trunk
  bool separate_critic = false;
  int actions = static_cast<int>(small_actions.size());

  feature_options features() const { return {.compass = compass}; }
  bool operator==(const policy_config&) const = default;
};

/// The output of a policy for a batch of observations, [n] or [steps, n].
struct policy_output {
  at::Tensor logits;  ///< [..., actions]
  at::Tensor value;   ///< [...], in units of the training's scaled reward
  at::Tensor state;   ///< after the last step: see policy_net::initial_state

  retain::categorical distribution() const { return retain::categorical{logits}; }
};

/// Records as one tensor, uint8 [n, sizeof(features)]: the input of policy::forward and of all
/// classes that store observations.
inline at::Tensor to_tensor(std::span<const features> records) {
  auto batch = at::empty(
      {static_cast<std::int64_t>(records.size()), static_cast<std::int64_t>(sizeof(features))},
      at::kByte);
  std::memcpy(batch.data_ptr(), records.data(), records.size_bytes());
  return batch;
}

/// 1 at the first step of a game: [n] or [steps, n], like the observations.
inline at::Tensor first_steps(const at::Tensor& observations) {
  return observations.select(-1, static_cast<std::int64_t>(offsetof(features, first)));
}

/// A feed-forward policy, whose memory of the game is in the features, or a policy with a recurrent
/// core. Observations are uint8 [n, sizeof(features)], one step of n games, or [steps, n,
/// sizeof(features)], stretches of n games. The state of a call is the state before its first step.
/// It is reset before every step whose record is the first of a game. A feed-forward policy
/// evaluates each observation independently, and its state is empty. Parameters by name:
///
///     encoder.cells, encoder.crop.*     embeddings of the cells around the hero and the linear
///                                       layer over them
///     encoder.table                     rows for all other features, see nethack::table
///     encoder.norm.*
///     trunk.*, policy_head.*, value_head.*
///     core.input.*, core.hidden.*       of a recurrent policy
class policy_net : public torch::nn::Cloneable<policy_net> {
 public:
  explicit policy_net(policy_config config = {}) : config_(config) { reset(); }

  void reset() override {
    encoder_ = register_module("encoder", std::make_shared<encoder>(config_));
    trunk_ =
        register_module("trunk", torch::nn::Linear(config_.encoder_width, config_.trunk_width));
    policy_head_ =
        register_module("policy_head", torch::nn::Linear(config_.trunk_width, config_.actions));
    value_head_ = register_module("value_head", std::make_shared<value_head>(config_));
    core_ = register_module("core",
                            std::make_shared<recurrent_core>(config_.core, config_.trunk_width));
    const at::NoGradGuard no_grad;
    policy_head_->weight.mul_(0.1);  // starts close to the uniform policy
  }

  bool recurrent() const { return config_.core != core_kind::none; }
  /// The state of n new games: zeros [n, width]. A function that takes a state accepts an undefined
  /// tensor for it.
  at::Tensor initial_state(std::int64_t n) const { return at::zeros({n, core_->state_width()}); }

  policy_output forward(const at::Tensor& observations, const at::Tensor& state = {}) {
    const auto [hidden, next] = trunk(observations, state);
    return {shaped(policy_head_(hidden), observations),
            shaped(value_head_->forward(hidden), observations), next};
  }
  /// The same without the value: the logits, and the state after the last step.
  std::pair<at::Tensor, at::Tensor> follow(const at::Tensor& observations,
                                           const at::Tensor& state) {
    const auto [hidden, next] = trunk(observations, state);
    return {shaped(policy_head_(hidden), observations), next};
  }
  at::Tensor logits(const at::Tensor& observations, const at::Tensor& state = {}) {
    return follow(observations, state).first;
  }
  /// The value alone. With a separate critic, or for a warm-up, its gradient reaches only the value
  /// head.
  at::Tensor value_with_fixed_trunk(const at::Tensor& observations, const at::Tensor& state = {}) {
    at::Tensor hidden;
    {
      const at::NoGradGuard no_grad;
      hidden = trunk(observations, state).first;
    }
    return shaped(value_head_->forward(hidden), observations);
  }

  /// Replaces the critic by an untrained one, as a clone needs before fine-tuning.
  void reset_critic(bool separate) {
    config_.separate_critic = separate;
    value_head_ = replace_module("value_head", std::make_shared<value_head>(config_));
  }

  const policy_config& config() const { return config_; }

 private:
  struct encoder : torch::nn::Cloneable<encoder> {
    explicit encoder(policy_config chosen) : config(chosen) { reset(); }
    void reset() override {
      cells = register_parameter("cells", at::randn({token_count, config.cell_width}).mul_(0.5));
      crop = register_module(
          "crop", torch::nn::Linear(crop_cells * config.cell_width, config.encoder_width));
      table = register_parameter(
          "table", at::randn({nethack::table::size, config.encoder_width}).mul_(0.05));
      norm = register_module(
          "norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({config.encoder_width})));
    }
    at::Tensor forward(const at::Tensor& observations) {
      auto seen = crop(embed_crop(cells, observations));
      return at::relu(norm(seen + sum_of_rows(table, observations)));
    }
    policy_config config;
    at::Tensor cells, table;
    torch::nn::Linear crop{nullptr};
    torch::nn::LayerNorm norm{nullptr};
  };

  struct value_head : torch::nn::Cloneable<value_head> {
    explicit value_head(policy_config chosen) : config(chosen) { reset(); }
    void reset() override {
      if (config.separate_critic)
        hidden =
            register_module("hidden", torch::nn::Linear(config.trunk_width, config.trunk_width));
      out = register_module("out", torch::nn::Linear(config.trunk_width, 1));
      const at::NoGradGuard no_grad;
      out->weight.mul_(0.1);
      out->bias.zero_();
    }
    at::Tensor forward(const at::Tensor& trunk) {
      return out(config.separate_critic ? at::relu(hidden(trunk.detach())) : trunk).squeeze(-1);
    }
    policy_config config;
    torch::nn::Linear hidden{nullptr}, out{nullptr};
  };

  /// The input of the heads, one row for each observation, and the state after the last step.
  std::pair<at::Tensor, at::Tensor> trunk(const at::Tensor& observations, const at::Tensor& state) {
    TORCH_CHECK((observations.dim() == 2 || observations.dim() == 3) &&
                    observations.size(-1) == sizeof(features),
                "the policy reads records of ", sizeof(features),
                " bytes, one step or stretches of them, got ", observations.sizes());
    const auto records = observations.reshape({-1, observations.size(-1)}).contiguous();
    return core_->forward(at::relu(trunk_(encoder_->forward(records))), first_steps(observations),
                          state);
  }
  /// Reshapes rows of outputs to the shape of the observations.
  static at::Tensor shaped(const at::Tensor& answers, const at::Tensor& observations) {
    if (observations.dim() == 2) return answers;
    std::vector<std::int64_t> sizes{observations.size(0), observations.size(1)};
    for (std::int64_t i = 1; i < answers.dim(); ++i) sizes.push_back(answers.size(i));
    return answers.view(sizes);
  }

  policy_config config_;
  std::shared_ptr<encoder> encoder_;
  torch::nn::Linear trunk_{nullptr}, policy_head_{nullptr};
  std::shared_ptr<value_head> value_head_;
  std::shared_ptr<recurrent_core> core_;
};

/// A shared handle, like LibTorch's module holders: copies refer to the same network.
class policy : public torch::nn::ModuleHolder<policy_net> {
 public:
  using torch::nn::ModuleHolder<policy_net>::ModuleHolder;
};

inline std::int64_t parameter_count(const policy& network) {
  std::int64_t count = 0;
  for (const auto& parameter : network->parameters()) count += parameter.numel();
  return count;
}

namespace detail {

inline void save_network(retain::state& out, const policy& network, const std::string& prefix) {
  const auto& config = network->config();
  out.set(prefix + "kind", "nethack policy 1");
  out.set(prefix + "cell_width", config.cell_width);
  out.set(prefix + "encoder_width", config.encoder_width);
  out.set(prefix + "trunk_width", config.trunk_width);
  out.set(prefix + "core", name(config.core));
  out.set(prefix + "compass", config.compass ? 1 : 0);
  out.set(prefix + "separate_critic", config.separate_critic ? 1 : 0);
  out.set(prefix + "actions", config.actions);
  for (const auto& parameter : network->named_parameters())
    out.set(prefix + "parameters." + parameter.key(), parameter.value().detach());
}

inline void load_parameters(const retain::state& in, policy& network, const std::string& prefix) {
  const at::NoGradGuard no_grad;
  for (auto& parameter : network->named_parameters()) {
    const at::Tensor& saved = in.tensor(prefix + "parameters." + parameter.key());
    if (saved.sizes() != parameter.value().sizes()) {
      std::ostringstream text;
      text << "parameter '" << parameter.key() << "' of the saved policy has shape "
           << saved.sizes() << ", this program's has " << parameter.value().sizes()
           << ": another version made it; clone it again";
      throw retain::shape_error(text.str());
    }
    parameter.value().copy_(saved);
  }
}

inline policy load_network(const retain::state& in, const std::string& prefix) {
  if (!in.contains(prefix + "kind") || in.text(prefix + "kind") != "nethack policy 1")
    throw retain::state_error("this file has no NetHack policy");
  policy_config config;
  config.cell_width = in.integer<int>(prefix + "cell_width");
  config.encoder_width = in.integer<int>(prefix + "encoder_width");
  config.trunk_width = in.integer<int>(prefix + "trunk_width");
  // older files do not have it
  if (in.contains(prefix + "core")) config.core = core_of_name(in.text(prefix + "core"));
  config.compass = in.integer<int>(prefix + "compass") != 0;
  config.separate_critic = in.integer<int>(prefix + "separate_critic") != 0;
  config.actions = in.integer<int>(prefix + "actions");
  // Before a network of this size is created.
  check_saved_shape(in, prefix + "parameters.encoder.cells", {any_size, config.cell_width});
  check_saved_shape(in, prefix + "parameters.encoder.table", {any_size, config.encoder_width});
  check_saved_shape(in, prefix + "parameters.trunk.weight",
                    {config.trunk_width, config.encoder_width});
  if (config.actions != static_cast<int>(small_actions.size()))
    throw retain::state_error("the saved policy chooses among " + std::to_string(config.actions) +
                              " actions, this program has " + std::to_string(small_actions.size()) +
                              ": clone it again");
  policy network{config};
  load_parameters(in, network, prefix);
  return network;
}

}  // namespace detail

/// Writes network and configuration to one file, atomically.
inline void save_policy(const std::string& file, const policy& network) {
  retain::state out;
  detail::save_network(out, network, "");
  out.write(file);
}

/// Reads a policy that save_policy wrote. Throws retain::error if the file has no policy, or a
/// policy of another version.
inline policy load_policy(const std::string& file) {
  return detail::load_network(retain::state::read(file), "");
}

}  // namespace nethack
