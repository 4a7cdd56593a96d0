// SPDX-License-Identifier: MIT
// expect: the encoder needs forward.observations., which returns the features
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>

struct forwardless : torch::nn::Cloneable<forwardless> {
  void reset() override {}
};

auto ask(retain::actor_critic<std::shared_ptr<forwardless>, retain::categorical_head>& policy,
         const at::Tensor& observations) {
  return policy->evaluate(observations);
}
