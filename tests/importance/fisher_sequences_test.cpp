// SPDX-License-Identifier: MIT
#include <retain/fisher.hpp>

#include "importance/fisher_loop.hpp"

namespace fisher_sequences_test {

using retain::categorical;
using retain::estimate_fisher;
using retain::fisher_path;
using support::opaque_batch;

TEST_CASE("fisher: sequences in batches of any number and length, several draws a state",
          "[fisher]") {
  torch::manual_seed(18);
  torch::nn::Sequential net(torch::nn::Linear(4, 6), torch::nn::ReLU(), torch::nn::Linear(6, 3));
  net->to(at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto x = torch::randn({5, 8, 4}, at::kDouble);
  const retain::sampled_actions twice{.per_state = 2, .seed = 4};
  const auto whole = estimate_fisher(net, x, forward, twice);
  // A first batch of one sequence, or of one step, must not decide for the others how their rows
  // lie.
  const std::vector<std::vector<at::Tensor>> divisions{{x.narrow(1, 0, 1), x.narrow(1, 1, 7)},
                                                       {x.narrow(1, 0, 3), x.narrow(1, 3, 5)}};
  for (const auto& division : divisions) {
    const auto parts = estimate_fisher(net, division, forward, twice);
    for (std::size_t i = 0; i < whole.values.size(); ++i)
      CHECK(support::relative_error(parts.values[i].tensor, whole.values[i].tensor) < 1e-12);
    CHECK((parts.paths.at("0.weight") == fisher_path::batched));
  }
  const std::vector<at::Tensor> lengths{torch::randn({1, 7, 4}, at::kDouble), x};
  const auto walked = estimate_fisher(net, lengths, forward, twice),
             looped = estimate_fisher(net, lengths, forward, twice, {.batched = false});
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
  // samples lie along dimension 1, log-probabilities are [6]
  const auto x = torch::randn({8, 6, 3});
  const auto actions = torch::randint(4, {6});
  std::vector<at::Tensor> truth;
  for (const auto& [name, p] : retain::parameters(net)) truth.push_back(torch::zeros_like(p));
  for (std::int64_t n = 0; n < 6; ++n) {
    net.zero_grad();
    categorical{net.forward(x.narrow(1, n, 1))}.log_prob(actions.narrow(0, n, 1)).sum().backward();
    for (std::size_t i = 0; i < truth.size(); ++i)
      truth[i] += net.parameters()[i].grad().square() / 6;
  }
  for (const bool walk : {true, false}) {
    const auto f = estimate_fisher(
        net, x, [&](const at::Tensor& o) { return categorical{net.forward(o)}; },
        retain::dataset_actions{[&](const at::Tensor&) { return actions; }}, {.batched = walk});
    for (std::size_t i = 0; i < truth.size(); ++i)
      CHECK(support::relative_error(f.values[i].tensor, truth[i]) < 1e-5);
  }
  at::globalContext().setUserEnabledMkldnn(true);
}

TEST_CASE("fisher: masked steps of sequences do not count", "[fisher]") {
  torch::manual_seed(13);
  torch::nn::Linear net(4, 3);
  const auto x = torch::randn({5, 6, 4});
  auto mask = torch::ones({5, 6});
  mask.narrow(0, 3, 2).narrow(1, 2, 4).zero_();
  const auto masked_forward = [&](const opaque_batch& b) {
    return retain::masked{categorical{net->forward(b.observations)}, mask};
  };
  const auto f = estimate_fisher(net, opaque_batch{x}, masked_forward, retain::exact_actions{});
  CHECK(f.states == 22);
  // The same through a tensor, which is sliced: the mask that forward holds stays the whole
  // batch's.
  const auto closed = estimate_fisher(
      net, x,
      [&](const at::Tensor& o) { return retain::masked{categorical{net->forward(o)}, mask}; },
      retain::exact_actions{});
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(support::relative_error(closed.values[i].tensor, f.values[i].tensor) < 1e-5);
  // Exact scores of different steps do not mix, so the valid steps may as well be single states.
  const auto kept = x.reshape({30, 4}).index({mask.reshape({30}).to(at::kBool)});
  const auto flat = estimate_fisher(
      net, kept, [&](const at::Tensor& o) { return net->forward(o); }, retain::exact_actions{});
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(support::relative_error(f.values[i].tensor, flat.values[i].tensor) < 1e-5);
}

TEST_CASE("fisher: sampled scores of a sequence agree with exact ones within their error",
          "[fisher]") {
  torch::manual_seed(14);
  torch::nn::Linear net(3, 3);
  net->to(at::kDouble);
  const auto x = torch::randn({4, 5, 3}, at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto exact = estimate_fisher(net, x, forward, retain::exact_actions{});
  std::vector<at::Tensor> draws;
  for (std::uint64_t seed = 0; seed < 300; ++seed)
    draws.push_back(
        estimate_fisher(net, x, forward, retain::sampled_actions{.seed = seed}).values[0].tensor);
  const auto all = torch::stack(draws);
  const auto error = all.std(0) / std::sqrt(300.0);
  CHECK(((all.mean(0) - exact.values[0].tensor).abs() < 4.5 * error).all().item<bool>());
}

TEST_CASE("fisher: padding may hold what is neither an observation's logit nor an action",
          "[fisher]") {
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
  const auto forward = [&](const opaque_batch& b) {
    return retain::masked{categorical{net->forward(b.observations)}, mask};
  };
  const auto f = estimate_fisher(net, opaque_batch{dirty}, forward,
                                 retain::dataset_actions{[&](const auto&) { return actions; }});
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

}  // namespace fisher_sequences_test
