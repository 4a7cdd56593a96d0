// SPDX-License-Identifier: MIT
// Measures how much each kernel for a small number of floats speeds up a complete update of the
// RoboticSequence agent. The update runs with the kernel, and with LibTorch's operations instead of
// the kernel. The transitions are random, because the time does not depend on their values.
#include "subject.hpp"

#if RETAIN_HAS_ROBOT
#include "../../examples/robotic_sequence/agent.hpp"

#include <retain/kernels/plain_floats.hpp>
#endif

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kernels {

#if RETAIN_HAS_ROBOT
namespace {

using retain::detail::small_kernel;
using retain::detail::without_kernel;
namespace robot = robotic_sequence;

/// An update with kickstarting. The teacher's answers are those of the initial student.
struct robot_update {
  robot_update() {
    const auto batch = settings.batch;
    const auto kind = at::one_hot(at::randint(robot::kinds, {batch}), robot::kinds).to(at::kFloat);
    const auto states = at::cat({at::randn({batch, robot::sequence::observation_size}), kind}, 1);
    transitions = {{"observation", states},
                   {"action", at::rand({batch, robot::sequence::action_size}) * 2 - 1},
                   {"reward", at::rand({batch})},
                   {"next", states},
                   {"ended", at::zeros({batch})}};
    const at::NoGradGuard no_grad;
    const auto said = agent.actor()->forward(states);
    teacher.emplace(said.unsquashed().mean().clone(), said.unsquashed().log_std().clone());
  }
  void run() {
    agent.update(transitions, [&](const at::Tensor& observations) {
      return kl(*teacher, agent.actor()->forward(observations)).mean();
    });
  }

  robot::agent_settings settings;
  robot::sac_agent agent{settings, std::vector<bool>(robot::kinds, false), 1};
  retain::transitions transitions;
  std::optional<retain::tanh_gaussian> teacher;
};

}  // namespace
#endif

std::vector<subject> small_updates() {
  const auto row = [](std::string name, std::optional<double> at_least, auto... kernel) {
    subject each{.group = "an update of the RoboticSequence agent, with each kernel and without",
                 .name = std::move(name),
                 .reach = {.usual = at_least},
                 .prepare = {},
                 .one_thread_only = true};
#if RETAIN_HAS_ROBOT
    each.prepare = [kernel...](at::Device) {
      const auto update = std::make_shared<robot_update>();
      return prepared{.run = [update] { update->run(); },
                      .usual = way{"LibTorch's operations", [update, kernel...] {
                                     const auto off = (static_cast<unsigned>(kernel) | ...);
                                     const without_kernel guard(static_cast<small_kernel>(off));
                                     update->run();
                                   }}};
    };
#else
    (static_cast<void>(kernel), ...);
    each.needs = "MuJoCo was not found when this program was built (Debian: apt install "
                 "libmujoco-dev)";
#endif
    return each;
  };
#if !RETAIN_HAS_ROBOT
  enum class small_kernel { layers, heads, gaussians, losses, updates };
#endif
  using enum small_kernel;
  return {row("small layers", 1.1, layers),
          row("small heads", 1.1, heads),
          row("small Gaussians", 1.1, gaussians),
          row("small losses", 1.1, losses),
          row("small updates", 1.0, updates),
          row("all five", 1.5, layers, heads, gaussians, losses, updates)};
}

}  // namespace kernels
