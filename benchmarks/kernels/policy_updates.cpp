// SPDX-License-Identifier: MIT
// Benchmarks of one PPO update of the small NetHack policy with EWC, BC and KS, and of the parts
// of the update. The network, the loss and the optimizer are those of the NetHack example. The
// observations are synthetic, with as many features as real observations.
#include "subject.hpp"

#include "../../examples/common/adam.hpp"
#include "../../examples/nethack/retention.hpp"
#include "../../examples/nethack/rollout.hpp"

#include <retain/loss/ppo.hpp>

#include <torch/utils.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace kernels {
namespace {

constexpr std::int64_t steps = 2048, minibatch = 512, epochs = 2,
                       minibatches = epochs * steps / minibatch;

at::Tensor made_up_observations(std::int64_t count, unsigned seed) {
  constexpr std::size_t rows = 90;
  std::mt19937 dice(seed);
  std::vector<nethack::features> records(static_cast<std::size_t>(count));
  for (auto& record : records) {
    for (auto& token : record.tokens) token = static_cast<std::uint8_t>(dice() % 60);
    record.row_count = rows;
    for (std::size_t i = 0; i < rows; ++i)
      record.rows[i] = static_cast<std::uint16_t>(dice() % nethack::table::size);
  }
  return nethack::to_tensor(records);
}

struct update {
  update() {
    nethack::retention_options options;
    options.choose("ewc+bc+ks");
    options.bc_states = 10'000;
    retention = nethack::make_retention(network, made_up_observations(10'000, 1), options, 1);
    std::vector<std::pair<std::string, at::Tensor>> learning;
    for (auto& parameter : network->named_parameters())
      learning.emplace_back(parameter.key(), parameter.value());
    // The learning rate is so small that the policy hardly changes.
    optimizer.emplace(std::move(learning), training::adam_options{.learning_rate = 1e-6});
    {
      const at::NoGradGuard no_grad;
      const auto said = network->forward(observations).distribution();
      actions = said.sample();
      log_probs = said.log_prob(actions);
    }
    ask_teacher();
    minibatch_step(0);  // creates the gradients for the parts that are measured separately
  }

  at::Tensor part(const at::Tensor& all, std::int64_t m) const {
    return all.narrow(0, m % (steps / minibatch) * minibatch, minibatch);
  }

  void ask_teacher() {
    const at::NoGradGuard no_grad;
    const nethack::visited_steps visited{observations, nethack::first_steps(observations)};
    teacher_logits = kickstarting().target(visited).logits;
  }

  at::Tensor ppo_loss(const nethack::policy_output& said, std::int64_t m) {
    const auto distribution = said.distribution();
    const auto log_prob = distribution.log_prob(part(actions, m));
    const auto surrogate = retain::ppo_policy_loss(log_prob, part(log_probs, m),
                                                   retain::normalized(part(advantages, m)), {});
    return surrogate.loss + 0.5 * retain::ppo_value_loss(said.value, part(returns, m)) -
           0.001 * distribution.entropy().mean();
  }

  void minibatch_step(std::int64_t m) {
    const auto seen = part(observations, m);
    const auto said = network->forward(seen);
    const auto student = [&](const at::Tensor& x) {
      return x.is_same(seen) ? retain::masked<retain::categorical>{said.distribution(), {}}
                             : nethack::answer(network, x);
    };
    const nethack::distilled_steps distilled{seen, retain::categorical{part(teacher_logits, m)}};
    const auto loss = ppo_loss(said, m) + retention.distillation(student, distilled);
    optimizer->zero_grad();
    loss.backward();
    retention.add_gradient(*network);
    optimizer->step(1.0);
  }

  void whole() {
    ask_teacher();
    for (std::int64_t m = 0; m < minibatches; ++m) minibatch_step(m);
  }
  void ppo_alone() {
    for (std::int64_t m = 0; m < minibatches; ++m) {
      optimizer->zero_grad();
      ppo_loss(network->forward(part(observations, m)), m).backward();
    }
  }
  void ewc_alone() {
    for (std::int64_t m = 0; m < minibatches; ++m) retention.add_gradient(*network);
  }
  void cloning_alone() {
    auto& term =
        *retention.find<retain::behavioral_cloning<at::Tensor, at::Tensor>>("behavioral_cloning");
    const auto student = [&](const at::Tensor& x) { return nethack::answer(network, x); };
    for (std::int64_t m = 0; m < minibatches; ++m) {
      optimizer->zero_grad();
      term.loss(student).backward();
    }
  }
  void kickstarting_alone() {
    auto& term = kickstarting();
    for (std::int64_t m = 0; m < minibatches; ++m) {
      const auto logits = part(teacher_logits, m).clone().set_requires_grad(true);
      const auto student = [&](const at::Tensor&) { return retain::categorical{logits}; };
      term.loss(student, nethack::distilled_steps{part(observations, m),
                                                  retain::categorical{part(teacher_logits, m)}})
          .backward();
    }
  }
  void adam_alone() {
    for (std::int64_t m = 0; m < minibatches; ++m) optimizer->step(1.0);
  }

  nethack::kickstarting_term& kickstarting() {
    return *retention.find<nethack::kickstarting_term>("kickstarting");
  }

  nethack::policy network{nethack::policy_config{}};
  at::Tensor observations = made_up_observations(steps, 2), advantages = at::randn({steps}),
             returns = at::randn({steps});
  at::Tensor actions, log_probs, teacher_logits;
  nethack::retention_terms retention;
  std::optional<training::adam> optimizer;
};

subject part_of(std::string name, void (update::*work)(), std::optional<double> at_most = {}) {
  return {.group = "a PPO update of the NetHack policy: 2048 steps, 2 epochs, minibatches of 512, "
                   "EWC + BC + KS",
          .name = std::move(name),
          .reach = {.yardstick = at_most},
          .prepare =
              [work](at::Device) {
                const auto u = std::make_shared<update>();
                prepared result{.run = [u, work] { ((*u).*work)(); }};
                if (work != &update::whole)
                  result.yardstick = way{"the whole", [u] { u->whole(); }};
                return result;
              },
          .one_thread_only = true};
}

}  // namespace

std::vector<subject> policy_updates() {
  return {part_of("the whole", &update::whole),
          part_of("PPO: 8 forward and backward passes", &update::ppo_alone),
          part_of("BC: 8 forward and backward passes of 256 states", &update::cloning_alone),
          part_of("KS: the teacher, once for 2048 states", &update::ask_teacher),
          part_of("KS: 8 divergences and their gradients", &update::kickstarting_alone),
          part_of("EWC: 8 values and gradients", &update::ewc_alone, 0.02),
          part_of("Adam: 8 steps", &update::adam_alone)};
}

}  // namespace kernels
