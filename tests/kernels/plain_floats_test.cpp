// SPDX-License-Identifier: MIT
#include <retain/kernels/plain_floats.hpp>
#include <retain/loss/sac.hpp>
#include <retain/policy/heads.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/polyak.hpp>

#include "support.hpp"

namespace kernels_plain_floats_test {

using retain::detail::small_kernel;
using retain::detail::without_kernel;

// The name of the node that a result comes from shows which way was taken.
std::string node_of(const at::Tensor& result) { return result.grad_fn()->name(); }

TEST_CASE("small kernels: each is switched off by itself, in its scope alone", "[kernels]") {
  const auto numbers = torch::randn({4, 6}).requires_grad_();
  const auto target = torch::randn({6});
  const auto layers = [&] { return retain::mlp(6, retain::mlp_options{.hidden = {3}})(numbers); };
  const auto head = [&] { return retain::diagonal_gaussian_head{.dimensions = 3}(numbers).mean(); };
  const auto gaussian = [&] {
    return kl(retain::diagonal_gaussian{numbers, torch::zeros({4, 6})},
              retain::diagonal_gaussian{torch::zeros({4, 6}), torch::zeros({4, 6})});
  };
  const auto loss = [&] { return retain::sac_critic_loss(numbers, target); };
  const std::vector<std::pair<small_kernel, std::function<at::Tensor()>>> all{
      {small_kernel::layers, layers},
      {small_kernel::heads, head},
      {small_kernel::gaussians, gaussian},
      {small_kernel::losses, loss}};
  for (const auto& [kernel, run] : all) {
    const std::string joined = node_of(run());
    for (const auto& [other, ignored] : all) {
      const without_kernel off(other);
      CHECK((node_of(run()) == joined) == (other != kernel));
    }
    CHECK(node_of(run()) == joined);
  }
}

TEST_CASE("small kernels: with them and without, values and gradients are the same to rounding",
          "[kernels]") {
  const auto run = [&] {
    torch::manual_seed(3);
    const auto outputs = torch::randn({5, 4}).requires_grad_(),
               q = torch::randn({2, 5}).requires_grad_();
    const retain::tanh_gaussian_head head{.dimensions = 2};
    const auto said = head(outputs);
    const auto drawn = said.rsample_with_log_prob();
    const auto alpha = torch::full({5}, 0.3f);
    const auto y = retain::sac_target(torch::rand({5}), torch::tensor({0.f, 1.f, 0.f, 0.f, 1.f}),
                                      torch::randn({2, 5}), drawn.log_prob.detach(), alpha, 0.9);
    const auto divergence = kl(head(torch::randn({5, 4})), said).mean();
    const auto loss = retain::sac_critic_loss(q, y) + divergence + drawn.action.sum() +
                      retain::sac_policy_loss(q, drawn.log_prob, alpha).loss;
    loss.backward();
    const std::vector<at::Tensor> goal{torch::randn({7})}, moved{torch::randn({7})};
    retain::polyak_update(moved, goal, 0.3);
    return std::vector{loss.detach(), outputs.grad(), q.grad(), moved[0]};
  };
  const auto with = run();
  for (const unsigned kernel : {1u, 2u, 4u, 8u, 16u, 31u}) {
    const without_kernel off(static_cast<small_kernel>(kernel));
    const auto without = run();
    for (std::size_t i = 0; i < with.size(); ++i) CHECK(with[i].allclose(without[i], 1e-5, 1e-6));
  }
}

}  // namespace kernels_plain_floats_test
