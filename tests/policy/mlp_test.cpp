// SPDX-License-Identifier: MIT
#include <retain/parameters.hpp>
#include <retain/policy/mlp.hpp>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <c10/core/impl/LocalDispatchKeySet.h>

#include "support.hpp"

namespace policy_mlp_test {

using retain::activation_kind;

namespace {

/// y, and the gradients of a weighted sum of y by x and every weight, with layers joined into one
/// node or apart.
std::vector<at::Tensor> values_and_gradients(retain::mlp& net, const at::Tensor& x, bool apart) {
  std::optional<retain::detail::separate_nodes> scope;
  if (apart) scope.emplace();
  std::vector<at::Tensor> wanted{x};
  for (const auto& weight : net->parameters())
    if (weight.requires_grad()) wanted.push_back(weight);
  const auto y = net(x);
  auto result = torch::autograd::grad({y}, wanted,
                                      {torch::linspace(-1, 1, y.numel(), y.options()).view_as(y)});
  result.push_back(y.detach());
  return result;
}

}  // namespace

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

TEST_CASE("mlp: Continual World's network is linear, layer norm, tanh, then leaky rectifiers of "
          "slope 0.2",
          "[mlp]") {
  torch::manual_seed(2);
  retain::mlp net(3, retain::mlp_options{.hidden = {5, 4},
                                         .activation = activation_kind::leaky_relu,
                                         .normalized_input = true});
  std::vector<std::string> names;
  for (const auto& entry : retain::parameters(net)) names.push_back(entry.name);
  CHECK(names == std::vector<std::string>{"linear0.weight", "linear0.bias", "norm0.weight",
                                          "norm0.bias", "linear1.weight", "linear1.bias"});
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

TEST_CASE("mlp: its copy is another network with the same weights; no hidden layer is the "
          "identity; what does not fit is named",
          "[mlp]") {
  retain::mlp net(3, retain::mlp_options{.hidden = {5}, .layer_norm = true});
  const auto copy = std::dynamic_pointer_cast<retain::mlp_net>(net->clone());
  const auto x = torch::randn({4, 3});
  const auto before = net(x).detach();
  CHECK(copy->forward(x).equal(before));
  torch::NoGradGuard no_grad;
  net->parameters()[0].add_(1);
  CHECK(copy->forward(x).equal(before));
  CHECK(retain::mlp(3, retain::mlp_options{.hidden = {}})(x).equal(x));
  CHECK_THROWS_WITH(net(torch::zeros({4, 2})),
                    ContainsSubstring("[..., 3]") && ContainsSubstring("[4, 2]"));
  CHECK_THROWS_AS(retain::mlp(0), retain::config_error);
}

TEST_CASE(
    "mlp: its layers as one node of the graph are its layers one by one, in values and gradients",
    "[mlp]") {
  torch::manual_seed(3);
  for (const auto kind : {activation_kind::relu, activation_kind::leaky_relu, activation_kind::elu,
                          activation_kind::tanh})
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16})
      for (const std::int64_t rows : {1, 2, 7, 40}) {
        retain::mlp net(5, retain::mlp_options{.hidden = {33, 16, 3}, .activation = kind});
        net->to(type);
        const auto x = torch::randn({rows, 5}, type).requires_grad_();
        CHECK(std::string(net(x).grad_fn()->name()).find("dense_layers") != std::string::npos);
        const auto joined = values_and_gradients(net, x, false),
                   apart = values_and_gradients(net, x, true);
        REQUIRE(joined.size() == 8);
        const double tolerance = type == at::kDouble ? 1e-12 : type == at::kFloat ? 1e-5 : 0.1;
        for (std::size_t i = 0; i < joined.size(); ++i) {
          REQUIRE(joined[i].scalar_type() == type);
          CHECK(at::allclose(joined[i], apart[i], tolerance, tolerance));
        }
        const torch::NoGradGuard no_grad;
        CHECK(net(x).equal(joined.back()));
      }
}

TEST_CASE("mlp: gradients only where they are asked for; frozen layers, columns of a larger tensor "
          "and turned weights are no different",
          "[mlp]") {
  torch::manual_seed(4);
  retain::mlp net(5, retain::mlp_options{.hidden = {8, 6}});
  auto weights = net->parameters();
  weights[0].set_requires_grad(false);
  weights[3].set_requires_grad(false);
  weights[2].set_data(torch::randn({8, 6}).t());
  const auto x = torch::randn({9, 7}).narrow(1, 1, 5).requires_grad_();
  const auto joined = values_and_gradients(net, x, false),
             apart = values_and_gradients(net, x, true);
  REQUIRE(joined.size() == 4);
  for (std::size_t i = 0; i < joined.size(); ++i)
    CHECK(at::allclose(joined[i], apart[i], 1e-5, 1e-6));
  net(x.detach()).sum().backward();
  CHECK_FALSE(weights[0].grad().defined());
  CHECK(weights[1].grad().defined());
  CHECK(weights[2].grad().defined());
  for (auto& weight : weights) weight.set_requires_grad(false);
  CHECK_FALSE(net(x.detach()).requires_grad());
}

TEST_CASE("mlp: its gradient can be differentiated again", "[mlp]") {
  torch::manual_seed(5);
  for (const auto kind :
       {activation_kind::leaky_relu, activation_kind::elu, activation_kind::tanh}) {
    retain::mlp net(3, retain::mlp_options{.hidden = {6, 2}, .activation = kind});
    net->to(at::kDouble);
    const auto x = torch::randn({4, 3}, at::kDouble).requires_grad_();
    const auto curvature = [&](bool apart) {
      std::optional<retain::detail::separate_nodes> scope;
      if (apart) scope.emplace();
      const auto slope = torch::autograd::grad({net(x).square().sum()}, {x}, {}, true, true)[0];
      return torch::autograd::grad({slope.square().sum()}, net->parameters(), {}, false, false,
                                   true);
    };
    const auto joined = curvature(false), apart = curvature(true);
    for (std::size_t i = 0; i < joined.size(); ++i) {
      if (apart[i].defined()) {
        CHECK(at::allclose(joined[i], apart[i], 1e-9, 1e-12));
      } else {
        CHECK((!joined[i].defined() || joined[i].abs().max().item<double>() == 0));
      }
    }
  }
}

TEST_CASE("mlp: in inference mode it answers the same", "[mlp]") {
  torch::manual_seed(6);
  retain::mlp net(3, retain::mlp_options{.hidden = {6, 2}});
  const auto x = torch::randn({4, 3});
  const auto before = net(x).detach();
  const c10::InferenceMode inference;
  CHECK(at::allclose(net(x), before, 1e-6, 1e-7));
}

TEST_CASE("mlp: under automatic casting it computes as its layers do", "[mlp]") {
  retain::mlp net(3, retain::mlp_options{.hidden = {6, 2}});
  const auto x = torch::randn({4, 3}).requires_grad_();
  at::Tensor y;
  {
    struct autocast {
      autocast() { c10::impl::tls_set_dispatch_key_excluded(c10::DispatchKey::AutocastCPU, false); }
      ~autocast() { c10::impl::tls_set_dispatch_key_excluded(c10::DispatchKey::AutocastCPU, true); }
    } on;
    y = net(x);
    CHECK_FALSE(retain::detail::may_join(x));
  }
  CHECK(retain::detail::may_join(x));
  REQUIRE(y.scalar_type() == at::kBFloat16);
  y.sum().backward();
  CHECK(x.grad().scalar_type() == at::kFloat);
  CHECK(at::allclose(y.to(at::kFloat), net(x), 0.1, 0.05));
}

}  // namespace policy_mlp_test
