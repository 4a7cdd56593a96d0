// SPDX-License-Identifier: MIT
#include <retain/parameters.hpp>
#include <retain/policy/mlp.hpp>

#include <memory>
#include <string>
#include <vector>

#include "support.hpp"

using retain::activation_kind;

TEST_CASE("mlp: layer by layer, for any leading dimensions", "[mlp]") {
  torch::manual_seed(1);
  retain::mlp net(3, retain::mlp_options{.hidden = {5, 4}, .activation = activation_kind::elu});
  const auto w = net->parameters();
  REQUIRE(w.size() == 4);
  const auto x = torch::randn({2, 6, 3});
  const auto expected = torch::elu(torch::elu(x.matmul(w[0].t()) + w[1]).matmul(w[2].t()) + w[3]);
  CHECK(at::allclose(net(x), expected, 1e-5, 1e-6));
  CHECK(net(x[0][0]).sizes() == at::IntArrayRef({4}));
  CHECK(net->output_size() == 4);
  CHECK(net(torch::zeros({0, 3})).sizes() == at::IntArrayRef({0, 4}));
}

TEST_CASE("mlp: Continual World's network is linear, layer norm, tanh, then leaky rectifiers of slope 0.2", "[mlp]") {
  torch::manual_seed(2);
  retain::mlp net(3, retain::mlp_options{.hidden = {5, 4}, .activation = activation_kind::leaky_relu, .normalised_input = true});
  std::vector<std::string> names;
  for (const auto& entry : retain::parameters(net)) names.push_back(entry.name);
  CHECK(names == std::vector<std::string>{"linear0.weight", "linear0.bias", "norm0.weight", "norm0.bias", "linear1.weight", "linear1.bias"});
  const auto x = torch::randn({6, 3}, at::kDouble);
  net->to(at::kDouble);
  const auto w = net->parameters();
  auto h = x.matmul(w[0].t()) + w[1];
  h = (h - h.mean(1, true)) / (h.var(1, false, true) + 1e-5).sqrt();
  h = torch::tanh(h).matmul(w[4].t()) + w[5];
  CHECK(at::allclose(net(x), at::where(h > 0, h, 0.2 * h)));
  retain::mlp normed(3, retain::mlp_options{.hidden = {5, 4}, .layer_norm = true});
  CHECK(normed->parameters().size() == 8);
}

TEST_CASE("mlp: its copy is another network with the same weights; no hidden layer is the identity; what does not fit is named", "[mlp]") {
  retain::mlp net(3, retain::mlp_options{.hidden = {5}, .layer_norm = true});
  const auto copy = std::dynamic_pointer_cast<retain::mlp_net>(net->clone());
  const auto x = torch::randn({4, 3});
  const auto before = net(x).detach();
  CHECK(copy->forward(x).equal(before));
  torch::NoGradGuard no_grad;
  net->parameters()[0].add_(1);
  CHECK(copy->forward(x).equal(before));
  CHECK(retain::mlp(3, retain::mlp_options{.hidden = {}})(x).equal(x));
  CHECK_THROWS_WITH(net(torch::zeros({4, 2})), ContainsSubstring("[..., 3]") && ContainsSubstring("[4, 2]"));
  CHECK_THROWS_AS(retain::mlp(0), retain::config_error);
}
