// SPDX-License-Identifier: MIT
#include <retain/fisher.hpp>

#include "importance/fisher_loop.hpp"

namespace fisher_layers_test {

using retain::categorical;
using retain::estimate_fisher;
using retain::fisher_path;
using support::check;
using support::opaque_batch;
using support::per_sample_loop;

namespace {

/// Two choices at once, with rows of the exact Fisher of its own: the first choice's, then the
/// second's.
struct pair {
  categorical one, two;
  at::Tensor log_prob(const at::Tensor& a) const {
    return one.log_prob(a.select(-1, 0)) + two.log_prob(a.select(-1, 1));
  }
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

}  // namespace

TEST_CASE("fisher: an MLP against the per-sample loop", "[fisher]") {
  torch::manual_seed(2);
  torch::nn::Sequential net(torch::nn::Linear(7, 9), torch::nn::ReLU(), torch::nn::Linear(9, 8),
                            torch::nn::Tanh(),
                            torch::nn::Linear(torch::nn::LinearOptions(8, 4).bias(false)));
  check(net, torch::randn({23, 7}), 4,
        [&](const at::Tensor& x) { return categorical{net->forward(x)}; }, {});
}

TEST_CASE("fisher: convolutions, strided, padded, dilated, grouped and one-dimensional",
          "[fisher]") {
  torch::manual_seed(3);
  using namespace torch::nn;
  Sequential net(Conv2d(Conv2dOptions(4, 6, 3).stride(2).padding(1)), ReLU(),
                 Conv2d(Conv2dOptions(6, 6, 3).groups(3).dilation(2).padding(2)), ReLU(), Flatten(),
                 Linear(6 * 5 * 4, 3));
  check(net, torch::randn({11, 4, 10, 8}), 3,
        [&](const at::Tensor& x) { return categorical{net->forward(x)}; }, {});
  Sequential line(Conv1d(Conv1dOptions(3, 5, 4).stride(2)), ReLU(), Flatten(), Linear(5 * 6, 3));
  check(line, torch::randn({9, 3, 14}), 3,
        [&](const at::Tensor& x) { return categorical{line->forward(x)}; }, {});
}

TEST_CASE("fisher: the patches that a convolution reads are im2col's", "[fisher]") {
  using ints = std::vector<std::int64_t>;
  const auto [kernel, dilation, padding, stride] =
      GENERATE(std::array<ints, 4>{ints{3, 3}, ints{1, 1}, ints{0, 0}, ints{1, 1}},
               std::array<ints, 4>{ints{8, 8}, ints{1, 1}, ints{0, 0}, ints{4, 4}},
               std::array<ints, 4>{ints{2, 3}, ints{2, 1}, ints{1, 2}, ints{3, 2}},
               std::array<ints, 4>{ints{1, 5}, ints{1, 3}, ints{0, 4}, ints{1, 1}});
  // strided as channels-last images are
  const auto images = torch::randn({3, 12, 17, 2}).permute({0, 3, 1, 2});
  CHECK(at::equal(retain::detail::patches_of(images, kernel, dilation, padding, stride),
                  at::im2col(images, kernel, dilation, padding, stride)));
}

TEST_CASE("fisher: LSTM and GRU over time, squares of sums and not sums of squares", "[fisher]") {
  torch::manual_seed(4);
  // later LibTorch fuses the layer into one node otherwise
  at::globalContext().setUserEnabledMkldnn(false);
  struct recurrent : torch::nn::Module {
    torch::nn::LSTM lstm{
        register_module("lstm", torch::nn::LSTM(torch::nn::LSTMOptions(5, 6).num_layers(2)))};
    torch::nn::GRU gru{register_module("gru", torch::nn::GRU(6, 4))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(4, 3))};
    at::Tensor forward(const at::Tensor& x) { return head(std::get<0>(gru(std::get<0>(lstm(x))))); }
  } net;
  check(
      net, torch::randn({6, 10, 5}), 3,
      [&](const at::Tensor& x) { return categorical{net.forward(x)}; }, {}, 5e-6, true);
  at::globalContext().setUserEnabledMkldnn(true);
}

TEST_CASE("fisher: layers so large that they are taken a tile at a time", "[fisher]") {
  torch::manual_seed(14);
  torch::nn::Sequential net(torch::nn::Linear(60, 700), torch::nn::Tanh(),
                            torch::nn::Linear(700, 3));
  check(
      net, torch::randn({3, 5, 60}), 3,
      [&](const at::Tensor& x) { return categorical{net->forward(x)}; }, {}, 5e-6, true);
  // More columns than a tile has room for: a row at a time.
  torch::nn::Sequential wide(torch::nn::Linear(40000, 2));
  check(
      wide, torch::randn({2, 3, 40000}) / 200, 2,
      [&](const at::Tensor& x) { return categorical{wide->forward(x)}; }, {}, 5e-6, true);
  torch::nn::Sequential picture(torch::nn::Conv2d(torch::nn::Conv2dOptions(8, 70, 5).groups(2)),
                                torch::nn::ReLU(),
                                torch::nn::Conv2d(torch::nn::Conv2dOptions(70, 64, 3)),
                                torch::nn::Flatten(), torch::nn::Linear(64 * 4, 3));
  check(
      picture, torch::randn({4, 8, 8, 8}), 3,
      [&](const at::Tensor& x) { return categorical{picture->forward(x)}; }, {}, 5e-6);
}

TEST_CASE("fisher: embeddings, bags and layer normalization", "[fisher]") {
  torch::manual_seed(5);
  struct reader : torch::nn::Module {
    torch::nn::Embedding tokens{register_module(
        "tokens", torch::nn::Embedding(torch::nn::EmbeddingOptions(9, 4).padding_idx(0)))};
    torch::nn::EmbeddingBag bag{register_module(
        "bag", torch::nn::EmbeddingBag(torch::nn::EmbeddingBagOptions(9, 6).mode(torch::kSum)))};
    torch::nn::Linear mix{register_module("mix", torch::nn::Linear(20, 6))};
    torch::nn::LayerNorm norm{
        register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({6})))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(6, 3))};
    at::Tensor forward(const at::Tensor& x) {
      const auto offsets = torch::arange(0, x.numel(), x.size(1));
      return head(torch::relu(norm(mix(tokens(x).flatten(1)) + bag(x.reshape({-1}), offsets))));
    }
  } net;
  // Five tokens a sample out of nine: repeated ones and the padding row occur.
  check(net, torch::randint(9, {17, 5}), 3,
        [&](const at::Tensor& x) { return categorical{net.forward(x)}; }, {});
}

TEST_CASE("fisher: a weight tied between two layers, alike and unlike", "[fisher]") {
  torch::manual_seed(6);
  struct tied : torch::nn::Module {
    torch::nn::Linear in{register_module("in", torch::nn::Linear(5, 5))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(5, 3))};
    at::Tensor forward(const at::Tensor& x) { return head(torch::tanh(in(torch::tanh(in(x))))); }
  } twice;
  check(twice, torch::randn({12, 5}), 3,
        [&](const at::Tensor& x) { return categorical{twice.forward(x)}; }, {});

  struct language : torch::nn::Module {
    torch::nn::Embedding tokens{register_module("tokens", torch::nn::Embedding(6, 4))};
    at::Tensor forward(const at::Tensor& x) {
      return torch::tanh(tokens(x)).mm(tokens->weight.t());
    }
  } shared;
  check(shared, torch::randint(6, {15}), 6,
        [&](const at::Tensor& x) { return categorical{shared.forward(x)}; },
        {{"tokens.weight", fisher_path::per_sample}});
}

TEST_CASE("fisher: parameters outside the walk's reach are computed one sample at a time",
          "[fisher]") {
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
  check(net, torch::randn({13, 5}), 3,
        [&](const at::Tensor& x) { return categorical{net.forward(x)}; },
        {{"gain", fisher_path::per_sample},
         {"norm.weight", fisher_path::per_sample},
         {"norm.bias", fisher_path::per_sample},
         {"head.weight", fisher_path::per_sample}});
}

TEST_CASE("fisher: several rows a sample, in either order", "[fisher]") {
  torch::manual_seed(8);
  torch::nn::Sequential net(torch::nn::Linear(4, 6), torch::nn::ReLU(), torch::nn::Linear(6, 3));
  // A set of five things a sample, each through the same layers: rows are sample by sample ...
  check(
      net, torch::randn({14, 5, 4}), 3,
      [&](const at::Tensor& x) { return categorical{net->forward(x).sum(1)}; }, {}, 5e-6);
  // ... or, in a sequence [T, N], step by step.
  check(
      net, torch::randn({5, 14, 4}), 3,
      [&](const at::Tensor& x) { return categorical{net->forward(x)}; }, {}, 5e-6, true);
}

TEST_CASE("fisher: rows that a policy reorders do not fit the walk, and it notices", "[fisher]") {
  torch::manual_seed(9);
  torch::nn::Sequential net(torch::nn::Linear(4, 6), torch::nn::ReLU(), torch::nn::Linear(6, 3));
  const auto x = torch::randn({5, 8, 4});
  const auto actions = torch::randint(3, {5, 8});
  // Rows are neither sample by sample nor step by step: a shuffled flattening, undone behind the
  // layers.
  const auto shuffle = torch::randperm(40), back = shuffle.argsort();
  const auto forward = [&](const opaque_batch& b) {
    return categorical{net->forward(b.observations.reshape({40, 4}).index_select(0, shuffle))
                           .index_select(0, back)
                           .reshape({5, 8, 3})};
  };
  const auto plain = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto truth = per_sample_loop(net, x, actions, plain, 1);
  const auto f = estimate_fisher(net, opaque_batch{x}, forward,
                                 retain::dataset_actions{[&](const auto&) { return actions; }});
  for (std::size_t i = 0; i < truth.size(); ++i) {
    CHECK(support::relative_error(f.values[i].tensor, truth[i]) < 5e-6);
    CHECK((f.paths.at(f.values[i].name) == fisher_path::per_sample));
  }
}

TEST_CASE("fisher: one offset for all logits, broadcast along the actions", "[fisher]") {
  torch::manual_seed(20);
  struct shifted : torch::nn::Module {
    torch::nn::Linear in{register_module("in", torch::nn::Linear(4, 6))};
    at::Tensor offset{register_parameter("offset", torch::randn({1}))};
    torch::nn::Linear head{register_module("head", torch::nn::Linear(6, 3))};
    at::Tensor forward(const at::Tensor& x) { return head(torch::tanh(in(x) + offset)); }
  } net;
  check(net, torch::randn({9, 4}), 3,
        [&](const at::Tensor& x) { return categorical{net.forward(x)}; },
        {{"offset", fisher_path::per_sample}});
}

TEST_CASE("fisher: heads that some passes leave out stay with the walk", "[fisher]") {
  torch::manual_seed(23);
  struct heads : torch::nn::Module {
    torch::nn::Linear first{register_module("first", torch::nn::Linear(4, 2))};
    torch::nn::Linear second{register_module("second", torch::nn::Linear(4, 2))};
  } net;
  const auto x = torch::randn({12, 4});
  const auto f = estimate_fisher(
      net, x,
      [&](const at::Tensor& o) {
        return pair{categorical{net.first(o)}, categorical{net.second(o)}};
      },
      retain::exact_actions{});
  INFO(f.report());
  for (const std::size_t i : {0u, 2u}) {
    const auto pi = (i == 0 ? net.first : net.second)(x).softmax(-1).detach();
    CHECK(support::relative_error(f.values[i].tensor, (pi * (1 - pi)).t().mm(x.square()) / 12.0) <
          1e-5);
    CHECK((f.paths.at(f.values[i].name) == fisher_path::batched));
  }
}

TEST_CASE("fisher: a sample whose gradient says nothing leaves the check to the next", "[fisher]") {
  torch::manual_seed(15);
  // The least likely action, and so the first to be looked at, is the first sample's, whose inputs
  // are 0: its gradient is the bias's alone.
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
  const auto f = estimate_fisher(
      net, x, forward, retain::dataset_actions{[&](const at::Tensor&) { return actions; }});
  for (std::size_t i = 0; i < truth.size(); ++i) {
    CHECK(support::relative_error(f.values[i].tensor, truth[i]) < 2e-6);
    CHECK((f.paths.at(f.values[i].name) == fisher_path::batched));
  }
}

TEST_CASE("fisher: a hook of the user's on what a layer computes counts as it does in a plain "
          "backward pass",
          "[fisher]") {
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

}  // namespace fisher_layers_test
