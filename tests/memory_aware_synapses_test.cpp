// SPDX-License-Identifier: MIT
#include <retain/attach.hpp>
#include <retain/categorical.hpp>
#include <retain/concepts.hpp>
#include <retain/ewc.hpp>
#include <retain/memory_aware_synapses.hpp>

#include <vector>

#include "support.hpp"
#include "weight_penalties.hpp"

namespace memory_aware_synapses_test {

static_assert(retain::weight_term<retain::memory_aware_synapses>);
static_assert(retain::attachable<retain::memory_aware_synapses>);

using retain::estimate_sensitivity;

namespace {

struct opaque_batch {  // cannot be sliced
  at::Tensor observations;
};
struct pair_batch {
  at::Tensor left, right;
  pair_batch narrow(std::int64_t start, std::int64_t length) const {
    return {left.narrow(0, start, length), right.narrow(0, start, length)};
  }
};

}  // namespace

TEST_CASE("memory_aware_synapses: value and both gradients in every floating type",
          "[memory_aware_synapses]") {
  const auto make = [](const auto& weights) {
    retain::parameter_list importance;
    for (const auto& [name, tensor] : retain::parameters(weights))
      importance.push_back({name, torch::rand(tensor.sizes(), at::kDouble)});
    return retain::memory_aware_synapses{weights, importance, {.strength = 30.0}};
  };
  support::check_gradients(make, at::kDouble, 1e-12);
  support::check_gradients(make, at::kFloat, 1e-5);
  support::check_gradients(make, at::kHalf, 5e-3);
}

TEST_CASE("memory_aware_synapses: the sensitivity of a linear layer against its closed form",
          "[memory_aware_synapses]") {
  torch::manual_seed(1);
  torch::nn::Linear net(5, 4);
  net->to(at::kDouble);
  const auto x = torch::randn({40, 5}, at::kDouble);
  const auto f = net->forward(x).detach();
  // d ||f||^2 / d W_kj = 2 f_k x_j
  const auto weight = (2 * f).abs().t().mm(x.abs()) / 40.0, bias = (2 * f).abs().mean(0);
  const auto omega =
      estimate_sensitivity(net, x, [&](const at::Tensor& o) { return net->forward(o); });
  REQUIRE(omega.size() == 2);
  CHECK(support::relative_error(omega[0].tensor, weight) < 1e-12);
  CHECK(support::relative_error(omega[1].tensor, bias) < 1e-12);
  // What the network returns beside its outputs does not count.
  struct outputs_and_value {
    retain::categorical distribution;
    at::Tensor value;
  };
  const auto several = estimate_sensitivity(
      net, x, [&](const at::Tensor& o) { return std::pair{net->forward(o), o.sum(1)}; });
  const auto named = estimate_sensitivity(net, x, [&](const at::Tensor& o) {
    return outputs_and_value{retain::categorical{net->forward(o)}, o.sum(1)};
  });
  for (const auto* other : {&several, &named}) CHECK((*other)[0].tensor.equal(omega[0].tensor));
  CHECK(!net->weight.grad().defined());

  // What it is not: the gradient of the mean, in which signs cancel.
  const auto mean =
      torch::autograd::grad({net->forward(x).square().sum() / 40.0}, {net->weight})[0].abs();
  CHECK(mean.sum().item<double>() < 0.7 * weight.sum().item<double>());
}

TEST_CASE("memory_aware_synapses: the sensitivity of a deep network against finite differences, "
          "sample by sample",
          "[memory_aware_synapses]") {
  torch::manual_seed(2);
  torch::nn::Sequential net(torch::nn::Linear(3, 4), torch::nn::Tanh(), torch::nn::Linear(4, 2));
  net->to(at::kDouble);
  const auto x = torch::randn({6, 3}, at::kDouble);
  const auto omega =
      estimate_sensitivity(net, x, [&](const at::Tensor& o) { return net->forward(o); });
  for (std::size_t i = 0; i < omega.size(); ++i) {
    auto p = net->parameters()[i].detach();
    auto truth = torch::zeros_like(p);
    for (std::int64_t n = 0; n < 6; ++n)
      truth += support::finite_differences(
                   p, [&] { return net->forward(x.narrow(0, n, 1)).square().sum().item<double>(); })
                   .abs() /
               6;
    CHECK(support::relative_error(omega[i].tensor, truth) < 1e-7);
  }
}

TEST_CASE("memory_aware_synapses: neither the batch size nor whether a batch can be sliced changes "
          "the sensitivity",
          "[memory_aware_synapses]") {
  torch::manual_seed(3);
  torch::nn::Sequential net(torch::nn::Linear(3, 4), torch::nn::Tanh(), torch::nn::Linear(4, 2));
  net->to(at::kDouble);
  const auto x = torch::randn({9, 3}, at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return net->forward(o); };
  const auto whole = estimate_sensitivity(net, x, forward);
  const auto same = [&](const retain::parameter_list& other) {
    for (std::size_t i = 0; i < whole.size(); ++i)
      CHECK(support::relative_error(other[i].tensor, whole[i].tensor) < 1e-12);
  };
  std::int64_t seen = 0;
  same(estimate_sensitivity(net, x.split(4), forward,
                            {.progress = [&](std::int64_t n) { seen = n; }}));
  CHECK(seen == 9);
  same(estimate_sensitivity(net, x.split(1), forward));
  same(estimate_sensitivity(net, opaque_batch{x},
                            [&](const opaque_batch& b) { return net->forward(b.observations); }));
  same(estimate_sensitivity(net, std::vector{pair_batch{x, x}}, [&](const pair_batch& b) {
    return net->forward((b.left + b.right) / 2);
  }));
  same(estimate_sensitivity(
      net, x, [&](const at::Tensor& o) { return retain::categorical{net->forward(o)}; }));
  // A forward that always answers for everything is not sliced.
  same(estimate_sensitivity(net, x, [&](const at::Tensor&) { return net->forward(x); }));
}

TEST_CASE("memory_aware_synapses: sequences and padding", "[memory_aware_synapses]") {
  torch::manual_seed(4);
  torch::nn::Linear net(3, 2);
  net->to(at::kDouble);
  const auto x = torch::randn({4, 5, 3}, at::kDouble);  // [T, N, features]
  const auto omega = estimate_sensitivity(
      net, x, [&](const at::Tensor& o) { return net->forward(o); }, {.sample_dimension = 1});
  const auto f = net->forward(x).detach();
  CHECK(support::relative_error(omega[1].tensor, (2 * f.sum(0)).abs().mean(0)) < 1e-12);

  auto mask = torch::ones({5});
  mask[4] = 0;
  auto garbled = x[0].clone();
  garbled[4] = 1e3;
  struct masked_batch {
    at::Tensor x, mask;
    masked_batch narrow(std::int64_t start, std::int64_t length) const {
      return {x.narrow(0, start, length), mask.narrow(0, start, length)};
    }
  };
  const auto forward = [&](const masked_batch& b) {
    return retain::masked{retain::categorical{net->forward(b.x)}, b.mask};
  };
  const auto padded = estimate_sensitivity(net, masked_batch{garbled, mask}, forward);
  CHECK(support::relative_error(padded[1].tensor, (2 * f[0].narrow(0, 0, 4)).abs().sum(0) / 4) <
        1e-12);
}

TEST_CASE(
    "memory_aware_synapses: frozen, excluded and unused parameters; what makes no sense is said",
    "[memory_aware_synapses]") {
  struct three : torch::nn::Module {
    torch::nn::Linear a{register_module("a", torch::nn::Linear(2, 2))},
        b{register_module("b", torch::nn::Linear(2, 2))},
        c{register_module("c", torch::nn::Linear(2, 2))};
  } net;
  net.c->weight.requires_grad_(false);
  const auto x = torch::randn({3, 2});
  const auto forward = [&](const at::Tensor& o) { return net.c(net.a(o)); };
  const auto omega = estimate_sensitivity(net, x, forward, {.exclude = {"a.bias"}});
  std::vector<std::string> names;
  for (const auto& [name, tensor] : omega) names.push_back(name);
  CHECK(names == std::vector<std::string>{"a.weight", "b.weight", "b.bias", "c.bias"});
  CHECK((omega[1].tensor == 0).all().item<bool>());
  CHECK(omega[0].tensor.min().item<double>() > 0);

  CHECK_THROWS_WITH(estimate_sensitivity(net, x, forward, {.exclude = {"*"}}),
                    ContainsSubstring("no trainable parameter"));
  CHECK_THROWS_WITH(estimate_sensitivity(net, std::vector<at::Tensor>{}, forward),
                    ContainsSubstring("no data"));
  CHECK_THROWS_WITH(estimate_sensitivity(net, torch::zeros({0, 2}), forward),
                    ContainsSubstring("no data"));
  CHECK_THROWS_AS(estimate_sensitivity(net, x, [&](const at::Tensor& o) { return net.a(o).sum(); }),
                  retain::shape_error);
  CHECK_THROWS_WITH(estimate_sensitivity(net, x, [&](const at::Tensor& o) { return o; }),
                    ContainsSubstring("no gradient"));
  CHECK_THROWS_WITH(estimate_sensitivity(net, torch::full({1, 2}, std::nan("")), forward),
                    ContainsSubstring("'a.weight'"));
}

TEST_CASE("memory_aware_synapses: keeps a network at its answers, over two tasks, and ewc takes "
          "the sensitivity as well",
          "[memory_aware_synapses]") {
  torch::manual_seed(5);
  torch::nn::Linear net(2, 1);
  const auto forward = [&](const at::Tensor& o) { return net->forward(o); };
  // The states have no second feature, so that its weight does not matter to them.
  const auto x = torch::randn({20, 2}) * torch::tensor({1.0f, 0.0f});
  const auto omega = estimate_sensitivity(net, x, forward);
  retain::memory_aware_synapses keep{net, omega, {.strength = 2.0, .clip = 100.0}};
  const retain::ewc same{net, omega, {.strength = 2.0}};
  const auto move = [&] {
    const at::NoGradGuard no_grad;
    net->weight.add_(1);
  };
  move();
  const double first = omega[0].tensor[0][0].item<double>();
  REQUIRE(first > 0);
  CHECK(keep.loss(net).item<double>() == Approx(2 * first));
  CHECK(keep.loss(net).equal(same.loss(net)));

  const auto later = estimate_sensitivity(net, torch::randn({20, 2}), forward);
  keep.advance(net, later, 1.0);
  move();
  CHECK(keep.loss(net).item<double>() ==
        Approx(2 * (first + later[0].tensor.sum().item<double>())));
}

TEST_CASE("memory_aware_synapses: a mask that forward holds from elsewhere stays the whole batch's",
          "[memory_aware_synapses]") {
  torch::manual_seed(6);
  torch::nn::Linear net(4, 3);
  const auto x = torch::randn({6, 4});
  const auto mask = torch::tensor({1, 1, 0, 1, 0, 1});
  const auto held = retain::estimate_sensitivity(*net, x, [&](const at::Tensor& o) {
    return retain::masked{retain::categorical{net(o)}, mask};
  });
  const auto kept = x.index_select(0, mask.nonzero().squeeze(1));
  const auto plain = retain::estimate_sensitivity(
      *net, kept, [&](const at::Tensor& o) { return retain::categorical{net(o)}; });
  for (std::size_t i = 0; i < held.size(); ++i)
    CHECK(torch::allclose(held[i].tensor, plain[i].tensor, 1e-5));
}

}  // namespace memory_aware_synapses_test
