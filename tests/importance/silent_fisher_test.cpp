// SPDX-License-Identifier: MIT
// Estimates that compute but say nothing, or something else than was meant, are refused; and what a
// Fisher says of itself.
#include <retain/diagonal_gaussian.hpp>
#include <retain/ewc.hpp>
#include <retain/kfac_ewc.hpp>
#include <retain/masked_categorical.hpp>
#include <retain/memory_aware_synapses.hpp>
#include <retain/multi_discrete.hpp>

#include <cmath>
#include <limits>

#include "support.hpp"

namespace silent_fisher_test {

using retain::categorical;
using retain::estimate_fisher;
using retain::estimate_kfac;
using retain::estimate_sensitivity;
using retain::detail::look_like_probabilities;

namespace {

struct heads : torch::nn::Module {
  torch::nn::Linear body{register_module("body", torch::nn::Linear(4, 5))};
  torch::nn::Linear policy_head{register_module("policy_head", torch::nn::Linear(5, 3))};
  torch::nn::Linear value_head{register_module("value_head", torch::nn::Linear(5, 1))};
  at::Tensor forward(const at::Tensor& x) { return policy_head(torch::tanh(body(x))); }
};

at::Tensor rows(std::initializer_list<double> values, std::int64_t actions) {
  return torch::tensor(std::vector<double>(values), at::kDouble).reshape({-1, actions});
}

}  // namespace

TEST_CASE("probabilities: what a softmax computes is seen, in every type", "[probabilities]") {
  torch::manual_seed(1);
  for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16})
    for (const std::int64_t actions : {2, 18, 121}) {
      const auto z = torch::randn({16, actions}) * 3;
      INFO(actions << " actions, " << type);
      CHECK(look_like_probabilities(z.to(type).softmax(-1)));
      CHECK(!look_like_probabilities(z.to(type)));
      CHECK(!look_like_probabilities(z.to(type).log_softmax(-1)));
      CHECK(!look_like_probabilities(z.to(type).abs()));
      CHECK(!look_like_probabilities(z.to(type).sigmoid()));
    }
  CHECK(look_like_probabilities(torch::randn({3, 5, 4}).softmax(-1)));
  CHECK(look_like_probabilities(torch::randn({1, 2}).softmax(-1)));  // a single row
}

TEST_CASE("probabilities: logits that could be meant are left alone", "[probabilities]") {
  CHECK(!look_like_probabilities(torch::zeros({4, 3})));
  CHECK(!look_like_probabilities(torch::full({4, 4}, 0.25)));
  CHECK(!look_like_probabilities(torch::eye(3)));
  CHECK(!look_like_probabilities(rows({0.5, 0.5, 0.0, 1.0, 0.0, 0.0}, 3)));
  CHECK(!look_like_probabilities(torch::ones({5, 1})));
  CHECK(!look_like_probabilities(torch::zeros({0, 3})));
  CHECK(!look_like_probabilities(rows({0.2, 0.8, 0.3, 0.8}, 2)));   // one row has another sum
  CHECK(!look_like_probabilities(rows({0.2, 0.8, -0.5, 1.5}, 2)));  // or a negative value
  CHECK(!look_like_probabilities(rows({0.2, 0.8, 0.3, std::nan("")}, 2)));
  CHECK(!look_like_probabilities(torch::tensor({0, 1, 1, 0}).reshape({2, 2})));  // integers
  // A policy that is one from the start: logits are normal numbers, here of 100 000 batches of 16.
  torch::manual_seed(2);
  const auto z = torch::randn({100000, 16, 2}, at::kDouble);
  const auto chance = z.ge(0).all(-1).logical_and((z.sum(-1) - 1).abs() < 1e-5);
  CHECK(chance.to(at::kDouble).mean().item<double>() < 1e-5);
  CHECK(!chance.all(1).any().item<bool>());
}

TEST_CASE("probabilities: padding does not count, and a forbidden action has probability 0",
          "[probabilities]") {
  auto p = rows({0.2, 0.8, 0.4, 0.6, 7.0, 9.0}, 2);
  CHECK(!look_like_probabilities(p));
  CHECK(look_like_probabilities(p, torch::tensor({1, 1, 0})));
  CHECK(!look_like_probabilities(p, torch::zeros({3})));
  p = rows({0.2, 0.8, 0.0, 0.5, 0.3, 0.2}, 3);
  const auto legal = torch::tensor({1, 1, 0, 1, 1, 1}).reshape({2, 3});
  const auto refuse = [](const auto& d) { retain::detail::refuse_probabilities("own", d); };
  CHECK_THROWS_AS(refuse(retain::masked_categorical(p, legal)), retain::config_error);
  CHECK_THROWS_AS(refuse(retain::masked{categorical{p}, torch::ones({2})}), retain::config_error);
  CHECK_THROWS_WITH(
      refuse(retain::multi_discrete{torch::cat({torch::randn({2, 4}, at::kDouble), p}, 1), {4, 3}}),
      ContainsSubstring("own: the logits look like probabilities") &&
          ContainsSubstring("categorical::from_probs(probabilities)") &&
          ContainsSubstring("log_softmax(-1)"));
  CHECK_NOTHROW(refuse(categorical::from_probs(p)));
  CHECK_NOTHROW(refuse(retain::diagonal_gaussian{p, torch::zeros({3}, at::kDouble)}));
}

TEST_CASE("fisher: probabilities given as logits are refused, from_probs gives the right Fisher",
          "[fisher][probabilities]") {
  torch::manual_seed(3);
  heads net;
  net.to(at::kDouble);
  const auto x = torch::randn({40, 4}, at::kDouble);
  const auto softmax = [&](const at::Tensor& o) { return net.forward(o).softmax(-1); };
  const auto as_logits = [&](const at::Tensor& o) { return categorical{softmax(o)}; };
  CHECK_THROWS_AS(estimate_fisher(net, x, softmax), retain::config_error);
  CHECK_THROWS_WITH(estimate_fisher(net, x.split(1), as_logits),
                    ContainsSubstring("estimate_fisher: the logits look like probabilities"));
  const retain::kfac_options layers{.exclude = {"value_head"}};
  CHECK_THROWS_WITH(estimate_kfac(net, x, softmax, {}, layers),
                    ContainsSubstring("estimate_kfac: the logits look like probabilities"));
  CHECK_THROWS_WITH(estimate_sensitivity(net, x, as_logits),
                    ContainsSubstring("estimate_sensitivity: the logits look like probabilities"));
  // Outputs that are no distribution may be probabilities.
  CHECK_NOTHROW(estimate_sensitivity(net, x, softmax));

  const auto plain = [&](const at::Tensor& o) { return net.forward(o); };
  const auto from = [&](const at::Tensor& o) { return categorical::from_probs(softmax(o)); };
  for (const bool walk : {true, false}) {
    const auto f = estimate_fisher(net, x, from, retain::exact_actions{}, {.batched = walk});
    const auto truth = estimate_fisher(net, x, plain, retain::exact_actions{});
    for (std::size_t i = 0; i < truth.values.size(); ++i)
      CHECK(support::relative_error(f.values[i].tensor, truth.values[i].tensor) < 1e-10);
  }
  const auto k = estimate_kfac(net, x, from, retain::exact_actions{}, layers),
             k_truth = estimate_kfac(net, x, plain, retain::exact_actions{}, layers);
  for (std::size_t l = 0; l < 2; ++l)
    CHECK(support::relative_error(k.layers[l].outputs, k_truth.layers[l].outputs) < 1e-10);
}

TEST_CASE("fisher: a policy of one action has nothing to keep", "[fisher]") {
  torch::manual_seed(4);
  torch::nn::Linear net(4, 2);
  const auto x = torch::randn({6, 4});
  const auto single = [&](const at::Tensor& o) { return net->forward(o).narrow(1, 0, 1); };
  CHECK_NOTHROW(categorical{single(x)}.entropy());
  CHECK_THROWS_AS(estimate_fisher(net, x, single), retain::config_error);
  CHECK_THROWS_WITH(estimate_fisher(net, x, single, retain::exact_actions{}),
                    ContainsSubstring("a single action") && ContainsSubstring("not a value"));
  CHECK_THROWS_WITH(estimate_kfac(net, x, single), ContainsSubstring("a single action"));
  const auto parts = [&](std::vector<std::int64_t> sizes) {
    return [&net, sizes](const at::Tensor& o) {
      return retain::multi_discrete{net->forward(o), sizes};
    };
  };
  CHECK_THROWS_WITH(estimate_fisher(net, x, parts({1, 1})), ContainsSubstring("a single action"));
  CHECK_NOTHROW(estimate_fisher(net, x, parts({2})));
  torch::nn::Linear three(4, 3);
  CHECK_NOTHROW(estimate_fisher(three, x, [&](const at::Tensor& o) {
    return retain::multi_discrete{three->forward(o), {1, 2}};  // one part with a choice is enough
  }));
}

TEST_CASE("fisher: an estimate that is 0 everywhere is refused, in the penalties too", "[fisher]") {
  torch::manual_seed(5);
  torch::nn::Linear net(4, 3);
  const auto x = torch::randn({6, 4});
  // So saturated that every probability is 0 or 1.
  const auto saturated = [&](const at::Tensor& o) {
    return net->forward(o) + torch::tensor({1e4f, 0.0f, 0.0f});
  };
  CHECK_THROWS_AS(estimate_fisher(net, x, saturated), retain::state_error);
  CHECK_THROWS_WITH(estimate_fisher(net, x, saturated, retain::exact_actions{}),
                    ContainsSubstring("every importance is 0") && ContainsSubstring("saturated") &&
                        ContainsSubstring("detaches"));
  CHECK_THROWS_WITH(estimate_kfac(net, x, saturated, retain::exact_actions{}),
                    ContainsSubstring("estimate_kfac: every importance is 0"));
  CHECK_THROWS_WITH(
      estimate_sensitivity(net, x, [&](const at::Tensor& o) { return net->forward(o) * 0; }),
      ContainsSubstring("estimate_sensitivity: every importance is 0"));
  // The actions of a deterministic actor as those of the data: every score is 0 there.
  const auto actor = [&](const at::Tensor& o) {
    return retain::diagonal_gaussian::around(net->forward(o), 0.1);
  };
  CHECK_THROWS_WITH(
      estimate_fisher(net, x, actor, retain::dataset_actions{[&](const at::Tensor& o) {
                        return net->forward(o).detach();
                      }}),
      ContainsSubstring("every importance is 0"));

  const retain::parameter_list none{{"weight", torch::zeros({3, 4})}, {"bias", torch::zeros({3})}};
  CHECK_THROWS_AS((retain::ewc{net, none}), retain::state_error);
  CHECK_THROWS_WITH((retain::memory_aware_synapses{net, none}),
                    ContainsSubstring("memory_aware_synapses: every importance is 0"));
  CHECK_NOTHROW(retain::ewc{net, none, {.floor = 1e-5}});
  auto some = none;
  some[1].tensor = torch::tensor({0.0f, 0.0f, 1e-30f});
  CHECK_NOTHROW(retain::ewc{net, some});
  const std::vector<at::Tensor> empty{torch::zeros({0}).requires_grad_()};
  CHECK_NOTHROW(retain::ewc{empty, {{"0", torch::zeros({0})}}});
}

TEST_CASE("fisher: an exclude pattern that matches nothing is refused", "[fisher][patterns]") {
  heads net;
  const auto x = torch::randn({6, 4});
  const auto forward = [&](const at::Tensor& o) { return net.forward(o); };
  const auto says = [](const std::string& who) {
    return ContainsSubstring(who +
                             ": the exclude pattern 'valeu_head' matches no parameter: correct or "
                             "remove it; the nearest of the 6 names are 'value_head.weight', "
                             "'value_head.bias', ");
  };
  CHECK_THROWS_AS(estimate_fisher(net, x, forward, {}, {.exclude = {"valeu_head"}}),
                  retain::config_error);
  CHECK_THROWS_WITH(estimate_fisher(net, x, forward, {}, {.exclude = {"body", "valeu_head"}}),
                    says("estimate_fisher"));
  CHECK_THROWS_WITH(estimate_kfac(net, x, forward, {}, {.exclude = {"valeu_head"}}),
                    says("estimate_kfac"));
  CHECK_THROWS_WITH(estimate_sensitivity(net, x, forward, {.exclude = {"valeu_head"}}),
                    says("estimate_sensitivity"));
  net.value_head->weight.requires_grad_(false);  // a pattern may match what is frozen
  net.value_head->bias.requires_grad_(false);
  CHECK_NOTHROW(estimate_fisher(net, x, forward, {}, {.exclude = {"value_head"}}));
}

TEST_CASE("fisher: what an estimate leaves out, ewc and kfac_ewc leave out too", "[fisher][ewc]") {
  const support::temporary_folder folder;
  torch::manual_seed(6);
  heads net;
  const auto x = torch::randn({6, 4});
  const auto forward = [&](const at::Tensor& o) { return net.forward(o); };
  const std::vector<std::string> left_out{"value_head", "*.bias"};
  const auto f = estimate_fisher(net, x, forward, {}, {.exclude = left_out});
  const auto k = estimate_kfac(net, x, forward, {}, {.exclude = left_out});
  CHECK(f.exclude == left_out);
  CHECK(k.exclude == left_out);

  retain::save(folder.file("f"), f);
  retain::save(folder.file("k"), k);
  retain::fisher f2;
  retain::kronecker_fisher k2;
  f2.exclude = {"was here before"};
  retain::load(folder.file("f"), f2);
  retain::load(folder.file("k"), k2);
  CHECK(f2.exclude == left_out);
  CHECK(k2.exclude == left_out);

  for (const auto& estimate : {f, f2}) {
    const retain::ewc keep{net, estimate};
    CHECK(keep.covers("policy_head.weight"));
    CHECK(!keep.covers("policy_head.bias"));
    CHECK(!keep.covers("value_head.weight"));
    const retain::ewc less{net, estimate, {.strength = 2.0, .exclude = {"body"}}};
    CHECK(less.strength() == 2.0);
    CHECK(!less.covers("body.weight"));
    CHECK(!less.covers("value_head.weight"));
    CHECK(less.covers("policy_head.weight"));
  }
  for (const auto& estimate : {k, k2}) {
    const retain::kfac_ewc keep{net, estimate, {.strength = 3.0}};
    CHECK(keep.strength() == 3.0);
    CHECK(keep.covers("policy_head.weight"));
    CHECK(!keep.covers("policy_head.bias"));
    CHECK(!keep.covers("value_head.weight"));
  }
  // Of a model without the part that was left out.
  const retain::parameter_list actor{{"body.weight", net.body->weight},
                                     {"policy_head.weight", net.policy_head->weight}};
  CHECK(retain::ewc{actor, f}.covers("body.weight"));

  retain::state old;  // as version 0.1 saved it
  old.set("states", 2);
  old.set("actions", "exact");
  f2.load_state(old, "");
  k2.load_state(old, "");
  CHECK(f2.exclude.empty());
  CHECK(k2.exclude.empty());
}

TEST_CASE("fisher: the strength for a KL, where the balance has a closed form", "[fisher][ewc]") {
  torch::manual_seed(7);
  // mean = W s, one-hot states and a fixed deviation: the KL is exactly 1/2 sum F d^2, and all
  // weights have the same Fisher 1 / (4 sigma^2).
  const std::vector<at::Tensor> model{torch::randn({3, 4}, at::kDouble).requires_grad_()};
  const auto& w = model[0];
  const auto states = torch::eye(4, at::kDouble);
  const auto start = w.detach().clone();
  constexpr double sigma = 0.7;
  const auto policy = [&](const at::Tensor& s) {
    return retain::diagonal_gaussian::around(s.mm(w.t()), sigma);
  };
  const auto f = estimate_fisher(model, states, policy, retain::exact_actions{});
  CHECK(f.mean() == Approx(1 / (4 * sigma * sigma)));
  auto g = torch::randn({3, 4}, at::kDouble);
  for (const double norm : {0.5, 3.0})
    for (const double kl_wanted : {0.01, 0.3}) {
      g = g / g.norm() * norm;
      const retain::ewc keep{model, f, {.strength = f.strength_for(kl_wanted, norm)}};
      // The loss g w has its balance where the gradient of the whole is 0; the whole is quadratic,
      // so Newton's step from the anchor ends there.
      {
        const at::NoGradGuard no_grad;
        w.add_(g / (-2 * keep.strength() * f.values[0].tensor));
      }
      w.mutable_grad() = g.clone();
      keep.add_gradient(model);
      CHECK(w.grad().abs().max().item<double>() < 1e-12);
      const auto before = retain::diagonal_gaussian::around(states.mm(start.t()), sigma);
      CHECK(kl(before, policy(states)).mean().item<double>() == Approx(kl_wanted));
      const at::NoGradGuard no_grad;
      w.copy_(start);
    }

  // Of unlike weights, the mean KL over directions is G^2 / (8 c^2) mean(1 / F), which is larger.
  retain::fisher unlike;
  unlike.values = {{"w", torch::tensor({0.1, 1.0, 4.0}, at::kDouble)}};
  const double c = unlike.strength_for(0.02, 2.0);
  CHECK(c == Approx(2.0 / std::sqrt(8 * 1.7 * 0.02)));
  CHECK(4 / (8 * c * c) * (10 + 1 + 0.25) / 3 > 0.02);
}

TEST_CASE("fisher: the report names the strength, and says when no usual one holds anything",
          "[fisher]") {
  retain::fisher f;
  f.states = 4;
  f.actions = "exact";
  f.values = {{"w", torch::full({2, 2}, 0.125)}, {"unused", torch::zeros({96})}};
  f.paths["unused"] = retain::fisher_path::unused;
  CHECK(f.mean() == 0.125);  // of the weights that the policy depends on
  CHECK_THAT(f.report(), ContainsSubstring("over 4 states") &&
                             ContainsSubstring("mean over all weights 0.125: with strength 5 ") &&
                             !ContainsSubstring("hold almost nothing"));
  f.values[0].tensor = torch::full({2, 2}, 3.5e-7);  // as of a large discrete policy
  CHECK(f.strength_for(0.01) == Approx(2988).epsilon(1e-3));
  CHECK_THAT(f.report(), !ContainsSubstring("hold almost nothing"));
  f.values[0].tensor = torch::full({2, 2}, 1e-9);
  CHECK_THAT(f.report(), ContainsSubstring("strengths up to 10000 hold almost nothing") &&
                             ContainsSubstring("nearly deterministic"));
  f.values[0].tensor = torch::zeros({2, 2});
  CHECK_THAT(f.report(), ContainsSubstring("no strength of a penalty holds the policy"));
  CHECK_THROWS_AS(f.strength_for(0.01), retain::state_error);
  CHECK_THROWS_AS(retain::fisher{}.strength_for(0.01), retain::state_error);
  f.values[0].tensor = torch::ones({2, 2});
  for (const double bad : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    CHECK_THROWS_AS(f.strength_for(bad), retain::config_error);
    CHECK_THROWS_AS(f.strength_for(0.01, bad), retain::config_error);
  }
}

TEST_CASE("fisher: of a deterministic actor it is the squared gradients of its actions",
          "[fisher][gaussian]") {
  torch::manual_seed(8);
  torch::nn::Sequential actor(torch::nn::Linear(4, 6), torch::nn::Tanh(), torch::nn::Linear(6, 2),
                              torch::nn::Tanh());
  actor->to(at::kDouble);
  const auto x = torch::randn({9, 4}, at::kDouble);
  constexpr double sigma = 0.2;
  const auto policy = [&](const at::Tensor& o) {
    return retain::diagonal_gaussian::around(actor->forward(o), sigma);
  };
  // The rows of the Jacobian of every action, squared.
  const auto weights = actor->parameters();
  std::vector<at::Tensor> truth;
  for (const auto& w : weights) truth.push_back(torch::zeros_like(w));
  const auto actions = actor->forward(x).reshape({-1});
  for (std::int64_t i = 0; i < actions.numel(); ++i) {
    const auto row = torch::autograd::grad({actions[i]}, weights, {}, true);
    for (std::size_t w = 0; w < weights.size(); ++w)
      truth[w] += row[w].square() / (9 * sigma * sigma);
  }
  for (const bool walk : {true, false}) {
    const auto f = estimate_fisher(actor, x, policy, retain::exact_actions{}, {.batched = walk});
    for (std::size_t w = 0; w < weights.size(); ++w)
      CHECK(support::relative_error(f.values[w].tensor, truth[w]) < 1e-12);
  }
  const auto by_number = [&](const at::Tensor& o) {
    return retain::diagonal_gaussian{actor->forward(o),
                                     torch::full({2}, std::log(sigma), at::kDouble)};
  };
  const auto f = estimate_fisher(actor, x, by_number, retain::exact_actions{});
  CHECK(support::relative_error(f.values[0].tensor, truth[0]) < 1e-12);
  // Sampled: z^2 / sigma^2 per dimension, of variance 2 / sigma^4, and a mean over 9 x 4000 draws.
  const auto sampled =
      estimate_fisher(actor, x, policy, retain::sampled_actions{.per_state = 4000});
  CHECK(support::relative_error(sampled.values[3].tensor, truth[3]) < 0.05);
}

TEST_CASE("fisher: of a Q-network as a softmax policy", "[fisher]") {
  torch::manual_seed(9);
  torch::nn::Linear q(5, 3);
  q->to(at::kDouble);
  const auto x = torch::randn({20, 5}, at::kDouble);
  constexpr double temperature = 0.3;
  const auto f = estimate_fisher(
      q, x, [&](const at::Tensor& o) { return categorical{q->forward(o) / temperature}; },
      retain::exact_actions{});
  // d log pi(a) / d b_k = (1[a=k] - pi_k) / temperature
  const auto pi = (q->forward(x) / temperature).softmax(-1).detach();
  const auto variance = pi * (1 - pi) / (temperature * temperature);
  CHECK(support::relative_error(f.values[1].tensor, variance.mean(0)) < 1e-12);
  CHECK(support::relative_error(f.values[0].tensor, variance.t().mm(x.square()) / 20.0) < 1e-12);
}

}  // namespace silent_fisher_test
