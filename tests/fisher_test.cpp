// SPDX-License-Identifier: MIT
#include <retain/fisher.hpp>

#include <torch/script.h>

#include <algorithm>
#include <limits>

#include "importance/fisher_loop.hpp"

namespace fisher_test {

using retain::categorical;
using retain::estimate_fisher;
using retain::fisher_path;
using support::opaque_batch;

namespace {

struct batch_with_actions {
  at::Tensor observations, actions;
  batch_with_actions narrow(std::int64_t start, std::int64_t length) const {
    return {observations.narrow(0, start, length), actions.narrow(0, start, length)};
  }
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
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& x) {
    return x.clone();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list&) {
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

  // Sampled: unbiased, within its Monte Carlo error. The squares' standard deviation is estimated
  // from draws themselves.
  constexpr int draws = 2000;
  const auto sampled =
      estimate_fisher(net, x, forward, retain::sampled_actions{.per_state = draws, .seed = 3});
  // Var of (1[a=k] - pi_k)^2
  const auto fourth = ((1 - pi).pow(4) * pi + pi.pow(4) * (1 - pi)) - variance.square();
  const auto error = (fourth.sum(0) / (40.0 * 40.0 * draws)).sqrt();
  CHECK(((sampled.values[1].tensor - bias).abs() < 4.5 * error).all().item<bool>());
  CHECK(sampled.states == 40);
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
      const auto parts = estimate_fisher(net, x.split(size), forward, retain::sampled_actions{},
                                         {.batched = walk});
      for (std::size_t i = 0; i < whole.values.size(); ++i)
        CHECK(support::relative_error(parts.values[i].tensor, whole.values[i].tensor) < 1e-12);
    }
  // What is not a Fisher: the square of the batch's mean gradient is smaller by about the number of
  // samples.
  net->zero_grad();
  const auto d = forward(x);
  d.log_prob(d.at_quantile(torch::rand({60}, at::kDouble))).mean().backward();
  CHECK(net->parameters()[0].grad().square().sum().item<double>() <
        0.2 * whole.values[0].tensor.sum().item<double>());
}

TEST_CASE("fisher: a bound on memory changes nothing but memory", "[fisher]") {
  torch::manual_seed(11);
  torch::nn::Sequential net(torch::nn::Conv2d(torch::nn::Conv2dOptions(2, 3, 3)), torch::nn::ReLU(),
                            torch::nn::Flatten(), torch::nn::Linear(48, 3));
  const auto x = torch::randn({20, 2, 6, 6});
  const auto forward = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto wide = estimate_fisher(net, x, forward),
             narrow = estimate_fisher(net, x, forward, retain::sampled_actions{}, {.memory = 1});
  for (std::size_t i = 0; i < wide.values.size(); ++i)
    CHECK(support::relative_error(narrow.values[i].tensor, wide.values[i].tensor) < 1e-5);
}

TEST_CASE(
    "fisher: however many samples verify the walk, its values are those of one sample at a time",
    "[fisher]") {
  torch::manual_seed(26);
  torch::nn::Sequential net(torch::nn::Linear(4, 6), torch::nn::Tanh(), torch::nn::Linear(6, 3));
  net->to(at::kDouble);
  const auto x = torch::randn({7, 4}, at::kDouble);
  std::int64_t asked = 0;
  const auto forward = [&](const at::Tensor& o) {
    asked += o.size(0);
    return categorical{net->forward(o)};
  };
  const auto plain =
      estimate_fisher(net, x, forward, retain::sampled_actions{.seed = 2}, {.batched = false});
  for (const int verify : {-1, 0, 1, 5, 100, std::numeric_limits<int>::max()}) {
    asked = 0;
    const auto walked =
        estimate_fisher(net, x, forward, retain::sampled_actions{.seed = 2}, {.verify = verify});
    // the batch twice, and each sample that verifies once more
    CHECK(asked == 2 * 7 + std::clamp(verify, 0, 7));
    for (std::size_t i = 0; i < plain.values.size(); ++i) {
      CHECK((walked.paths.at(plain.values[i].name) == fisher_path::batched));
      CHECK(support::relative_error(walked.values[i].tensor, plain.values[i].tensor) < 1e-12);
    }
  }
}

TEST_CASE("fisher: which dimension the samples lie along", "[fisher]") {
  torch::manual_seed(27);
  torch::nn::Linear net(4, 3);
  net->to(at::kDouble);
  const auto x = torch::randn({5, 6, 4}, at::kDouble);
  const auto forward = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto actions = torch::randint(3, {5, 6});
  const auto along = [&](int dimension, const at::Tensor& o, const at::Tensor& a) {
    return estimate_fisher(net, o, forward,
                           retain::dataset_actions{[&](const at::Tensor&) { return a; }},
                           {.sample_dimension = dimension})
        .values[0]
        .tensor;
  };
  const auto second = along(1, x, actions);
  CHECK(along(-1, x, actions).equal(second));
  CHECK(support::relative_error(along(0, x.transpose(0, 1).contiguous(), actions.t().contiguous()),
                                second) < 1e-12);
  // sums over another dimension before squaring
  CHECK(support::relative_error(along(0, x, actions), second) > 1e-3);
  CHECK_THROWS_AS(along(2, x, actions), retain::config_error);
  CHECK_THROWS_WITH(along(2, x, actions),
                    ContainsSubstring("sample_dimension 2 in log-probabilities of shape [5, 6]"));
  CHECK_THROWS_AS(along(1, x[0], actions[0]), retain::config_error);
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
  const auto forward = [&](const at::Tensor& o) {
    return categorical{net.policy(torch::relu(net.body(o)))};
  };
  const auto f =
      estimate_fisher(net, x, forward, retain::sampled_actions{}, {.exclude = {"value.bias"}});
  std::vector<std::string> names;
  for (const auto& entry : f.values) names.push_back(entry.name);
  CHECK(names ==
        std::vector<std::string>{"body.bias", "policy.weight", "policy.bias", "value.weight"});
  CHECK((f.paths.at("value.weight") == fisher_path::unused));
  CHECK(f.values[3].tensor.equal(torch::zeros({1, 4})));
  CHECK_THAT(f.report(), ContainsSubstring("value.weight [1, 4]: unused"));
}

TEST_CASE("fisher: one sample, an empty batch, half precision", "[fisher]") {
  torch::manual_seed(15);
  torch::nn::Linear net(4, 3);
  const auto forward = [&](const at::Tensor& o) { return net->forward(o); };
  const auto x = torch::randn({6, 4});
  CHECK(estimate_fisher(net, x.narrow(0, 0, 1), forward).states == 1);
  const auto with_empty = estimate_fisher(
      net, std::vector{x.narrow(0, 0, 3), x.narrow(0, 0, 0), x.narrow(0, 3, 3)}, forward);
  const auto whole = estimate_fisher(net, x, forward);
  CHECK(with_empty.states == 6);
  CHECK(support::relative_error(with_empty.values[0].tensor, whole.values[0].tensor) < 1e-6);

  torch::nn::Linear small(4, 3);
  small->to(at::kBFloat16);
  const auto reduced = estimate_fisher(small, x.to(at::kBFloat16),
                                       [&](const at::Tensor& o) { return small->forward(o); });
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
  // d log pi(a) / d W_k = (1[a=k] - pi_k) x: one state gives 1e8 times what each of the others
  // does, and all of those 3e-6 of it.
  std::vector<at::Tensor> states{torch::full({1, 1}, 1e3)};
  for (int i = 0; i < 300; ++i) states.push_back(torch::full({1, 1}, 0.1));
  const auto f = estimate_fisher(
      net, states, [&](const at::Tensor& x) { return net->forward(x); }, retain::exact_actions{});
  const double expected = (pi[0] * pi[1]).item<double>() * (1e6 + 300 * 0.01) / 301;
  CHECK(f.values[0].tensor[0].item<double>() == Approx(expected).epsilon(1e-6));
}

TEST_CASE("fisher: a distribution of the user's own, with a number of actions and nothing more",
          "[fisher]") {
  torch::manual_seed(24);
  torch::nn::Linear net(4, 3);
  const auto x = torch::randn({10, 4});
  const auto forward = [&](const at::Tensor& o) { return own{categorical{net->forward(o)}}; };
  const auto plain = [&](const at::Tensor& o) { return categorical{net->forward(o)}; };
  const auto exact = estimate_fisher(net, x, forward, retain::exact_actions{});
  CHECK(exact.values[0].tensor.equal(
      estimate_fisher(net, x, plain, retain::exact_actions{}).values[0].tensor));
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
  const auto whole = estimate_fisher(
      net, opaque_batch{x}, [&](const opaque_batch& b) { return net.forward(b.observations); });
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

TEST_CASE("fisher: where cuDNN refuses a recurrent layer in eval mode, the error says what to do",
          "[fisher]") {
  torch::nn::Linear net(4, 3);
  const auto forward = [&](const at::Tensor& o) { return refuses::apply(net->forward(o)); };
  CHECK_THROWS_AS(estimate_fisher(net, torch::randn({5, 4}), forward), retain::config_error);
  CHECK_THROWS_WITH(estimate_fisher(net, torch::randn({5, 4}), forward),
                    ContainsSubstring("setUserEnabledCuDNN(false)"));
}

TEST_CASE("fisher: a TorchScript policy", "[fisher]") {
  torch::manual_seed(16);
  torch::jit::Module module("policy");
  module.register_parameter("w", torch::randn({3, 4}).requires_grad_(), false);
  module.register_parameter("b", torch::randn({3}).requires_grad_(), false);
  module.define("def forward(self, x):\n  return torch.addmm(self.b, x, self.w.t())\n");
  const auto x = torch::randn({10, 4});
  const auto f = estimate_fisher(
      module, x, [&](const at::Tensor& o) { return module.forward({o}).toTensor(); },
      retain::exact_actions{});
  const auto logits = module.forward({x}).toTensor().detach();
  const auto pi = logits.softmax(-1);
  CHECK(support::relative_error(f.values[0].tensor, (pi * (1 - pi)).t().mm(x.square()) / 10.0) <
        1e-5);
}

TEST_CASE("fisher: what has no per-sample gradient, no gradient or no data is refused",
          "[fisher]") {
  torch::nn::Sequential net(torch::nn::Linear(4, 5), torch::nn::BatchNorm1d(5),
                            torch::nn::Linear(5, 3));
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
  CHECK_THROWS_WITH(estimate_fisher(net, std::vector<at::Tensor>{}, forward),
                    ContainsSubstring("no valid state"));
  CHECK_THROWS_AS(estimate_fisher(net, x, forward, retain::sampled_actions{.per_state = 0}),
                  retain::config_error);
  CHECK_THROWS_WITH(estimate_fisher(net, torch::full({2, 4}, std::nan("")), forward),
                    ContainsSubstring("not finite"));
  torch::nn::Linear other(4, 3);
  CHECK_THROWS_WITH(estimate_fisher(other, x, forward), ContainsSubstring("copy of it"));
  const std::vector<at::Tensor> computed{torch::randn({3, 4}).requires_grad_() * 2};
  CHECK_THROWS_WITH(
      estimate_fisher(computed, x, [&](const at::Tensor& o) { return o.mm(computed[0].t()); }),
      ContainsSubstring("leaf tensors"));
  const auto wrong_mask = [&](const at::Tensor& o) {
    return retain::masked{categorical{net->forward(o)}, torch::ones({3})};
  };
  CHECK_THROWS_AS(estimate_fisher(net, x, wrong_mask), retain::shape_error);
  const retain::dataset_actions too_few{
      [](const at::Tensor&) { return torch::zeros({2}, at::kLong); }};
  CHECK_THROWS_AS(estimate_fisher(net, x, forward, too_few), retain::shape_error);
  for (auto& p : net->parameters()) p.requires_grad_(false);
  CHECK_THROWS_AS(estimate_fisher(net, x, forward), retain::config_error);
}

TEST_CASE("fisher: dataset actions are the batch's own by default, and a Fisher can be saved",
          "[fisher]") {
  const support::temporary_folder folder;
  torch::manual_seed(17);
  torch::nn::Linear net(4, 3);
  const std::vector<batch_with_actions> data{{torch::randn({6, 4}), torch::randint(3, {6})}};
  int calls = 0;
  const auto f = estimate_fisher(
      net, data, [&](const auto& b) { return categorical{net->forward(b.observations)}; },
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

TEST_CASE("fisher: a state that no estimate is is refused and changes nothing", "[fisher]") {
  retain::fisher f;
  f.values = {{"w", torch::ones({2})}};
  f.paths["w"] = retain::fisher_path::unused;
  f.states = 3;
  f.actions = "exact";
  const auto refused = [&](const char* key, auto value) {
    retain::state saved;
    f.save_state(saved, "");
    saved.set("states", 9);
    saved.set(key, value);
    INFO(key);
    CHECK_THROWS_AS(f.load_state(saved, ""), retain::state_error);
    CHECK(f.states == 3);
    CHECK(f.values[0].tensor.equal(torch::ones({2})));
  };
  refused("states", -1);
  refused("unsliced", -1);
  refused("path.w", 3);
  refused("path.w", -1);
  refused("value.w", torch::full({2}, std::nan("")));
  refused("value.w", torch::full({2}, -1.0f));
  refused("value.w", torch::ones({2}, at::kLong));
}

}  // namespace fisher_test
