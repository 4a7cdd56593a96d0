// SPDX-License-Identifier: MIT
#include <retain/fisher.hpp>

#include <ATen/Parallel.h>
#include <torch/script.h>

#include "support.hpp"

using retain::categorical;
using retain::estimate_fisher;
using retain::fisher_path;

namespace {

struct batch_with_actions {
  at::Tensor observations, actions;
  batch_with_actions narrow(std::int64_t start, std::int64_t length) const {
    return {observations.narrow(0, start, length), actions.narrow(0, start, length)};
  }
};
struct opaque_batch {  // cannot be sliced
  at::Tensor observations;
};

/// The definition: one sample, one gradient, one square.
template <class Model, class Forward>
std::vector<at::Tensor> per_sample_loop(Model& model, const at::Tensor& data, const at::Tensor& actions, Forward forward, std::int64_t dim) {
  std::vector<at::Tensor> sums;
  for (const auto& [name, p] : retain::parameters(model)) sums.push_back(torch::zeros_like(p, at::kDouble));
  for (std::int64_t n = 0; n < data.size(dim); ++n) {
    auto list = retain::parameters(model);
    for (auto& [name, p] : list) p.mutable_grad() = at::Tensor();
    forward(data.narrow(dim, n, 1)).log_prob(actions.narrow(dim, n, 1)).sum().backward();
    for (std::size_t i = 0; i < list.size(); ++i)
      if (list[i].tensor.grad().defined()) sums[i] += list[i].tensor.grad().to_dense().to(at::kDouble).square();
  }
  for (auto& [name, p] : retain::parameters(model)) p.mutable_grad() = at::Tensor();
  for (auto& s : sums) s /= static_cast<double>(actions.numel());
  return sums;
}

/// Checks estimate_fisher on dataset actions against the loop, and the path each parameter took.
template <class Model, class Forward>
void check(Model& model, const at::Tensor& data, std::int64_t num_actions, Forward forward, const std::map<std::string, fisher_path>& expected,
           double tolerance = 2e-6, bool sequences = false) {
  const std::int64_t dim = sequences ? 1 : 0;
  const auto rows = sequences ? std::vector<std::int64_t>{data.size(0), data.size(1)} : std::vector<std::int64_t>{data.size(0)};
  const auto actions = torch::randint(num_actions, rows);
  const auto truth = per_sample_loop(model, data, actions, forward, dim);
  const auto f = estimate_fisher(model, std::vector{data}, forward, retain::dataset_actions{[&](const at::Tensor&) { return actions; }});
  INFO(f.report());
  REQUIRE(f.values.size() == truth.size());
  for (std::size_t i = 0; i < truth.size(); ++i) {
    INFO(f.values[i].name);
    CHECK(support::relative_error(f.values[i].tensor, truth[i]) < tolerance);
    const auto path = expected.count(f.values[i].name) ? expected.at(f.values[i].name) : fisher_path::graph_walk;
    CHECK((f.paths.at(f.values[i].name) == path));
  }
  CHECK(f.states == actions.numel());
  for (const auto& [name, p] : retain::parameters(model)) CHECK(!p.grad().defined());
}

/// Two choices at once, with rows of the exact Fisher of its own: the first choice's, then the second's.
struct pair {
  categorical one, two;
  at::Tensor log_prob(const at::Tensor& a) const { return one.log_prob(a.select(-1, 0)) + two.log_prob(a.select(-1, 1)); }
  at::Tensor entropy() const { return one.entropy() + two.entropy(); }
  at::Tensor sample() const { return torch::stack({one.sample(), two.sample()}, -1); }
  at::Tensor mode() const { return torch::stack({one.mode(), two.mode()}, -1); }
  std::int64_t num_scores() const { return 4; }
  at::Tensor score(std::int64_t k) const {
    const auto p = (k < 2 ? one : two).log_probs().select(-1, k % 2);
    return p * (p.detach() / 2).exp();
  }
  friend at::Tensor kl(const pair& p, const pair& q) { return kl(p.one, q.one) + kl(p.two, q.two); }
};
/// A number of actions and nothing more.
struct own {
  categorical inner;
  at::Tensor log_prob(const at::Tensor& a) const { return inner.log_prob(a); }
  at::Tensor entropy() const { return inner.entropy(); }
  at::Tensor sample() const { return inner.sample(); }
  at::Tensor mode() const { return inner.mode(); }
  std::int64_t num_actions() const { return inner.num_actions(); }
  friend at::Tensor kl(const own& p, const own& q) { return kl(p.inner, q.inner); }
};

struct refuses : torch::autograd::Function<refuses> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& x) { return x.clone(); }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*, const torch::autograd::variable_list&) {
    TORCH_CHECK(false, "cudnn RNN backward can only be called in training mode");
  }
};

}  // namespace

TEST_CASE("fisher: a linear softmax policy against its closed form", "[fisher]") {
  torch::manual_seed(1);
  torch::nn::Linear net(torch::nn::LinearOptions(5, 4));
  net->to(at::kDouble);
  const auto x = torch::randn({40, 5}, at::kDouble);
  const auto forward = [&](const auto& o) { return categorical{net->forward(o)}; };
  // d log pi(a) / d W_kj = (1[a=k] - pi_k) x_j, so the expected square is pi_k (1 - pi_k) x_j^2.
  const auto pi = net->forward(x).softmax(-1).detach();
  const auto variance = pi * (1 - pi);
  const auto weight = variance.t().mm(x.square()) / 40.0, bias = variance.mean(0);

  const auto exact = estimate_fisher(net, x, forward, retain::exact_actions{});
  CHECK(support::relative_error(exact.values[0].tensor, weight) < 1e-12);
  CHECK(support::relative_error(exact.values[1].tensor, bias) < 1e-12);
  CHECK(exact.actions == "exact");

  // Sampled: unbiased, within its Monte Carlo error. The squares' standard deviation is estimated from draws themselves.
  constexpr int draws = 2000;
  const auto sampled = estimate_fisher(net, x, forward, retain::sampled_actions{.per_state = draws, .seed = 3});
  const auto fourth = ((1 - pi).pow(4) * pi + pi.pow(4) * (1 - pi)) - variance.square();  // Var of (1[a=k] - pi_k)^2
  const auto error = (fourth.sum(0) / (40.0 * 40.0 * draws)).sqrt();
  CHECK(((sampled.values[1].tensor - bias).abs() < 4.5 * error).all().item<bool>());
  CHECK(sampled.states == 40);
}

TEST_CASE("fisher: an MLP against the per-sample loop", "[fisher]") {
  torch::manual_seed(2);
  torch::nn::Sequential net(torch::nn::Linear(7, 9), torch::nn::ReLU(), torch::nn::Linear(9, 8), torch::nn::Tanh(),
                            torch::nn::Linear(torch::nn::LinearOptions(8, 4).bias(false)));
  check(net, torch::randn({23, 7}), 4, [&](const at::Tensor& x) { return categorical{net->forward(x)}; }, {});
}

TEST_CASE("fisher: convolutions, strided, padded, dilated, grouped and one-dimensional", "[fisher]") {
  torch::manual_seed(3);
  using namespace torch::nn;
  Sequential net(Conv2d(Conv2dOptions(4, 6, 3).stride(2).padding(1)), ReLU(), Conv2d(Conv2dOptions(6, 6, 3).groups(3).dilation(2).padding(2)),
                 ReLU(), Flatten(), Linear(6 * 5 * 4, 3));
  check(net, torch::randn({11, 4, 10, 8}), 3, [&](const at::Tensor& x) { return categorical{net->forward(x)}; }, {});
  Sequential line(Conv1d(Conv1dOptions(3, 5, 4).stride(2)), ReLU(), Flatten(), Linear(5 * 6, 3));
  check(line, torch::randn({9, 3, 14}), 3, [&](const at::Tensor& x) { return categorical{line->forward(x)}; }, {});
}

TEST_CASE("fisher: LSTM and GRU over time, squares of sums and not sums of squares", "[fisher]") {
  torch::manual_seed(4);
  at::globalContext().setUserEnabledMkldnn(false);  // later LibTorch fuses the layer into one node otherwise
  struct recurrent : torch::nn::Module {
    torch::nn::LSTM lstm{register_module("lstm", torch::nn::LSTM(torch::nn::LSTMOptions(5, 6).num_layers(2)))};
    torch::nn::GRU gru{register_module("gru", torch::nn::GRU(6, 4))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(4, 3))};
    at::Tensor forward(const at::Tensor& x) {
      return head(std::get<0>(gru(std::get<0>(lstm(x)))));
    }
  } net;
  check(net, torch::randn({6, 10, 5}), 3, [&](const at::Tensor& x) { return categorical{net.forward(x)}; }, {}, 5e-6, true);
  at::globalContext().setUserEnabledMkldnn(true);
}

TEST_CASE("fisher: layers so large that they are taken a tile at a time", "[fisher]") {
  torch::manual_seed(14);
  torch::nn::Sequential net(torch::nn::Linear(60, 700), torch::nn::Tanh(), torch::nn::Linear(700, 3));
  check(net, torch::randn({3, 5, 60}), 3, [&](const at::Tensor& x) { return categorical{net->forward(x)}; }, {}, 5e-6, true);
  // More columns than a tile has room for: a row at a time.
  torch::nn::Sequential wide(torch::nn::Linear(40000, 2));
  check(wide, torch::randn({2, 3, 40000}) / 200, 2, [&](const at::Tensor& x) { return categorical{wide->forward(x)}; }, {}, 5e-6, true);
  torch::nn::Sequential picture(torch::nn::Conv2d(torch::nn::Conv2dOptions(8, 70, 5).groups(2)), torch::nn::ReLU(),
                                torch::nn::Conv2d(torch::nn::Conv2dOptions(70, 64, 3)), torch::nn::Flatten(), torch::nn::Linear(64 * 4, 3));
  check(picture, torch::randn({4, 8, 8, 8}), 3, [&](const at::Tensor& x) { return categorical{picture->forward(x)}; }, {}, 5e-6);
}

TEST_CASE("fisher: embeddings, bags and layer normalisation", "[fisher]") {
  torch::manual_seed(5);
  struct reader : torch::nn::Module {
    torch::nn::Embedding tokens{register_module("tokens", torch::nn::Embedding(torch::nn::EmbeddingOptions(9, 4).padding_idx(0)))};
    torch::nn::EmbeddingBag bag{register_module("bag", torch::nn::EmbeddingBag(torch::nn::EmbeddingBagOptions(9, 6).mode(torch::kSum)))};
    torch::nn::Linear mix{register_module("mix", torch::nn::Linear(20, 6))};
    torch::nn::LayerNorm norm{register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({6})))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(6, 3))};
    at::Tensor forward(const at::Tensor& x) {
      const auto offsets = torch::arange(0, x.numel(), x.size(1));
      return head(torch::relu(norm(mix(tokens(x).flatten(1)) + bag(x.reshape({-1}), offsets))));
    }
  } net;
  // Five tokens a sample out of nine: repeated ones and the padding row occur.
  check(net, torch::randint(9, {17, 5}), 3, [&](const at::Tensor& x) { return categorical{net.forward(x)}; }, {});
}

TEST_CASE("fisher: a weight tied between two layers, alike and unlike", "[fisher]") {
  torch::manual_seed(6);
  struct tied : torch::nn::Module {
    torch::nn::Linear in{register_module("in", torch::nn::Linear(5, 5))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(5, 3))};
    at::Tensor forward(const at::Tensor& x) { return head(torch::tanh(in(torch::tanh(in(x))))); }
  } twice;
  check(twice, torch::randn({12, 5}), 3, [&](const at::Tensor& x) { return categorical{twice.forward(x)}; }, {});

  struct language : torch::nn::Module {
    torch::nn::Embedding tokens{register_module("tokens", torch::nn::Embedding(6, 4))};
    at::Tensor forward(const at::Tensor& x) { return torch::tanh(tokens(x)).mm(tokens->weight.t()); }
  } shared;
  check(shared, torch::randint(6, {15}), 6, [&](const at::Tensor& x) { return categorical{shared.forward(x)}; },
        {{"tokens.weight", fisher_path::per_sample}});
}

TEST_CASE("fisher: parameters outside the walk's reach are computed one sample at a time", "[fisher]") {
  torch::manual_seed(7);
  struct odd : torch::nn::Module {
    torch::nn::Linear in{register_module("in", torch::nn::Linear(5, 8))};
    at::Tensor gain{register_parameter("gain", torch::randn({8}))};
    torch::nn::GroupNorm norm{register_module("norm", torch::nn::GroupNorm(2, 8))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(8, 3))};
    at::Tensor forward(const at::Tensor& x) {
      // head's weight is used as it is and as a gate: one use is known, the other is not
      return head(norm(in(x) * gain)) + head->weight.sum(1);
    }
  } net;
  check(net, torch::randn({13, 5}), 3, [&](const at::Tensor& x) { return categorical{net.forward(x)}; },
        {{"gain", fisher_path::per_sample}, {"norm.weight", fisher_path::per_sample}, {"norm.bias", fisher_path::per_sample},
         {"head.weight", fisher_path::per_sample}});
}

TEST_CASE("fisher: several rows a sample, in either order", "[fisher]") {
  torch::manual_seed(8);
  torch::nn::Sequential net(torch::nn::Linear(4, 6), torch::nn::ReLU(), torch::nn::Linear(6, 3));
  // A set of five things a sample, each through the same layers: rows are sample by sample ...
  check(net, torch::randn({14, 5, 4}), 3, [&](const at::Tensor& x) { return categorical{net->forward(x).sum(1)}; }, {}, 5e-6);
  // ... or, in a sequence [T, N], step by step.
  check(net, torch::randn({5, 14, 4}), 3, [&](const at::Tensor& x) { return categorical{net->forward(x)}; }, {}, 5e-6, true);
}

TEST_CASE("fisher: rows that a policy reorders do not fit the walk, and it notices", "[fisher]") {
  torch::manual_seed(9);
  torch::nn::Sequential net(torch::nn::Linear(4, 6), torch::nn::ReLU(), torch::nn::Linear(6, 3));
  const auto x = torch::randn({5, 8, 4});
  const auto actions = torch::randint(3, {5, 8});
  // Rows are neither sample by sample nor step by step: a shuffled flattening, undone behind the layers.
  const auto shuffle = torch::randperm(40), back = shuffle.argsort();
  const auto forward = [&](const opaque_batch& b) {
    return categorical{net->forward(b.observations.reshape({40, 4}).index_select(0, shuffle)).index_select(0, back).reshape({5, 8, 3})};
  };
  const auto plain = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto truth = per_sample_loop(net, x, actions, plain, 1);
  const auto f = estimate_fisher(net, opaque_batch{x}, forward, retain::dataset_actions{[&](const auto&) { return actions; }});
  for (std::size_t i = 0; i < truth.size(); ++i) {
    CHECK(support::relative_error(f.values[i].tensor, truth[i]) < 5e-6);
    CHECK((f.paths.at(f.values[i].name) == fisher_path::per_sample));
  }
}

TEST_CASE("fisher: the estimate does not depend on the batch size", "[fisher]") {
  torch::manual_seed(10);
  torch::nn::Sequential net(torch::nn::Linear(6, 8), torch::nn::ReLU(), torch::nn::Linear(8, 5));
  net->to(at::kDouble);
  const auto x = torch::randn({60, 6}, at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto whole = estimate_fisher(net, x, forward);
  for (const std::int64_t size : {1, 7, 30})
    for (const bool walk : {true, false}) {
      const auto parts = estimate_fisher(net, x.split(size), forward, retain::sampled_actions{}, {.walk = walk});
      for (std::size_t i = 0; i < whole.values.size(); ++i)
        CHECK(support::relative_error(parts.values[i].tensor, whole.values[i].tensor) < 1e-12);
    }
  // What is not a Fisher: the square of the batch's mean gradient is smaller by about the number of samples.
  net->zero_grad();
  const auto d = forward(x);
  d.log_prob(d.at_quantile(torch::rand({60}, at::kDouble))).mean().backward();
  CHECK(net->parameters()[0].grad().square().sum().item<double>() < 0.2 * whole.values[0].tensor.sum().item<double>());
}

TEST_CASE("fisher: sequences in batches of any number and length, several draws a state", "[fisher]") {
  torch::manual_seed(18);
  torch::nn::Sequential net(torch::nn::Linear(4, 6), torch::nn::ReLU(), torch::nn::Linear(6, 3));
  net->to(at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto x = torch::randn({5, 8, 4}, at::kDouble);
  const retain::sampled_actions twice{.per_state = 2, .seed = 4};
  const auto whole = estimate_fisher(net, x, forward, twice);
  // A first batch of one sequence, or of one step, must not decide for the others how their rows lie.
  const std::vector<std::vector<at::Tensor>> divisions{{x.narrow(1, 0, 1), x.narrow(1, 1, 7)}, {x.narrow(1, 0, 3), x.narrow(1, 3, 5)}};
  for (const auto& division : divisions) {
    const auto parts = estimate_fisher(net, division, forward, twice);
    for (std::size_t i = 0; i < whole.values.size(); ++i)
      CHECK(support::relative_error(parts.values[i].tensor, whole.values[i].tensor) < 1e-12);
    CHECK((parts.paths.at("0.weight") == fisher_path::graph_walk));
  }
  const std::vector<at::Tensor> lengths{torch::randn({1, 7, 4}, at::kDouble), x};
  const auto walked = estimate_fisher(net, lengths, forward, twice), looped = estimate_fisher(net, lengths, forward, twice, {.walk = false});
  for (std::size_t i = 0; i < walked.values.size(); ++i)
    CHECK(support::relative_error(walked.values[i].tensor, looped.values[i].tensor) < 1e-12);
}

TEST_CASE("fisher: a sequence that is judged by its last step", "[fisher]") {
  torch::manual_seed(19);
  at::globalContext().setUserEnabledMkldnn(false);
  struct last_step : torch::nn::Module {
    torch::nn::LSTM lstm{register_module("lstm", torch::nn::LSTM(3, 5))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(5, 4))};
    at::Tensor forward(const at::Tensor& x) { return head(std::get<0>(lstm(x))[-1]); }
  } net;
  const auto x = torch::randn({8, 6, 3});  // samples lie along dimension 1, log-probabilities are [6]
  const auto actions = torch::randint(4, {6});
  std::vector<at::Tensor> truth;
  for (const auto& [name, p] : retain::parameters(net)) truth.push_back(torch::zeros_like(p));
  for (std::int64_t n = 0; n < 6; ++n) {
    net.zero_grad();
    categorical{net.forward(x.narrow(1, n, 1))}.log_prob(actions.narrow(0, n, 1)).sum().backward();
    for (std::size_t i = 0; i < truth.size(); ++i) truth[i] += net.parameters()[i].grad().square() / 6;
  }
  for (const bool walk : {true, false}) {
    const auto f = estimate_fisher(net, x, [&](const at::Tensor& o) { return categorical{net.forward(o)}; },
                                   retain::dataset_actions{[&](const at::Tensor&) { return actions; }}, {.walk = walk});
    for (std::size_t i = 0; i < truth.size(); ++i) CHECK(support::relative_error(f.values[i].tensor, truth[i]) < 1e-5);
  }
  at::globalContext().setUserEnabledMkldnn(true);
}

TEST_CASE("fisher: one offset for all logits, broadcast along the actions", "[fisher]") {
  torch::manual_seed(20);
  struct shifted : torch::nn::Module {
    torch::nn::Linear in{register_module("in", torch::nn::Linear(4, 6))};
    at::Tensor offset{register_parameter("offset", torch::randn({1}))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(6, 3))};
    at::Tensor forward(const at::Tensor& x) { return head(torch::tanh(in(x) + offset)); }
  } net;
  check(net, torch::randn({9, 4}), 3, [&](const at::Tensor& x) { return categorical{net.forward(x)}; }, {{"offset", fisher_path::per_sample}});
}

TEST_CASE("fisher: a bound on memory changes nothing but memory", "[fisher]") {
  torch::manual_seed(11);
  torch::nn::Sequential net(torch::nn::Conv2d(torch::nn::Conv2dOptions(2, 3, 3)), torch::nn::ReLU(), torch::nn::Flatten(), torch::nn::Linear(48, 3));
  const auto x = torch::randn({20, 2, 6, 6});
  const auto forward = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto wide = estimate_fisher(net, x, forward), narrow = estimate_fisher(net, x, forward, retain::sampled_actions{}, {.memory = 1});
  for (std::size_t i = 0; i < wide.values.size(); ++i)
    CHECK(support::relative_error(narrow.values[i].tensor, wide.values[i].tensor) < 1e-5);
}

TEST_CASE("fisher: frozen, excluded and unused parameters", "[fisher]") {
  torch::manual_seed(12);
  struct heads : torch::nn::Module {
    torch::nn::Linear body{register_module("body", torch::nn::Linear(4, 4))};
    torch::nn::Linear policy{register_module("policy", torch::nn::Linear(4, 3))};
    torch::nn::Linear value{register_module("value", torch::nn::Linear(4, 1))};
  } net;
  net.body->weight.requires_grad_(false);
  const auto x = torch::randn({9, 4});
  const auto forward = [&](const at::Tensor& o) { return categorical{net.policy(torch::relu(net.body(o)))}; };
  const auto f = estimate_fisher(net, x, forward, retain::sampled_actions{}, {.exclude = {"value.bias"}});
  std::vector<std::string> names;
  for (const auto& entry : f.values) names.push_back(entry.name);
  CHECK(names == std::vector<std::string>{"body.bias", "policy.weight", "policy.bias", "value.weight"});
  CHECK((f.paths.at("value.weight") == fisher_path::unused));
  CHECK(f.values[3].tensor.equal(torch::zeros({1, 4})));
  CHECK_THAT(f.report(), ContainsSubstring("value.weight [1, 4]: unused"));
}

TEST_CASE("fisher: masked steps of sequences do not count", "[fisher]") {
  torch::manual_seed(13);
  torch::nn::Linear net(4, 3);
  const auto x = torch::randn({5, 6, 4});
  auto mask = torch::ones({5, 6});
  mask.narrow(0, 3, 2).narrow(1, 2, 4).zero_();
  const auto masked_forward = [&](const opaque_batch& b) { return retain::masked{categorical{net->forward(b.observations)}, mask}; };
  const auto f = estimate_fisher(net, opaque_batch{x}, masked_forward, retain::exact_actions{});
  CHECK(f.states == 22);
  // The same through a tensor, which is sliced: the mask that forward holds stays the whole batch's.
  const auto closed = estimate_fisher(net, x, [&](const at::Tensor& o) { return retain::masked{categorical{net->forward(o)}, mask}; },
                                      retain::exact_actions{});
  for (std::size_t i = 0; i < 2; ++i) CHECK(support::relative_error(closed.values[i].tensor, f.values[i].tensor) < 1e-5);
  // Exact scores of different steps do not mix, so the valid steps may as well be single states.
  const auto kept = x.reshape({30, 4}).index({mask.reshape({30}).to(at::kBool)});
  const auto flat = estimate_fisher(net, kept, [&](const at::Tensor& o) { return net->forward(o); }, retain::exact_actions{});
  for (std::size_t i = 0; i < 2; ++i) CHECK(support::relative_error(f.values[i].tensor, flat.values[i].tensor) < 1e-5);
}

TEST_CASE("fisher: sampled scores of a sequence agree with exact ones within their error", "[fisher]") {
  torch::manual_seed(14);
  torch::nn::Linear net(3, 3);
  net->to(at::kDouble);
  const auto x = torch::randn({4, 5, 3}, at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto exact = estimate_fisher(net, x, forward, retain::exact_actions{});
  std::vector<at::Tensor> draws;
  for (std::uint64_t seed = 0; seed < 300; ++seed)
    draws.push_back(estimate_fisher(net, x, forward, retain::sampled_actions{.seed = seed}).values[0].tensor);
  const auto all = torch::stack(draws);
  const auto error = all.std(0) / std::sqrt(300.0);
  CHECK(((all.mean(0) - exact.values[0].tensor).abs() < 4.5 * error).all().item<bool>());
}

TEST_CASE("fisher: one sample, one action, an empty batch, half precision", "[fisher]") {
  torch::manual_seed(15);
  torch::nn::Linear net(4, 3);
  const auto forward = [&](const at::Tensor& o) { return net->forward(o); };
  const auto x = torch::randn({6, 4});
  CHECK(estimate_fisher(net, x.narrow(0, 0, 1), forward).states == 1);
  const auto with_empty = estimate_fisher(net, std::vector{x.narrow(0, 0, 3), x.narrow(0, 0, 0), x.narrow(0, 3, 3)}, forward);
  const auto whole = estimate_fisher(net, x, forward);
  CHECK(with_empty.states == 6);
  CHECK(support::relative_error(with_empty.values[0].tensor, whole.values[0].tensor) < 1e-6);

  torch::nn::Linear single(4, 1);
  const auto certain = estimate_fisher(single, x, [&](const at::Tensor& o) { return single->forward(o); });
  CHECK(certain.values[0].tensor.equal(torch::zeros({1, 4})));

  torch::nn::Linear small(4, 3);
  small->to(at::kBFloat16);
  const auto reduced = estimate_fisher(small, x.to(at::kBFloat16), [&](const at::Tensor& o) { return small->forward(o); });
  CHECK(reduced.values[0].tensor.scalar_type() == at::kFloat);
  CHECK(reduced.values[0].tensor.sum().item<double>() > 0);
}

TEST_CASE("fisher: a small batch counts after a large one", "[fisher]") {
  torch::manual_seed(22);
  torch::nn::Linear net(1, 2);
  const auto pi = net->bias.detach().softmax(0);
  {
    const at::NoGradGuard no_grad;
    net->weight.zero_();
  }
  // d log pi(a) / d W_k = (1[a=k] - pi_k) x: one state gives 1e8 times what each of the others does, and all of those 3e-6 of it.
  std::vector<at::Tensor> states{torch::full({1, 1}, 1e3)};
  for (int i = 0; i < 300; ++i) states.push_back(torch::full({1, 1}, 0.1));
  const auto f = estimate_fisher(net, states, [&](const at::Tensor& x) { return net->forward(x); }, retain::exact_actions{});
  const double expected = (pi[0] * pi[1]).item<double>() * (1e6 + 300 * 0.01) / 301;
  CHECK(f.values[0].tensor[0].item<double>() == Approx(expected).epsilon(1e-6));
}

TEST_CASE("fisher: heads that some passes leave out stay with the walk", "[fisher]") {
  torch::manual_seed(23);
  struct heads : torch::nn::Module {
    torch::nn::Linear first{register_module("first", torch::nn::Linear(4, 2))};
    torch::nn::Linear second{register_module("second", torch::nn::Linear(4, 2))};
  } net;
  const auto x = torch::randn({12, 4});
  const auto f = estimate_fisher(net, x, [&](const at::Tensor& o) { return pair{categorical{net.first(o)}, categorical{net.second(o)}}; },
                                 retain::exact_actions{});
  INFO(f.report());
  for (const std::size_t i : {0u, 2u}) {
    const auto pi = (i == 0 ? net.first : net.second)(x).softmax(-1).detach();
    CHECK(support::relative_error(f.values[i].tensor, (pi * (1 - pi)).t().mm(x.square()) / 12.0) < 1e-5);
    CHECK((f.paths.at(f.values[i].name) == fisher_path::graph_walk));
  }
}

TEST_CASE("fisher: a sample whose gradient says nothing leaves the check to the next", "[fisher]") {
  torch::manual_seed(15);
  // The least likely action, and so the first to be looked at, is the first sample's, whose inputs are 0: its gradient is the bias's alone.
  torch::nn::Sequential net(torch::nn::Linear(4, 3));
  auto x = torch::randn({6, 4}) / 10;
  x[0].zero_();
  {
    const at::NoGradGuard no_grad;
    net->named_parameters()["0.bias"].copy_(torch::tensor({0.0, 0.0, -3.0}));
  }
  auto actions = torch::zeros({6}, at::kLong);
  actions[0].fill_(2);
  const auto forward = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto truth = per_sample_loop(net, x, actions, forward, 0);
  const auto f = estimate_fisher(net, x, forward, retain::dataset_actions{[&](const at::Tensor&) { return actions; }});
  for (std::size_t i = 0; i < truth.size(); ++i) {
    CHECK(support::relative_error(f.values[i].tensor, truth[i]) < 2e-6);
    CHECK((f.paths.at(f.values[i].name) == fisher_path::graph_walk));
  }
}

TEST_CASE("fisher: a hook of the user's on what a layer computes counts as it does in a plain backward pass", "[fisher]") {
  torch::manual_seed(16);
  torch::nn::Linear in(4, 6), head(6, 3);
  torch::nn::Sequential net(in, head);
  const auto forward = [&](const at::Tensor& x) {
    const auto hidden = in(x);
    if (hidden.requires_grad()) hidden.register_hook([](const at::Tensor& g) { return g * 2; });
    return categorical{head(torch::tanh(hidden))};
  };
  check(net, torch::randn({9, 4}), 3, forward, {});
}

TEST_CASE("fisher: a distribution of the user's own, with a number of actions and nothing more", "[fisher]") {
  torch::manual_seed(24);
  torch::nn::Linear net(4, 3);
  const auto x = torch::randn({10, 4});
  const auto forward = [&](const at::Tensor& o) { return own{categorical{net->forward(o)}}; };
  const auto plain = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto exact = estimate_fisher(net, x, forward, retain::exact_actions{});
  CHECK(exact.values[0].tensor.equal(estimate_fisher(net, x, plain, retain::exact_actions{}).values[0].tensor));
  // Its sample() is asked once a draw.
  torch::manual_seed(3);
  const auto sampled = estimate_fisher(net, x, forward, retain::sampled_actions{.per_state = 400});
  CHECK(support::relative_error(sampled.values[0].tensor, exact.values[0].tensor) < 0.1);
}

TEST_CASE("fisher: the report says how many samples cost a whole batch each", "[fisher]") {
  const support::temporary_folder folder;
  torch::manual_seed(25);
  struct gated : torch::nn::Module {
    torch::nn::Linear layer{register_module("layer", torch::nn::Linear(4, 3))};
    at::Tensor gain{register_parameter("gain", torch::randn({3}))};
    at::Tensor forward(const at::Tensor& x) { return layer(x) * gain; }
  } net;
  const auto x = torch::randn({9, 4});
  const auto sliced = estimate_fisher(net, x, [&](const at::Tensor& o) { return net.forward(o); });
  const auto whole = estimate_fisher(net, opaque_batch{x}, [&](const opaque_batch& b) { return net.forward(b.observations); });
  CHECK(sliced.unsliced == 0);
  CHECK(whole.unsliced == 9);
  CHECK(support::relative_error(whole.values[0].tensor, sliced.values[0].tensor) < 1e-6);
  CHECK_THAT(whole.report(), ContainsSubstring("9 samples") && ContainsSubstring("narrow"));
  CHECK_THAT(sliced.report(), !ContainsSubstring("narrow"));

  retain::save(folder.file("f"), whole);
  retain::fisher loaded;
  retain::load(folder.file("f"), loaded);
  CHECK(loaded.unsliced == 9);
  retain::state without;  // as it was saved before it was counted
  without.set("states", 2);
  without.set("actions", "sampled");
  without.write(folder.file("old"));
  retain::load(folder.file("old"), loaded);
  CHECK(loaded.unsliced == 0);
  CHECK(loaded.states == 2);
}

TEST_CASE("fisher: where cuDNN refuses a recurrent layer in eval mode, the error says what to do", "[fisher]") {
  torch::nn::Linear net(4, 3);
  const auto forward = [&](const at::Tensor& o) { return refuses::apply(net->forward(o)); };
  CHECK_THROWS_AS(estimate_fisher(net, torch::randn({5, 4}), forward), retain::config_error);
  CHECK_THROWS_WITH(estimate_fisher(net, torch::randn({5, 4}), forward), ContainsSubstring("setUserEnabledCuDNN(false)"));
}

TEST_CASE("fisher: a TorchScript policy", "[fisher]") {
  torch::manual_seed(16);
  torch::jit::Module module("policy");
  module.register_parameter("w", torch::randn({3, 4}).requires_grad_(), false);
  module.register_parameter("b", torch::randn({3}).requires_grad_(), false);
  module.define("def forward(self, x):\n  return torch.addmm(self.b, x, self.w.t())\n");
  const auto x = torch::randn({10, 4});
  const auto f = estimate_fisher(module, x, [&](const at::Tensor& o) { return module.forward({o}).toTensor(); }, retain::exact_actions{});
  const auto logits = module.forward({x}).toTensor().detach();
  const auto pi = logits.softmax(-1);
  CHECK(support::relative_error(f.values[0].tensor, (pi * (1 - pi)).t().mm(x.square()) / 10.0) < 1e-5);
}

TEST_CASE("fisher: what has no per-sample gradient, no gradient or no data is refused", "[fisher]") {
  torch::nn::Sequential net(torch::nn::Linear(4, 5), torch::nn::BatchNorm1d(5), torch::nn::Linear(5, 3));
  const auto x = torch::randn({8, 4});
  const auto forward = [&](const at::Tensor& o) { return net->forward(o); };
  CHECK_THROWS_WITH(estimate_fisher(net, x, forward), ContainsSubstring("eval()"));
  net->eval();
  CHECK_NOTHROW(estimate_fisher(net, x, forward));

  const auto without_graph = [&](const at::Tensor& o) {
    const at::NoGradGuard no_grad;
    return net->forward(o);
  };
  CHECK_THROWS_AS(estimate_fisher(net, x, without_graph), retain::config_error);
  CHECK_THROWS_WITH(estimate_fisher(net, std::vector<at::Tensor>{}, forward), ContainsSubstring("no valid state"));
  CHECK_THROWS_AS(estimate_fisher(net, x, forward, retain::sampled_actions{.per_state = 0}), retain::config_error);
  CHECK_THROWS_WITH(estimate_fisher(net, torch::full({2, 4}, std::nan("")), forward), ContainsSubstring("not finite"));
  torch::nn::Linear other(4, 3);
  CHECK_THROWS_WITH(estimate_fisher(other, x, forward), ContainsSubstring("another copy"));
  const std::vector<at::Tensor> computed{torch::randn({3, 4}).requires_grad_() * 2};
  CHECK_THROWS_WITH(estimate_fisher(computed, x, [&](const at::Tensor& o) { return o.mm(computed[0].t()); }), ContainsSubstring("leaves"));
  const auto wrong_mask = [&](const at::Tensor& o) { return retain::masked{categorical{net->forward(o)}, torch::ones({3})}; };
  CHECK_THROWS_AS(estimate_fisher(net, x, wrong_mask), retain::shape_error);
  const retain::dataset_actions too_few{[](const at::Tensor&) { return torch::zeros({2}, at::kLong); }};
  CHECK_THROWS_AS(estimate_fisher(net, x, forward, too_few), retain::shape_error);
  for (auto& p : net->parameters()) p.requires_grad_(false);
  CHECK_THROWS_AS(estimate_fisher(net, x, forward), retain::config_error);
}

TEST_CASE("fisher: padding may hold what is neither an observation's logit nor an action", "[fisher]") {
  torch::manual_seed(21);
  torch::nn::Linear net(4, 3);
  const auto x = torch::randn({5, 6, 4});
  auto mask = torch::ones({5, 6});
  mask.narrow(0, 3, 2).narrow(1, 2, 4).zero_();
  auto actions = torch::randint(3, {5, 6});
  const auto kept_actions = actions.reshape({30}).index({mask.reshape({30}).to(at::kBool)});
  const auto kept = x.reshape({30, 4}).index({mask.reshape({30}).to(at::kBool)});
  actions.masked_fill_(mask == 0, -1);
  const auto dirty = x.masked_fill((mask == 0).unsqueeze(-1), 1e30);
  const auto forward = [&](const opaque_batch& b) { return retain::masked{categorical{net->forward(b.observations)}, mask}; };
  const auto f = estimate_fisher(net, opaque_batch{dirty}, forward, retain::dataset_actions{[&](const auto&) { return actions; }});
  CHECK(f.states == 22);
  // Sequences sum their scores before squaring: the same by hand.
  auto expected = torch::zeros({3});
  for (std::int64_t n = 0; n < 6; ++n) {
    auto score = torch::zeros({3});
    for (std::int64_t t = 0; t < 5; ++t) {
      if (mask[t][n].item<float>() == 0) continue;
      score += torch::one_hot(actions[t][n], 3) - net->forward(x[t][n]).softmax(-1).detach();
    }
    expected += score.square() / 22;
  }
  CHECK(support::relative_error(f.values[1].tensor, expected) < 1e-5);
}

TEST_CASE("fisher: dataset actions are the batch's own by default, and a Fisher can be saved", "[fisher]") {
  const support::temporary_folder folder;
  torch::manual_seed(17);
  torch::nn::Linear net(4, 3);
  const std::vector<batch_with_actions> data{{torch::randn({6, 4}), torch::randint(3, {6})}};
  int calls = 0;
  const auto f = estimate_fisher(net, data, [&](const auto& b) { return categorical{net->forward(b.observations)}; },
                                 retain::dataset_actions{}, {.progress = [&](std::int64_t states) { calls += states == 6; }});
  CHECK(calls == 1);
  const auto pi = net->forward(data[0].observations).softmax(-1).detach();
  const auto score = torch::one_hot(data[0].actions, 3) - pi;
  CHECK(support::relative_error(f.values[1].tensor, score.square().mean(0)) < 1e-5);
  retain::save(folder.file("f"), f);
  retain::fisher loaded;
  retain::load(folder.file("f"), loaded);
  CHECK(loaded.states == 6);
  CHECK((loaded.paths == f.paths));
  REQUIRE(loaded.values.size() == f.values.size());
  for (const auto& entry : loaded.values)
    for (const auto& original : f.values)
      if (entry.name == original.name) CHECK(entry.tensor.equal(original.tensor));
}
