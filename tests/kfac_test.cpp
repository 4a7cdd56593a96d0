// SPDX-License-Identifier: MIT
#include <retain/categorical.hpp>
#include <retain/kfac.hpp>

#include <vector>

#include "support.hpp"

namespace kfac_test {

using retain::categorical;
using retain::estimate_kfac;

namespace {

struct batch_with_actions {
  at::Tensor observations, actions, mask;
};

/// Two layers, the second without a bias, in double.
struct network : torch::nn::Module {
  network() { to(at::kDouble); }
  torch::nn::Linear body{register_module("body", torch::nn::Linear(3, 4))};
  torch::nn::Linear head{
      register_module("head", torch::nn::Linear(torch::nn::LinearOptions(4, 3).bias(false)))};
  at::Tensor forward(const at::Tensor& x) { return head(torch::tanh(body(x))); }
};

at::Tensor with_one(const at::Tensor& a) {
  return torch::cat({a, torch::ones({a.size(0), 1}, a.options())}, 1);
}

/// The score of each layer's parameters for one state and action, [out, in (+ 1)].
std::vector<at::Tensor> scores(network& net, const at::Tensor& x, std::int64_t action) {
  const auto log_prob =
      categorical{net.forward(x)}.log_prob(torch::full({1}, action, at::kLong)).sum();
  const auto g =
      torch::autograd::grad({log_prob}, {net.body->weight, net.body->bias, net.head->weight});
  return {torch::cat({g[0], g[1].unsqueeze(1)}, 1), g[2]};
}

}  // namespace

TEST_CASE("kfac: the factors of two layers against one state at a time, written out", "[kfac]") {
  torch::manual_seed(1);
  network net;
  const auto x = torch::randn({7, 3}, at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return categorical{net.forward(o)}; };
  auto a1 = torch::zeros({4, 4}, at::kDouble), a2 = torch::zeros({4, 4}, at::kDouble),
       g1 = torch::zeros({4, 4}, at::kDouble), g2 = torch::zeros({3, 3}, at::kDouble);
  for (std::int64_t n = 0; n < 7; ++n) {
    const auto input = x.narrow(0, n, 1);
    const auto hidden = torch::tanh(net.body(input)).detach();
    a1 += with_one(input).t().mm(with_one(input)) / 7;
    a2 += hidden.t().mm(hidden) / 7;
    const auto probabilities = net.forward(input).softmax(-1).detach();
    for (std::int64_t action = 0; action < 3; ++action) {
      // Before each layer's output something that is 0 and has a gradient.
      auto first = torch::zeros({1, 4}, at::kDouble).requires_grad_(),
           second = torch::zeros({1, 3}, at::kDouble).requires_grad_();
      const auto logits = net.head(torch::tanh(net.body(input) + first)) + second;
      const auto g = torch::autograd::grad({logits.log_softmax(-1)[0][action]}, {first, second});
      g1 += g[0].t().mm(g[0]) * probabilities[0][action] / 7;
      g2 += g[1].t().mm(g[1]) * probabilities[0][action] / 7;
    }
  }
  const auto check = [&](const retain::kronecker_fisher& f, double tolerance) {
    REQUIRE(f.layers.size() == 2);
    CHECK(f.layers[0].weight == "body.weight");
    CHECK(f.layers[0].bias == "body.bias");
    CHECK(f.layers[1].weight == "head.weight");
    CHECK(f.layers[1].bias.empty());
    CHECK(f.states == 7);
    CHECK(support::relative_error(f.layers[0].inputs, a1) < 1e-12);
    CHECK(support::relative_error(f.layers[1].inputs, a2) < 1e-12);
    CHECK(support::relative_error(f.layers[0].outputs, g1) < tolerance);
    CHECK(support::relative_error(f.layers[1].outputs, g2) < tolerance);
  };
  const auto exact = estimate_kfac(net, x, forward, retain::exact_actions{});
  check(exact, 1e-12);
  std::vector<std::int64_t> told;
  check(estimate_kfac(net, x.split(3), forward, retain::exact_actions{},
                      {.progress = [&](std::int64_t states) { told.push_back(states); }}),
        1e-12);
  CHECK(told == std::vector<std::int64_t>{3, 6, 7});
  check(estimate_kfac(net, x.split(1), forward, retain::exact_actions{}), 1e-12);
  check(estimate_kfac(net, x, forward, retain::sampled_actions{.per_state = 3000, .seed = 2}),
        0.05);
  CHECK(exact.actions == "exact");
  CHECK_THAT(exact.report(), ContainsSubstring("body.weight and body.bias: A [4, 4]") &&
                                 ContainsSubstring("head.weight: A [4, 4]"));
  for (const auto& p : net.parameters()) CHECK(!p.grad().defined());
}

TEST_CASE("kfac: for one state the product of the factors is the layer's block of the exact Fisher",
          "[kfac]") {
  torch::manual_seed(2);
  network net;
  const auto x = torch::randn({1, 3}, at::kDouble);
  const auto f = estimate_kfac(
      net, x, [&](const at::Tensor& o) { return categorical{net.forward(o)}; },
      retain::exact_actions{});
  const auto probabilities = net.forward(x).softmax(-1).detach();
  for (std::size_t l = 0; l < 2; ++l) {
    at::Tensor block;
    for (std::int64_t action = 0; action < 3; ++action) {
      // columns one behind the other, as A (x) G has them
      const auto score = scores(net, x, action)[l].t().reshape({-1});
      const auto term = torch::outer(score, score) * probabilities[0][action];
      block = block.defined() ? block + term : term;
    }
    CHECK(support::relative_error(torch::kron(f.layers[l].inputs, f.layers[l].outputs), block) <
          1e-12);
  }
}

TEST_CASE("kfac: where inputs and scores are independent the product is the exact block, and "
          "elsewhere it is not",
          "[kfac]") {
  torch::manual_seed(3);
  torch::nn::Linear net(3, 4);
  net->to(at::kDouble);
  const auto x = torch::randn({9, 3}, at::kDouble);
  const auto error = [&] {
    const auto f = estimate_kfac(
        net, x, [&](const at::Tensor& o) { return categorical{net->forward(o)}; },
        retain::exact_actions{});
    auto block = torch::zeros({16, 16}, at::kDouble);
    for (std::int64_t n = 0; n < 9; ++n) {
      const auto p = net->forward(x.narrow(0, n, 1)).softmax(-1).detach()[0];
      const auto a = with_one(x.narrow(0, n, 1))[0];
      block += torch::kron(torch::outer(a, a), torch::diag(p) - torch::outer(p, p)) / 9;
    }
    return support::relative_error(torch::kron(f.layers[0].inputs, f.layers[0].outputs), block);
  };
  CHECK(error() > 1e-3);
  {
    const at::NoGradGuard no_grad;
    net->weight.zero_();  // the policy is the same in every state
  }
  CHECK(error() < 1e-12);
}

TEST_CASE("kfac: padded rows and the data's actions", "[kfac]") {
  torch::manual_seed(4);
  network net;
  const auto x = torch::randn({6, 3}, at::kDouble);
  const auto actions = torch::randint(3, {6});
  auto garbled = x.clone();
  auto mask = torch::ones({6});
  mask[5] = 0;
  const auto plain = [&](const batch_with_actions& b) {
    return categorical{net.forward(b.observations)};
  };
  const auto masked = [&](const batch_with_actions& b) {
    return retain::masked{categorical{net.forward(b.observations)}, b.mask};
  };
  const batch_with_actions kept{x.narrow(0, 0, 5), actions.narrow(0, 0, 5), {}};
  const auto expected = estimate_kfac(net, kept, plain, retain::dataset_actions{});
  garbled[5].fill_(1e3);
  const auto padded = estimate_kfac(net, std::vector{batch_with_actions{garbled, actions, mask}},
                                    masked, retain::dataset_actions{});
  CHECK(padded.states == 5);
  CHECK(padded.actions == "dataset");
  for (std::size_t l = 0; l < 2; ++l) {
    CHECK(support::relative_error(padded.layers[l].inputs, expected.layers[l].inputs) < 1e-12);
    CHECK(support::relative_error(padded.layers[l].outputs, expected.layers[l].outputs) < 1e-12);
  }
  auto g = torch::zeros({4, 4}, at::kDouble);
  for (std::int64_t n = 0; n < 5; ++n) {
    // of the bias: g itself
    const auto score =
        scores(net, x.narrow(0, n, 1), actions[n].item<std::int64_t>())[0].select(1, 3);
    g += torch::outer(score, score) / 5;
  }
  CHECK(support::relative_error(expected.layers[0].outputs, g) < 1e-12);
}

TEST_CASE("kfac: parameters that are in no such layer are refused by name, or excluded", "[kfac]") {
  torch::manual_seed(5);
  struct mixed : torch::nn::Module {
    torch::nn::Conv1d conv{register_module("conv", torch::nn::Conv1d(1, 2, 2))};
    torch::nn::Linear body{register_module("body", torch::nn::Linear(4, 5))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(5, 3))};
    torch::nn::Linear value{register_module("value", torch::nn::Linear(5, 1))};
    at::Tensor forward(const at::Tensor& x) {
      return head(torch::tanh(body(conv(x.unsqueeze(1)).flatten(1))));
    }
  } net;
  const auto x = torch::randn({6, 3});
  const auto forward = [&](const at::Tensor& o) { return net.forward(o); };
  const auto estimate = [&](std::vector<std::string> exclude) {
    return estimate_kfac(net, x, forward, {}, {.exclude = std::move(exclude)});
  };
  CHECK_THROWS_AS(estimate({"value.*"}), retain::config_error);
  CHECK_THROWS_WITH(estimate({"value.*"}), ContainsSubstring("'conv.weight' [2, 1, 2]") &&
                                               ContainsSubstring("retain::ewc"));
  CHECK_THROWS_WITH(estimate({"conv.*"}), ContainsSubstring("do not depend on 'value.weight'"));
  CHECK(estimate({"conv.*", "value.*"}).layers.size() == 2);
  // A bias alone, or a weight alone.
  CHECK_THROWS_WITH(estimate({"conv.*", "value.*", "head.weight"}),
                    ContainsSubstring("'head.bias'"));
  const auto without = estimate({"conv.*", "value.*", "head.bias"});
  CHECK(without.layers[1].bias.empty());
  CHECK(without.layers[1].inputs.size(0) == 5);
  CHECK_THROWS_WITH(estimate({"*"}), ContainsSubstring("no trainable parameter"));

  // A layer that is used twice, or for several rows of a state.
  const auto twice = [&](const at::Tensor& o) {
    return net.head(net.body(o)) + net.head(net.body(2 * o));
  };
  CHECK_THROWS_WITH(
      estimate_kfac(net, torch::randn({6, 4}), twice, {}, {.exclude = {"conv.*", "value.*"}}),
      ContainsSubstring("'body.weight'"));
  const auto rows = [&](const at::Tensor& o) {
    return net.head(net.body(o.reshape({-1, 4}))).reshape({6, 2, 3}).sum(1);
  };
  CHECK_THROWS_WITH(
      estimate_kfac(net, torch::randn({6, 2, 4}), rows, {}, {.exclude = {"conv.*", "value.*"}}),
      ContainsSubstring("'body.weight'"));
  const auto steps = [&](const at::Tensor& o) { return net.head(net.body(o)); };
  CHECK_THROWS_AS(
      estimate_kfac(net, torch::randn({2, 3, 4}), steps, {}, {.exclude = {"conv.*", "value.*"}}),
      retain::shape_error);
  CHECK_THROWS_WITH(
      estimate_kfac(net, torch::zeros({0, 3}), forward, {}, {.exclude = {"conv.*", "value.*"}}),
      ContainsSubstring("no valid state"));
  const auto no_graph = [&](const at::Tensor& o) { return net.forward(o).detach(); };
  CHECK_THROWS_WITH(estimate_kfac(net, x, no_graph), ContainsSubstring("no gradient"));
}

TEST_CASE("kfac: a hook of the user's on what a layer computes counts as it does in a plain "
          "backward pass",
          "[kfac]") {
  torch::manual_seed(6);
  network net;
  const auto x = torch::randn({7, 3}, at::kDouble);
  const auto factors = [&](double scale) {
    return estimate_kfac(
        net, x,
        [&](const at::Tensor& o) {
          const auto out = net.body(o);
          out.register_hook([scale](const at::Tensor& g) { return g * scale; });
          return categorical{net.head(torch::tanh(out))};
        },
        retain::exact_actions{});
  };
  const auto plain = factors(1), doubled = factors(2);
  CHECK(support::relative_error(doubled.layers[0].outputs, 4 * plain.layers[0].outputs) < 1e-12);
  CHECK(torch::equal(doubled.layers[1].outputs, plain.layers[1].outputs));
}

TEST_CASE("kfac: saved and loaded", "[kfac]") {
  const support::temporary_folder folder;
  network net;
  const auto f = estimate_kfac(net, torch::randn({5, 3}, at::kDouble),
                               [&](const at::Tensor& o) { return net.forward(o); });
  retain::save(folder.file("kfac"), f);
  retain::kronecker_fisher loaded;
  retain::load(folder.file("kfac"), loaded);
  CHECK(loaded.report() == f.report());
  for (std::size_t l = 0; l < 2; ++l) {
    CHECK(loaded.layers[l].inputs.equal(f.layers[l].inputs));
    CHECK(loaded.layers[l].outputs.equal(f.layers[l].outputs));
  }
}

TEST_CASE("kfac: a state that no estimate is is refused and changes nothing", "[kfac]") {
  retain::kronecker_fisher f;
  f.layers.push_back({"w", "", torch::eye(3, at::kDouble), torch::eye(2, at::kDouble)});
  f.states = 3;
  const auto load = [&](const char* key, auto value) {
    retain::state saved;
    f.save_state(saved, "");
    saved.set(key, value);
    f.load_state(saved, "");
  };
  CHECK_THROWS_AS(load("states", -1), retain::state_error);
  CHECK_THROWS_AS(load("inputs.w", torch::zeros({3, 2}, at::kDouble)), retain::shape_error);
  CHECK_THROWS_AS(load("outputs.w", torch::full({2, 2}, std::nan(""), at::kDouble)),
                  retain::state_error);
  CHECK(f.states == 3);
  CHECK(f.layers.at(0).outputs.equal(torch::eye(2, at::kDouble)));
}

}  // namespace kfac_test
