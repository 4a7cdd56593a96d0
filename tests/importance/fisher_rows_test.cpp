// SPDX-License-Identifier: MIT
// Rows that are moved between the samples, evenly and unevenly: the walk is right or is not taken.
#include <retain/fisher.hpp>
#include <retain/kfac.hpp>

#include <string>
#include <vector>

#include "support.hpp"

namespace fisher_rows_test {

using retain::categorical;
using retain::estimate_fisher;
using retain::fisher_path;

namespace {

struct batch {  // cannot be sliced, so that the picks fit
  at::Tensor observations;
};

/// N samples of two tokens; N or 2 N of the 2 N tokens go through the layers, and come back to the
/// samples that they are of.
struct picker : torch::nn::Module {
  at::Tensor picked;
  int way = 0, back = 0;
  torch::nn::Linear body{register_module("body", torch::nn::Linear(4, 6))};
  torch::nn::LayerNorm norm{
      register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({6})))};
  torch::nn::Linear head{register_module("head", torch::nn::Linear(6, 3))};

  at::Tensor forward(const at::Tensor& x) {
    const auto tokens = x.reshape({-1, 4});
    at::Tensor rows;
    if (way == 0) rows = tokens.index_select(0, picked);
    if (way == 1) rows = tokens.gather(0, picked.unsqueeze(1).expand({-1, 4}));
    if (way == 2) {  // a token as often as it was picked
      rows = torch::repeat_interleave(tokens, torch::bincount(picked, {}, tokens.size(0)), 0);
    }
    const auto owner = (way == 2 ? std::get<0>(picked.sort()) : picked).div(2, "floor");
    const auto answers = head(torch::tanh(norm(body(rows))));
    const auto of = torch::one_hot(owner, x.size(0)).to(at::kFloat).t();  // [N, rows]
    if (back == 0) return torch::zeros({x.size(0), 3}).index_add(0, owner, answers);
    if (back == 1) return of.mm(answers);
    return (of.unsqueeze(-1) * answers.unsqueeze(0)).sum(1);
  }
};

}  // namespace

TEST_CASE("fisher: rows that are picked, unevenly or not, one batch or several", "[fisher]") {
  for (int seed = 0; seed < 60; ++seed) {
    torch::manual_seed(seed);
    picker net;
    net.way = seed % 3;
    net.back = seed / 6 % 3;
    const std::int64_t samples = 4 + seed % 9, picks = samples * (1 + seed / 3 % 2);
    // what a batch has shown must not be believed of the next
    const bool even_first = seed % 2 == 0;
    std::vector<batch> data;
    std::vector<at::Tensor> picked, actions;
    for (int b = 0; b < 2; ++b) {
      data.push_back({torch::randn({samples, 2, 4})});
      const auto even = torch::arange(picks) * 2 / (picks / samples);
      picked.push_back(b == 0 && even_first ? even.to(at::kLong)
                                            : torch::randint(2 * samples, {picks}, at::kLong));
      actions.push_back(torch::randint(3, {samples}));
    }
    std::size_t turn = 0;
    const auto forward = [&](const batch& given) {
      net.picked = picked[turn];
      return categorical{net.forward(given.observations)};
    };
    const retain::dataset_actions taken{[&](const batch&) { return actions[turn]; }};
    std::vector<at::Tensor> truth;
    for (const auto& [name, p] : retain::parameters(net))
      truth.push_back(torch::zeros_like(p, at::kDouble));
    for (turn = 0; turn < 2; ++turn) {
      const auto scores = forward(data[turn]).log_prob(actions[turn]);
      for (std::int64_t n = 0; n < samples; ++n) {
        const auto g =
            torch::autograd::grad({scores[n]}, net.parameters(), {}, /*retain_graph=*/true);
        for (std::size_t i = 0; i < g.size(); ++i)
          truth[i] += g[i].to(at::kDouble).square() / (2.0 * static_cast<double>(samples));
      }
    }
    turn = 0;
    const auto f =
        estimate_fisher(net, data, forward, taken, {.progress = [&](std::int64_t) { ++turn; }});
    INFO("seed " << seed << '\n' << f.report());
    for (std::size_t i = 0; i < truth.size(); ++i)
      CHECK(support::relative_error(f.values[i].tensor, truth[i]) < 1e-5);
  }
}

TEST_CASE("fisher: rows that are picked but stay with their samples are walked", "[fisher]") {
  for (const double size : {1.0, 1e6}) {
    torch::manual_seed(1);
    picker net;
    const auto x = torch::randn({12, 2, 4}) * size;
    net.picked = torch::arange(24);
    const auto forward = [&](const batch& b) { return categorical{net.forward(b.observations)}; };
    for (const auto& [name, path] :
         estimate_fisher(net, batch{x}, forward, retain::exact_actions{}).paths) {
      INFO(name);
      CHECK((path == fisher_path::batched));
    }
  }
  torch::nn::Linear half(4, 3);
  half->to(at::kBFloat16);
  const auto identity = torch::arange(32);
  const auto forward = [&](const batch& b) {
    return categorical{half(b.observations.index_select(0, identity)).index_select(0, identity)};
  };
  const auto f = estimate_fisher(half, batch{torch::randn({32, 4}).to(at::kBFloat16)}, forward);
  CHECK((f.paths.at("weight") == fisher_path::batched));
}

TEST_CASE("kfac: a layer that sees two rows of one state and none of another is refused",
          "[kfac]") {
  torch::manual_seed(2);
  torch::nn::Linear net(4, 3);
  auto owner = torch::arange(6);
  const auto forward = [&](const at::Tensor& x) {
    return categorical{torch::zeros({6, 3}).index_add(0, owner, net(x.index_select(0, owner)))};
  };
  const auto x = torch::randn({6, 4});
  CHECK_NOTHROW(retain::estimate_kfac(net, x, forward));
  owner = torch::tensor({0, 0, 2, 3, 4, 5});
  CHECK_THROWS_WITH(retain::estimate_kfac(net, x, forward),
                    ContainsSubstring("'weight'") && ContainsSubstring("one row per state"));
}

TEST_CASE("fisher: in ordinary networks shapes alone place the rows, and nothing is spent on "
          "following them",
          "[fisher]") {
  const auto by_shape = [](const at::Tensor& logits, const at::Tensor& actions) {
    return retain::detail::graph_walk({categorical{logits}.log_prob(actions)}, actions.size(0))
        .places_rows_by_shape();
  };
  torch::nn::Sequential mlp(torch::nn::Linear(4, 5), torch::nn::ReLU(), torch::nn::Linear(5, 3));
  const auto actions = torch::zeros({6}, at::kLong);
  CHECK(by_shape(mlp->forward(torch::randn({6, 4})), actions));
  torch::nn::Sequential cnn(torch::nn::Conv2d(torch::nn::Conv2dOptions(2, 3, 3)), torch::nn::ReLU(),
                            torch::nn::Flatten(), torch::nn::Linear(48, 3));
  CHECK(by_shape(cnn->forward(torch::randn({6, 2, 6, 6})), actions));
  at::globalContext().setUserEnabledMkldnn(false);
  torch::nn::LSTM lstm(4, 3);
  CHECK(by_shape(std::get<0>(lstm(torch::randn({2, 6, 4}))), torch::zeros({2, 6}, at::kLong)));
  at::globalContext().setUserEnabledMkldnn(true);
  const auto x = mlp->forward(torch::randn({6, 4}));
  const auto order = torch::arange(6);
  CHECK(!by_shape(x.index_select(0, order), actions));
  CHECK(!by_shape(torch::eye(6).mm(x), actions));
  CHECK(!by_shape(torch::stack(x.unbind(0)), actions));
}

TEST_CASE("fisher: each layout of rows is decided by itself, whichever batch comes first",
          "[fisher]") {
  torch::manual_seed(19);
  // Entities of each step of each sample: rows stand in the order step, sample, entity.
  struct entities : torch::nn::Module {
    torch::nn::Linear each{register_module("each", torch::nn::Linear(2, 3))},
        out{register_module("out", torch::nn::Linear(9, 4))};
    at::Tensor forward(const at::Tensor& x) {  // [T, N, 3, 2]
      const auto hidden = torch::relu(each(x.reshape({-1, 2})));
      return out(hidden.view({x.size(0) * x.size(1), 9})).view({x.size(0), x.size(1), 4});
    }
  };
  entities net;
  const auto forward = [&](const at::Tensor& x) { return categorical{net.forward(x)}; };
  const auto one_step = torch::randn({1, 4, 3, 2}), two_steps = torch::randn({2, 4, 3, 2});
  for (const auto& order : {std::vector{one_step, two_steps}, std::vector{two_steps, one_step}}) {
    at::manual_seed(3);
    const auto walked = estimate_fisher(net, order, forward, retain::exact_actions{});
    const auto looped =
        estimate_fisher(net, order, forward, retain::exact_actions{}, {.batched = false});
    for (std::size_t i = 0; i < walked.values.size(); ++i) {
      INFO(walked.values[i].name);
      CHECK(support::relative_error(walked.values[i].tensor, looped.values[i].tensor) < 1e-5);
    }
  }
}

TEST_CASE("fisher: rows that were laid side by side and chosen by the data are followed",
          "[fisher]") {
  torch::manual_seed(20);
  struct pick_batch {
    at::Tensor observations, choice;  // [2 N, 4], one-hot [N, 2, 2 N]
  };
  torch::nn::Linear net(4, 1);
  const auto one_hot = [](const at::Tensor& order) {
    return torch::one_hot(order, 8).view({4, 2, 8}).to(torch::kFloat);
  };
  const auto forward = [&](const pick_batch& batch) {
    return categorical{(batch.choice * net(batch.observations).squeeze(-1)).sum(-1)};
  };
  const std::vector<pick_batch> data{
      {torch::randn({8, 4}), one_hot(torch::arange(8))},
      {torch::randn({8, 4}), one_hot(torch::tensor({7, 2, 1, 3, 6, 5, 4, 0}))}};
  const auto walked = estimate_fisher(net, data, forward, retain::exact_actions{});
  const auto looped =
      estimate_fisher(net, data, forward, retain::exact_actions{}, {.batched = false});
  for (std::size_t i = 0; i < walked.values.size(); ++i)
    CHECK(support::relative_error(walked.values[i].tensor, looped.values[i].tensor) < 1e-5);
}

TEST_CASE("fisher: batch normalization in training mode is refused for single states too, instance "
          "normalization is not",
          "[fisher]") {
  torch::nn::Sequential batch(torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 2, 3)),
                              torch::nn::BatchNorm2d(2), torch::nn::Flatten(),
                              torch::nn::Linear(8, 3));
  torch::nn::Sequential instance(
      torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 2, 3)),
      torch::nn::InstanceNorm2d(torch::nn::InstanceNorm2dOptions(2).affine(true)),
      torch::nn::Flatten(), torch::nn::Linear(8, 3));
  const auto states = torch::randn({3, 1, 4, 4}).split(1);
  CHECK_THROWS_AS(
      estimate_fisher(*batch, states,
                      [&](const at::Tensor& x) { return categorical{batch->forward(x)}; }),
      retain::config_error);
  CHECK_NOTHROW(estimate_fisher(
      *instance, states, [&](const at::Tensor& x) { return categorical{instance->forward(x)}; }));
}

}  // namespace fisher_rows_test
