// SPDX-License-Identifier: MIT
// Benchmarks of an update of the paper's NetHack network at full size, and of acting. The update
// has PPO on 128 sequences of 32 steps in one minibatch, kickstarting with the initial network as
// the teacher, EWC, gradient clipping by norm, and Adam. The observations are synthetic, and
// nothing waits for the device. The benchmarks run in float32 and, with autocast, in bfloat16.
#include "paper_network.hpp"
#include "subject.hpp"

#include <retain/categorical.hpp>
#include <retain/ewc.hpp>
#include <retain/loss/ppo.hpp>

#include <ATen/autocast_mode.h>
#include <torch/optim/adam.h>
#include <torch/version.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace kernels {
namespace {

constexpr std::int64_t steps = 32, sequences = 128, games = 512;

/// Runs products and convolutions in bfloat16 during its lifetime.
class bfloat16_scope {
 public:
  explicit bfloat16_scope(bool wanted) : wanted_(wanted) {
    if (wanted_) set(true);
  }
  ~bfloat16_scope() {
    if (!wanted_) return;
    at::autocast::clear_cache();
    set(false);
  }
  bfloat16_scope(const bfloat16_scope&) = delete;
  bfloat16_scope& operator=(const bfloat16_scope&) = delete;

 private:
  static void set(bool on) {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
    at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCUDA, on);
#else
    at::autocast::set_autocast_gpu_dtype(at::kBFloat16);
    at::autocast::set_enabled(on);
#endif
  }
  bool wanted_;
};

at::Tensor made_up_screens(std::int64_t of_steps, std::int64_t of_games, at::Device device) {
  auto screens = at::randint(32, 127, {of_steps, of_games, screen_bytes::size},
                             at::TensorOptions().dtype(at::kByte).device(device));
  screens.select(-1, screen_bytes::size - 1).random_(0, screen_bytes::actions);
  return screens;
}

struct paper_update {
  paper_update(at::Device device, bool in_bfloat16) : reduced(in_bfloat16) {
    torch::manual_seed(1);
    network = std::make_shared<paper_network>();
    torch::manual_seed(1);
    teacher = std::make_shared<paper_network>();
    network->to(device);
    teacher->to(device);
    teacher->eval();
    for (auto& parameter : teacher->parameters()) parameter.set_requires_grad(false);
    screens = made_up_screens(steps, sequences, device);
    all_games = made_up_screens(1, games, device);
    advantages = at::randn({steps, sequences}, device);
    returns = at::randn({steps, sequences}, device);
    retain::parameter_list importance;
    for (const auto& [name, parameter] : retain::parameters(*network))
      importance.push_back({name, at::rand_like(parameter)});
    ewc =
        std::make_unique<retain::ewc>(*network, importance, retain::ewc_options{.strength = 1e-6});
    // The tiny learning rate keeps the network almost unchanged.
    optimizer = std::make_unique<torch::optim::Adam>(network->parameters(),
                                                     torch::optim::AdamOptions(1e-9).eps(1e-7));
    {
      const at::NoGradGuard no_grad;
      const auto said = retain::categorical{network->forward(screens).logits};
      actions = said.sample();
      log_probs = said.log_prob(actions);
    }
    // creates the gradients and the optimizer's moments for the parts that are measured separately
    whole();
  }

  at::Tensor ask_teacher() {
    const at::NoGradGuard no_grad;
    const bfloat16_scope scope(reduced);
    return teacher->forward(screens).logits;
  }
  void learn(bool kickstarting) {
    at::Tensor loss;
    {
      const bfloat16_scope scope(reduced);
      const auto said = network->forward(screens);
      const retain::categorical student{said.logits};
      loss = retain::ppo_policy_loss(student.log_prob(actions), log_probs,
                                     retain::normalized(advantages))
                 .loss +
             0.5 * retain::ppo_value_loss(said.value, returns) - 0.001 * student.entropy().mean();
      if (kickstarting) loss = loss + 0.5 * kl(retain::categorical{ask_teacher()}, student).mean();
    }
    optimizer->zero_grad();
    loss.backward();
  }
  void clip_and_step() {
    std::vector<at::Tensor> gradients;
    for (const auto& parameter : network->parameters()) gradients.push_back(parameter.grad());
    const auto length = at::stack(at::_foreach_norm(gradients, 2)).norm();
    const auto factor = at::clamp_max(4.0 / (length + 1e-6), 1.0);
    for (auto& gradient : gradients) gradient.mul_(factor);
    optimizer->step();
  }
  void whole() {
    learn(true);
    ewc->add_gradient(*network);
    clip_and_step();
  }
  void ppo_alone() { learn(false); }
  void ewc_alone() { ewc->add_gradient(*network); }
  void teacher_alone() { ask_teacher(); }
  void act() {
    const at::NoGradGuard no_grad;
    const bfloat16_scope scope(reduced);
    for (int i = 0; i < steps * sequences / games; ++i)
      retain::categorical{network->forward(all_games).logits}.sample();
  }

  bool reduced;
  std::shared_ptr<paper_network> network, teacher;
  at::Tensor screens, all_games, advantages, returns, actions, log_probs;
  std::unique_ptr<retain::ewc> ewc;
  std::unique_ptr<torch::optim::Adam> optimizer;
};

subject part_of(bool in_bfloat16, const std::string& name, void (paper_update::*work)(),
                std::optional<double> at_most = {}) {
  return {.group =
              "an update of the paper's network: 32 931 352 parameters, 4096 steps, PPO + KS + EWC",
          .name = name + (in_bfloat16 ? ", bfloat16" : ", float32"),
          .reach = {.yardstick = at_most},
          .prepare =
              [=](at::Device device) {
                const auto update = std::make_shared<paper_update>(device, in_bfloat16);
                prepared result{.run = [=] { ((*update).*work)(); }};
                if (work != &paper_update::whole)
                  result.yardstick = way{"the whole", [=] { update->whole(); }};
                return result;
              },
          .on_cpu = false,
          .on_gpu = true};
}

}  // namespace

std::vector<subject> paper_updates() {
  std::vector<subject> all;
  for (const bool in_bfloat16 : {false, true})
    for (auto& each :
         {part_of(in_bfloat16, "the whole", &paper_update::whole),
          part_of(in_bfloat16, "PPO: forward and backward pass", &paper_update::ppo_alone),
          part_of(in_bfloat16, "KS: the teacher", &paper_update::teacher_alone),
          part_of(in_bfloat16, "EWC: value and gradient", &paper_update::ewc_alone, 0.02),
          part_of(in_bfloat16, "clipping and Adam", &paper_update::clip_and_step),
          part_of(in_bfloat16, "acting: 8 steps of 512 games", &paper_update::act)})
      all.push_back(each);
  return all;
}

}  // namespace kernels
