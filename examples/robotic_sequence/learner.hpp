// SPDX-License-Identifier: MIT
// The training loop: one decision and one update per step.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <retain/episodic_memory.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>

#include "../common/saved_tensor.hpp"
#include "agent.hpp"
#include "retention.hpp"
#include "sequence.hpp"
#include "settings.hpp"

namespace robotic_sequence {

/// The world's numbers and the one-hot of the kind of stage.
inline void write_observation(const sequence& world, float* out) {
  world.observe(out);
  std::fill_n(out + sequence::observation_size, kinds, 0.0f);
  out[sequence::observation_size + static_cast<int>(world.kind())] = 1.0f;
}

/// The start of episodes: at the first stage with all later stages, or each episode in one random
/// stage alone.
enum class episode_kind : std::uint8_t { whole, single_stage };

/// Off-policy learning in one world. Equal settings give equal runs, bit for bit. A run that is
/// saved, loaded and continued also gives the same result.
class learner {
 public:
  /// `protected_rows`: transitions of pre-training that the buffer keeps permanently; `{}` for
  /// none.
  learner(sac_agent& agent, std::vector<stage_kind> stages, training_settings settings,
          episode_kind episodes, const retain::transitions& protected_rows = {},
          retention_terms retention = {}, retention_settings kept = {})
      : settings_(settings),
        kept_(kept),
        agent_(agent),
        episodes_(episodes),
        world_(std::move(stages), settings.seed),
        dice_(settings.seed),
        buffer_(protected_rows, {.capacity = settings.capacity,
                                 .seed = stream_seed(settings.seed, random_stream::buffer)}),
        retention_(std::move(retention)) {
    begin_episode();
  }

  std::int64_t steps() const { return steps_; }
  bool finished() const { return steps_ >= settings_.steps; }
  const training_settings& settings() const { return settings_; }
  const retain::episodic_memory& buffer() const { return buffer_; }
  /// The speeds do not include earlier steps.
  void start_clock() {
    steps_here_ = updates_here_ = 0;
    acting_ = learning_ = 0;
  }
  double updates_per_second() const {
    return learning_ > 0 ? static_cast<double>(updates_here_) / learning_ : 0;
  }
  double steps_per_second() const {
    return learning_ + acting_ > 0 ? static_cast<double>(steps_here_) / (learning_ + acting_) : 0;
  }

  void step() {
    const auto begin = clock::now();
    act();
    const auto acted = clock::now();
    acting_ += seconds(begin, acted);
    if (steps_ > settings_.learn_after) {
      learn();
      learning_ += seconds(acted, clock::now());
    }
  }

  /// Decisions by stage since the last call, the losses and the entropy of the last update, and the
  /// current temperatures.
  std::map<std::string, double> report() {
    std::map<std::string, double> row{{"charts/SPS", steps_per_second()}};
    const auto alpha = agent_.temperature().alpha();
    for (int stage = 0; stage < world_.stages(); ++stage) {
      const auto kind = world_.kind(stage);
      row[std::string("alpha/") + name_of(kind)] = alpha[static_cast<int>(kind)].item<double>();
      row[std::string("visits/") + name_of(kind)] =
          static_cast<double>(visits_[static_cast<std::size_t>(kind)]);
    }
    visits_.fill(0);
    if (last_.critics.defined()) {
      row["losses/critics"] = last_.critics.item<double>();
      row["losses/actor"] = last_.actor.item<double>();
      row["losses/entropy"] = -last_.log_probs.mean().item<double>();
    }
    for (const auto& part : retention_.breakdown()) {
      if (part.value.defined()) row["retain/" + part.name] = part.value.item<double>();
      row["retain/" + part.name + "_strength"] = part.strength;
    }
    return row;
  }

  /// The terms, whose strengths a caller may set or adapt.
  retention_terms& retention() { return retention_; }

  void save_state(retain::state& out, const std::string& prefix) const {
    agent_.save_state(out, prefix + "agent.");
    world_.save_state(out, prefix + "world.");
    buffer_.save_state(out, prefix + "buffer.");
    retention_.save_state(out, prefix + "retention.");
    std::ostringstream dice;
    dice << dice_;
    out.set(prefix + "dice", dice.str());
    out.set(prefix + "visits",
            at::tensor(at::ArrayRef<std::int64_t>(visits_.data(), visits_.size())));
    out.set(prefix + "steps", steps_);
    out.set(prefix + "updates", updates_);
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    agent_.load_state(in, prefix + "agent.");
    world_.load_state(in, prefix + "world.");
    buffer_.load_state(in, prefix + "buffer.");
    retention_.load_state(in, prefix + "retention.");
    std::istringstream(in.text(prefix + "dice")) >> dice_;
    const auto visits =
        saved_tensor(in, prefix + "visits", at::kLong, {static_cast<std::int64_t>(visits_.size())});
    std::copy_n(visits.data_ptr<std::int64_t>(), visits_.size(), visits_.begin());
    steps_ = in.integer(prefix + "steps");
    updates_ = in.integer(prefix + "updates");
    write_observation(world_, now_.data());
  }

 private:
  using clock = std::chrono::steady_clock;
  using numbers = std::array<float, static_cast<std::size_t>(observation_width)>;

  static double seconds(clock::time_point from, clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }

  void begin_episode() {
    world_.start(episodes_ == episode_kind::whole
                     ? 0
                     : static_cast<int>(dice_() % static_cast<std::uint64_t>(world_.stages())));
    write_observation(world_, now_.data());
  }

  void act() {
    std::array<float, sequence::action_size> action;
    if (steps_ < settings_.random_steps) {
      for (auto& each : action)
        each = static_cast<float>(static_cast<double>(dice_() >> 11) * 0x1p-52 - 1);
    } else {
      const auto drawn = agent_.act(at::from_blob(now_.data(), {1, observation_width}), true);
      std::copy_n(drawn.data_ptr<float>(), action.size(), action.begin());
    }
    ++visits_[static_cast<std::size_t>(world_.kind())];
    const auto said = world_.step(action.data());
    numbers next;
    write_observation(world_, next.data());
    float reward = said.reward, ended = said.success || said.timed_out ? 1.0f : 0.0f;
    buffer_.push({{"observation", at::from_blob(now_.data(), {1, observation_width})},
                  {"action", at::from_blob(action.data(), {1, sequence::action_size})},
                  {"reward", at::from_blob(&reward, {1})},
                  {"next", at::from_blob(next.data(), {1, observation_width})},
                  {"ended", at::from_blob(&ended, {1})}});
    now_ = next;
    ++steps_;
    ++steps_here_;
    if (said.success && episodes_ == episode_kind::whole && world_.advance())
      write_observation(world_, now_.data());
    else if (world_.over())
      begin_episode();
  }

  void learn() {
    const auto batch = buffer_.sample(settings_.agent.batch);
    std::function<at::Tensor(const at::Tensor&)> distil;
    std::function<void()> pull;
    if (kept_.bc || kept_.ks)
      distil = [this](const at::Tensor& observations) {
        auto actor = agent_.actor();
        return retention_.distillation(
            [&](const at::Tensor& states) { return actor->forward(states); },
            visited_steps{observations});
      };
    if (kept_.l2 || kept_.ewc) pull = [this] { retention_.add_gradient(*agent_.actor()); };
    last_ = agent_.update(batch, distil, pull);
    ++updates_;
    ++updates_here_;
    retention_.step(static_cast<double>(updates_));
  }

  training_settings settings_;
  retention_settings kept_;
  sac_agent& agent_;
  episode_kind episodes_;
  sequence world_;
  std::mt19937_64 dice_;
  retain::episodic_memory buffer_;
  retention_terms retention_;
  numbers now_{};
  std::array<std::int64_t, static_cast<std::size_t>(kinds)> visits_{};
  update_losses last_;
  std::int64_t steps_ = 0, updates_ = 0, steps_here_ = 0, updates_here_ = 0;
  double acting_ = 0, learning_ = 0;
};

}  // namespace robotic_sequence
