// SPDX-License-Identifier: MIT
// The library's retention terms on the policy of AppleRetrieval.
#pragma once

#include <retain/behavioral_cloning.hpp>
#include <retain/ewc.hpp>
#include <retain/fisher.hpp>
#include <retain/kfac.hpp>
#include <retain/kfac_ewc.hpp>
#include <retain/l2_init.hpp>

#include <array>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "../common/gnuplot.hpp"
#include "apple_learner.hpp"

namespace toy {

struct apple_method {
  const char* name;   ///< on the command line and in files
  const char* title;  ///< in tables and pictures
  const char* color;
  /// default strength, chosen by `toy apple --tune`; 0 for methods without a strength
  double strength;
};

/// The methods, in the order of all tables and legends.
inline constexpr std::array<apple_method, 6> apple_methods{
    {{"scratch", "from scratch", gnuplot::gray, 0},
     {"none", "plain", gnuplot::vermilion, 0},
     {"l2", "+ L2", gnuplot::orange, 18},
     {"ewc", "+ EWC, diagonal", gnuplot::blue, 320},
     {"kfac", "+ EWC, full Fisher", gnuplot::purple, 180},
     {"bc", "+ BC", gnuplot::green, 180}}};

inline const apple_method& method_named(const std::string& name) {
  for (const auto& method : apple_methods)
    if (name == method.name) return method;
  throw std::runtime_error("apple: there is no method '" + name +
                           "'. Use scratch, none, l2, ewc, kfac or bc");
}

/// The diagonal Fisher of the pre-trained policy on phase 2: p (1 − p) (c², 1) for (w, b), with p
/// = π(right).
inline retain::fisher diagonal_fisher(const torch::nn::Linear& policy, const apple_world& world) {
  return retain::estimate_fisher(
      policy, far_observations(world), [&](const auto& o) { return act(policy, o); },
      retain::exact_actions{});
}

/// The Kronecker factors of the Fisher. With one Linear layer and one observation, they give the
/// full 2×2 Fisher: p (1 − p) (c, 1)(c, 1)ᵀ.
inline retain::kronecker_fisher full_fisher(const torch::nn::Linear& policy,
                                            const apple_world& world) {
  return retain::estimate_kfac(
      policy, far_observations(world), [&](const auto& o) { return act(policy, o); },
      retain::exact_actions{});
}

/// Returns the function that adds the gradient of a method to `.grad` before every step. The
/// current weights of `policy` become the anchor. The function refers to `policy`.
inline std::function<void()> make_retention(const std::string& method,
                                            const torch::nn::Linear& policy,
                                            const apple_world& world, double strength) {
  const auto penalty = [&](auto keep) -> std::function<void()> {
    return [keep, policy] { keep.add_gradient(policy); };
  };
  if (method == "l2") return penalty(retain::l2_init{policy, {.strength = strength}});
  if (method == "ewc")
    return penalty(retain::ewc{policy, diagonal_fisher(policy, world), {.strength = strength}});
  if (method == "kfac")
    return penalty(retain::kfac_ewc{policy, full_fisher(policy, world), {.strength = strength}});
  if (method == "bc") {
    const auto states = far_observations(world);
    const auto logits = [&] {
      const at::NoGradGuard no_grad;
      return act(policy, states).logits;
    }();
    // A batch size of 1 is enough, because all stored states are equal.
    auto keep = std::make_shared<retain::behavioral_cloning<at::Tensor, at::Tensor>>(
        states, logits, retain::behavioral_cloning_options{.strength = strength, .batch_size = 1});
    return [keep, policy] {
      const auto loss = keep->loss([&](const at::Tensor& o) { return act(policy, o); });
      if (loss.requires_grad()) loss.backward();  // false at strength 0
    };
  }
  return [] {};
}

}  // namespace toy
