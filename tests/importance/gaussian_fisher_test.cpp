// SPDX-License-Identifier: MIT
#include <retain/diagonal_gaussian.hpp>
#include <retain/fisher.hpp>
#include <retain/tanh_gaussian.hpp>

#include <cmath>

#include "support.hpp"

namespace gaussian_fisher_test {

using retain::diagonal_gaussian;
using retain::estimate_fisher;
using retain::fisher_path;
using retain::tanh_gaussian;

namespace {

/// mean = W s + b with a log_std of its own.
struct linear_policy : torch::nn::Module {
  linear_policy(std::int64_t in, std::int64_t out, std::vector<std::int64_t> shape)
      : log_std(register_parameter("log_std", torch::randn(shape) * 0.3)) {
    layer = register_module("layer", torch::nn::Linear(in, out));
    to(at::kDouble);
    log_std = named_parameters()["log_std"];
  }
  diagonal_gaussian forward(const at::Tensor& s) { return {layer(s), log_std}; }
  at::Tensor log_std;
  torch::nn::Linear layer{nullptr};
};

/// Mean and log_std by two heads of one body.
struct two_heads : torch::nn::Module {
  explicit two_heads(at::ScalarType type = at::kDouble) { to(type); }
  torch::nn::Linear body{register_module("body", torch::nn::Linear(4, 6))};
  torch::nn::Linear mean{register_module("mean", torch::nn::Linear(6, 3))};
  torch::nn::Linear log_std{register_module("log_std", torch::nn::Linear(6, 3))};
  diagonal_gaussian forward(const at::Tensor& s) {
    const auto h = torch::tanh(body(s));
    return {mean(h), log_std(h).clamp(-3, 1)};
  }
};

/// The formula by plain autograd: sum over states and dimensions of (d mu)^2 / sigma^2 + 2 (d log
/// sigma)^2, over the number of states.
std::vector<at::Tensor> closed_form(torch::nn::Module& model, const diagonal_gaussian& d) {
  std::vector<at::Tensor> sums;
  const auto weights = model.parameters();
  for (const auto& w : weights) sums.push_back(torch::zeros_like(w));
  const auto mean = d.mean().reshape({-1}), log_std = d.log_std().reshape({-1});
  const double rows = static_cast<double>(d.mean().numel() / d.dimensions());
  for (std::int64_t i = 0; i < mean.numel(); ++i) {
    const auto add = [&](const at::Tensor& output, const at::Tensor& factor) {
      if (!output.requires_grad()) return;
      const auto gradients = torch::autograd::grad({output}, weights, {}, true, false, true);
      for (std::size_t w = 0; w < weights.size(); ++w)
        if (gradients[w].defined()) sums[w] += gradients[w].square() * factor / rows;
    };
    add(mean[i], log_std[i].detach().mul(-2).exp());
    add(log_std[i], torch::full({}, 2.0));
  }
  return sums;
}

void check_equal(const retain::fisher& f, const std::vector<at::Tensor>& truth, double tolerance) {
  INFO(f.report());
  REQUIRE(f.values.size() == truth.size());
  for (std::size_t i = 0; i < truth.size(); ++i) {
    INFO(f.values[i].name);
    CHECK(support::relative_error(f.values[i].tensor, truth[i]) < tolerance);
  }
}

}  // namespace

TEST_CASE(
    "fisher of a Gaussian: a linear policy against its closed form, and sampled within its error",
    "[fisher][gaussian]") {
  torch::manual_seed(1);
  for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{3}, {1, 3}}) {
    linear_policy net(5, 3, shape);
    const auto s = torch::randn({40, 5}, at::kDouble);
    const auto forward = [&](const at::Tensor& o) { return net.forward(o); };
    const auto precision = net.log_std.detach().reshape({3}).mul(-2).exp();
    const auto weight = precision.unsqueeze(1) * s.square().mean(0), bias = precision;
    const auto of_log_std = torch::full(shape, 2.0, at::kDouble);

    const auto exact = estimate_fisher(net, s, forward, retain::exact_actions{});
    check_equal(exact, {of_log_std, weight, bias}, 1e-12);
    for (const auto& [name, path] : exact.paths) CHECK((path == fisher_path::batched));

    // The squared scores z^2 / sigma^2 and (z^2 - 1)^2 with z standard normal have variances 2 /
    // sigma^4 and 56.
    constexpr int draws = 500;
    const auto sampled =
        estimate_fisher(net, s, forward, retain::sampled_actions{.per_state = draws, .seed = 3});
    const double root = std::sqrt(40.0 * draws);
    CHECK(((sampled.values[2].tensor - bias).abs() < 4.5 * std::sqrt(2.0) * precision / root)
              .all()
              .item<bool>());
    CHECK(((sampled.values[0].tensor - 2).abs() < 4.5 * std::sqrt(56.0) / root).all().item<bool>());
    for (const auto& [name, path] : sampled.paths) CHECK((path == fisher_path::batched));
  }
}

TEST_CASE(
    "fisher of a Gaussian: heads for mean and deviation against the formula by plain autograd",
    "[fisher][gaussian]") {
  torch::manual_seed(2);
  two_heads net;
  const auto s = torch::randn({17, 4}, at::kDouble);
  const auto truth = closed_form(net, net.forward(s));
  for (const bool walk : {true, false}) {
    const auto f = estimate_fisher(net, s, [&](const at::Tensor& o) { return net.forward(o); },
                                   retain::exact_actions{}, {.batched = walk});
    check_equal(f, truth, 1e-12);
    for (const auto& [name, path] : f.paths)
      CHECK((path == (walk ? fisher_path::batched : fisher_path::per_sample)));
  }
  // A fixed deviation, a fixed mean: the other half of the formula.
  const auto fixed_deviation = [&](const at::Tensor& o) {
    return diagonal_gaussian{net.forward(o).mean(), net.forward(o).log_std().detach()};
  };
  const auto fixed_mean = [&](const at::Tensor& o) {
    return diagonal_gaussian{net.forward(o).mean().detach(), net.forward(o).log_std()};
  };
  check_equal(estimate_fisher(net, s, fixed_deviation, retain::exact_actions{}),
              closed_form(net, fixed_deviation(s)), 1e-12);
  check_equal(estimate_fisher(net, s, fixed_mean, retain::exact_actions{}),
              closed_form(net, fixed_mean(s)), 1e-12);
  two_heads single(at::kFloat);
  const auto f = estimate_fisher(
      single, s.to(at::kFloat), [&](const at::Tensor& o) { return single.forward(o); },
      retain::exact_actions{});
  CHECK(f.values[0].tensor.scalar_type() == at::kFloat);
  check_equal(f, closed_form(single, single.forward(s.to(at::kFloat))), 1e-5);
}

TEST_CASE(
    "fisher of a Gaussian: a head that a clamp keeps still in some states stays with the walk",
    "[fisher][gaussian]") {
  torch::manual_seed(7);
  two_heads net;
  const auto s = torch::randn({16, 4}, at::kDouble);
  // The first deviation is at its floor in half of the states, the very ones that are looked at
  // first: they say nothing of its head.
  const auto middle = net.forward(s).log_std().select(1, 0).median().item<double>();
  const auto forward = [&](const at::Tensor& o) {
    const auto d = net.forward(o);
    return diagonal_gaussian{d.mean(), torch::cat({d.log_std().narrow(1, 0, 1).clamp_min(middle),
                                                   d.log_std().narrow(1, 1, 2)},
                                                  1)};
  };
  const auto f = estimate_fisher(net, s, forward, retain::exact_actions{});
  check_equal(f, closed_form(net, forward(s)), 1e-12);
  for (const auto& [name, path] : f.paths) CHECK((path == fisher_path::batched));
  // With that dimension alone nothing is ever decided, and the head is computed one sample at a
  // time.
  const auto first = [&](const at::Tensor& o) {
    return diagonal_gaussian{forward(o).mean().narrow(1, 0, 1),
                             forward(o).log_std().narrow(1, 0, 1)};
  };
  const auto single = estimate_fisher(net, s, first, retain::exact_actions{});
  check_equal(single, closed_form(net, first(s)), 1e-12);
  CHECK((single.paths.at("log_std.weight") == fisher_path::per_sample));
}

TEST_CASE("fisher of a Gaussian: many sampled scores have the closed form as their mean",
          "[fisher][gaussian]") {
  torch::manual_seed(3);
  two_heads net;
  const auto s = torch::randn({5, 4}, at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return net.forward(o); };
  const auto exact = estimate_fisher(net, s, forward, retain::exact_actions{});
  std::vector<std::vector<at::Tensor>> draws(exact.values.size());
  for (std::uint64_t seed = 0; seed < 80; ++seed) {
    const auto f =
        estimate_fisher(net, s, forward, retain::sampled_actions{.per_state = 4, .seed = seed});
    for (std::size_t i = 0; i < draws.size(); ++i) draws[i].push_back(f.values[i].tensor);
  }
  for (std::size_t i = 0; i < draws.size(); ++i) {
    const auto all = torch::stack(draws[i]);
    const auto error = all.std(0) / std::sqrt(80.0);
    CHECK(((all.mean(0) - exact.values[i].tensor).abs() < 5 * error + 1e-12).all().item<bool>());
  }
}

TEST_CASE("fisher of a Gaussian: squashing changes nothing", "[fisher][gaussian]") {
  torch::manual_seed(4);
  two_heads net(at::kFloat);
  // Means far out, where an action in float no longer says what was drawn.
  const auto s = torch::randn({9, 4});
  const auto plain = [&](const at::Tensor& o) {
    return diagonal_gaussian{net.forward(o).mean() * 30, net.forward(o).log_std()};
  };
  const auto squashed = [&](const at::Tensor& o) {
    return tanh_gaussian{plain(o), {.low = -2, .high = 3}};
  };
  const auto compare = [&](const retain::fisher& a, const retain::fisher& b) {
    for (std::size_t i = 0; i < a.values.size(); ++i)
      CHECK(a.values[i].tensor.equal(b.values[i].tensor));
  };
  compare(estimate_fisher(net, s, squashed, retain::exact_actions{}),
          estimate_fisher(net, s, plain, retain::exact_actions{}));
  compare(estimate_fisher(net, s, squashed), estimate_fisher(net, s, plain));

  // Actions of the data are squashed ones; the density of the Gaussian differs by a constant in
  // theta.
  const auto u = torch::randn({9, 3}) * 0.5;
  const auto near = [&](const at::Tensor& o) { return tanh_gaussian{net.forward(o)}; };
  const auto of_actions = estimate_fisher(
      net, s, near, retain::dataset_actions{[&](const at::Tensor&) { return u.tanh(); }});
  const auto of_unsquashed = estimate_fisher(
      net, s, [&](const at::Tensor& o) { return net.forward(o); },
      retain::dataset_actions{[&](const at::Tensor&) { return u; }});
  for (std::size_t i = 0; i < of_actions.values.size(); ++i)
    CHECK(support::relative_error(of_actions.values[i].tensor, of_unsquashed.values[i].tensor) <
          1e-4);
}

TEST_CASE("fisher of a Gaussian: the estimate does not depend on the batch size",
          "[fisher][gaussian]") {
  torch::manual_seed(5);
  two_heads net;
  const auto s = torch::randn({30, 4}, at::kDouble),
             sequences = torch::randn({3, 12, 4}, at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return net.forward(o); };
  const auto compare = [&](const retain::fisher& parts, const retain::fisher& whole) {
    for (std::size_t i = 0; i < whole.values.size(); ++i)
      CHECK(support::relative_error(parts.values[i].tensor, whole.values[i].tensor) < 1e-12);
  };
  const retain::sampled_actions twice{.per_state = 2, .seed = 8};
  const retain::exact_actions exact{};
  for (const std::int64_t size : {1, 7})
    for (const bool walk : {true, false}) {
      compare(estimate_fisher(net, s.split(size), forward, twice, {.batched = walk}),
              estimate_fisher(net, s, forward, twice));
      compare(estimate_fisher(net, s.split(size), forward, exact, {.batched = walk}),
              estimate_fisher(net, s, forward, exact));
    }
  compare(estimate_fisher(net, sequences.split(5, 1), forward, twice),
          estimate_fisher(net, sequences, forward, twice));
  compare(estimate_fisher(net, sequences.split(5, 1), forward, exact),
          estimate_fisher(net, sequences, forward, exact));
  // Exact scores do not mix over time, so steps of sequences may as well be single states.
  compare(estimate_fisher(net, sequences, forward, exact),
          estimate_fisher(net, sequences.reshape({36, 4}), forward, exact));
}

TEST_CASE("fisher of a Gaussian: a recurrent policy, padded, step by step", "[fisher][gaussian]") {
  torch::manual_seed(6);
  at::globalContext().setUserEnabledMkldnn(false);
  struct recurrent : torch::nn::Module {
    recurrent() { to(at::kDouble); }
    torch::nn::GRU gru{register_module("gru", torch::nn::GRU(3, 4))};
    torch::nn::Linear mean{register_module("mean", torch::nn::Linear(4, 2))};
    at::Tensor log_std{register_parameter("log_std", torch::randn({2}, at::kDouble) * 0.3)};
    diagonal_gaussian forward(const at::Tensor& x) { return {mean(std::get<0>(gru(x))), log_std}; }
  } net;
  net.log_std = net.named_parameters()["log_std"];
  const auto x = torch::randn({4, 3, 3}, at::kDouble);
  const auto lengths = torch::tensor({4, 2, 3});
  const auto mask = torch::arange(4).unsqueeze(1) < lengths;
  // Every valid step by itself, differentiated back through its own sequence.
  std::vector<at::Tensor> truth;
  for (const auto& p : net.parameters()) truth.push_back(torch::zeros_like(p));
  for (std::int64_t n = 0; n < 3; ++n)
    for (std::int64_t t = 0; t < lengths[n].item<std::int64_t>(); ++t) {
      const auto d = net.forward(x.narrow(1, n, 1));
      const auto one = closed_form(net, {d.mean()[t], d.log_std()[t]});
      for (std::size_t i = 0; i < truth.size(); ++i) truth[i] += one[i] / 9;
    }
  const auto dirty = x.masked_fill(mask.logical_not().unsqueeze(-1), 1e3);
  struct padded {
    at::Tensor observations, mask;
    padded narrow(std::int64_t start, std::int64_t length) const {
      return {observations.narrow(1, start, length), mask.narrow(1, start, length)};
    }
  };
  for (const bool walk : {true, false}) {
    const auto f = estimate_fisher(
        net, padded{dirty, mask},
        [&](const padded& b) { return retain::masked{net.forward(b.observations), b.mask}; },
        retain::exact_actions{}, {.batched = walk});
    CHECK(f.states == 9);
    CHECK(f.unsliced == 0);
    check_equal(f, truth, 1e-10);
  }
  at::globalContext().setUserEnabledMkldnn(true);
}

}  // namespace gaussian_fisher_test
