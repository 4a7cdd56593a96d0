// SPDX-License-Identifier: MIT
// What is no function of the states alone has no importance a state: every estimate refuses it, and
// leaves the model as it was.
#include <retain/categorical.hpp>
#include <retain/fisher.hpp>
#include <retain/importance/steady_forward.hpp>
#include <retain/kfac.hpp>
#include <retain/memory_aware_synapses.hpp>

#include <torch/script.h>

#include <limits>
#include <string>
#include <vector>

#include "support.hpp"

namespace steady_forward_test {

using retain::categorical;
using retain::estimate_fisher;
using retain::estimate_kfac;
using retain::estimate_sensitivity;

namespace {

/// Calls check(text of the error) for each estimate that the model is put to; an estimate that is
/// no config_error fails. Of the patterns those are used that match a parameter of the model.
template <class Model, class Data, class Forward, class Check>
void each_refuses(const Model& model, const Data& data, Forward forward, Check check,
                  const std::vector<std::string>& not_linear = {}) {
  std::vector<std::string> exclude;
  for (const auto& pattern : not_linear)
    for (const auto& parameter : retain::parameters(model))
      if (retain::detail::covers(pattern, parameter.name)) {
        exclude.push_back(pattern);
        break;
      }
  const auto text = [](auto estimate) -> std::string {
    try {
      (void)estimate();
    } catch (const retain::config_error& e) {
      return e.what();
    }
    return "no error";
  };
  check(text([&] { return estimate_fisher(model, data, forward); }));
  check(text([&] {
    return estimate_fisher(model, data, forward, retain::exact_actions{}, {.batched = false});
  }));
  check(text([&] { return estimate_kfac(model, data, forward, {}, {.exclude = exclude}); }));
  check(text([&] { return estimate_sensitivity(model, data, forward); }));
}

void each_refuses_as_unsteady(const auto& model, const auto& data, auto forward,
                              const std::vector<std::string>& not_linear = {}) {
  each_refuses(
      model, data, forward,
      [](const std::string& text) {
        CHECK_THAT(text, ContainsSubstring("another result for the same states") &&
                             ContainsSubstring("policy->eval()") &&
                             ContainsSubstring("statistics") && ContainsSubstring("between calls"));
      },
      not_linear);
}

/// Normalizes by a mean that follows what it sees.
struct follows_its_mean : torch::nn::Module {
  torch::nn::Linear layer{register_module("layer", torch::nn::Linear(4, 3))};
  at::Tensor mean{register_buffer("mean", torch::zeros({4}))};
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor out = layer(x - mean);
    const at::NoGradGuard no_grad;
    mean.mul_(0.9).add_(0.1 * x.mean(0));
    return out;
  }
};

struct with_norm : torch::nn::Module {
  explicit with_norm(torch::nn::BatchNorm1dOptions options = torch::nn::BatchNorm1dOptions(5))
      : norm(register_module("norm", torch::nn::BatchNorm1d(options))) {}
  torch::nn::Linear body{register_module("body", torch::nn::Linear(4, 5))};
  torch::nn::BatchNorm1d norm;
  torch::nn::Linear head{register_module("head", torch::nn::Linear(5, 3))};
  at::Tensor forward(const at::Tensor& x) { return head(norm(body(x))); }
};

struct statistics : torch::nn::Module {  // a batch normalization by another name
  at::Tensor running_mean{register_buffer("running_mean", torch::zeros({5}))},
      running_var{register_buffer("running_var", torch::ones({5}))};
  at::Tensor num_batches_tracked{
      register_buffer("num_batches_tracked", torch::zeros({}, at::kLong))};
  at::Tensor forward(const at::Tensor& x) {
    if (is_training()) num_batches_tracked.add_(1);
    return torch::batch_norm(x, {}, {}, running_mean, running_var, is_training(), 0.1, 1e-5, false);
  }
};
struct with_statistics : torch::nn::Module {
  torch::nn::Linear body{register_module("body", torch::nn::Linear(4, 5))};
  std::shared_ptr<statistics> norm{register_module("norm", std::make_shared<statistics>())};
  torch::nn::Linear head{register_module("head", torch::nn::Linear(5, 3))};
  at::Tensor forward(const at::Tensor& x) { return head(norm->forward(body(x))); }
};

/// Draws from LibTorch's own generator.
struct draws_itself {
  categorical inner;
  at::Tensor log_prob(const at::Tensor& a) const { return inner.log_prob(a); }
  at::Tensor entropy() const { return inner.entropy(); }
  at::Tensor sample() const { return inner.sample(); }
  at::Tensor mode() const { return inner.mode(); }
  friend at::Tensor kl(const draws_itself& p, const draws_itself& q) {
    return kl(p.inner, q.inner);
  }
};

}  // namespace

TEST_CASE("steady forward: dropout that is on is refused, in batches of one too, and by a policy "
          "that is known by its parameters alone",
          "[steady_forward]") {
  torch::nn::Sequential net(torch::nn::Linear(4, 6), torch::nn::Dropout(0.3),
                            torch::nn::Linear(6, 3));
  const auto x = torch::randn({40, 4});
  const auto forward = [&](const at::Tensor& o) { return net->forward(o); };
  for (int seed = 0; seed < 5; ++seed) {
    torch::manual_seed(seed);
    each_refuses_as_unsteady(net, x, forward);
    each_refuses_as_unsteady(net, x.split(1), forward);
    each_refuses_as_unsteady(net->parameters(), std::vector{torch::randn({200, 4})}, forward);
  }
  net->eval();
  CHECK_NOTHROW(estimate_fisher(net, x, forward));
  CHECK_NOTHROW(estimate_kfac(net, x, forward));
  CHECK_NOTHROW(estimate_sensitivity(net, x, forward));
}

TEST_CASE("steady forward: statistics that forward moves and a memory that the policy keeps are "
          "refused, and buffers stand where they stood",
          "[steady_forward]") {
  torch::manual_seed(1);
  follows_its_mean net;
  const auto x = torch::randn({9, 4});
  net.forward(x);
  const auto before = net.mean.clone();
  each_refuses_as_unsteady(net, x, [&](const at::Tensor& o) { return net.forward(o); });
  CHECK(net.mean.equal(before));

  torch::nn::Linear body(4, 5), head(5, 3);
  at::Tensor memory = torch::zeros({1, 5});
  const retain::parameter_list recurrent{{"body.weight", body->weight},
                                         {"body.bias", body->bias},
                                         {"head.weight", head->weight},
                                         {"head.bias", head->bias}};
  each_refuses_as_unsteady(recurrent, x, [&](const at::Tensor& o) {
    const at::Tensor hidden = torch::tanh(body(o) + 0.1 * memory);
    memory = 0.5 * memory + hidden.detach().mean(0, true);
    return head(hidden);
  });
}

TEST_CASE("steady forward: batch normalization in training mode is refused before it moves",
          "[steady_forward]") {
  torch::manual_seed(2);
  const auto x = torch::randn({8, 4});
  const auto check = [&](auto& net, const auto& model, bool known, const auto& where) {
    const auto mean = net.norm->running_mean.clone(), variance = net.norm->running_var.clone();
    each_refuses(
        model, x, [&](const at::Tensor& o) { return net.forward(o); },
        [&](const std::string& text) {
          CHECK_THAT(text, ContainsSubstring("policy->eval()") && ContainsSubstring(where) &&
                               !ContainsSubstring("track_running_stats"));
        },
        {"norm.*", "2", "3"});
    if (!known) return;
    CHECK(net.norm->running_mean.equal(mean));
    CHECK(net.norm->running_var.equal(variance));
    CHECK(net.norm->num_batches_tracked.template item<std::int64_t>() == 0);
  };
  with_norm net;
  check(net, net, true, "'norm' is batch normalization");
  const auto shared = std::make_shared<with_norm>();
  check(*shared, shared, true, "'norm' is batch normalization");
  with_statistics derived;
  check(derived, derived, true, "batch normalization in training mode");
  check(net, net.parameters(), false, "batch normalization in training mode");
  // one pass of each estimate, which is where it is seen
  CHECK(net.norm->num_batches_tracked.item<std::int64_t>() == 4);
  torch::nn::BatchNorm1d alone(3);
  CHECK_THROWS_WITH(estimate_sensitivity(alone, torch::randn({5, 3}),
                                         [&](const at::Tensor& o) { return alone(o); }),
                    ContainsSubstring("the model is batch normalization"));

  net.eval();
  CHECK_NOTHROW(estimate_fisher(net, x, [&](const at::Tensor& o) { return net.forward(o); }));
  CHECK_NOTHROW(estimate_sensitivity(net, x, [&](const at::Tensor& o) { return net.forward(o); }));
}

TEST_CASE("steady forward: batch normalization without running statistics is told what helps, for "
          "eval mode does not",
          "[steady_forward]") {
  with_norm net(torch::nn::BatchNorm1dOptions(5).track_running_stats(false));
  for (const bool training : {true, false}) {
    net.train(training);
    each_refuses(
        net, torch::randn({8, 4}), [&](const at::Tensor& o) { return net.forward(o); },
        [](const std::string& text) {
          CHECK_THAT(text, ContainsSubstring("track_running_stats(true)") &&
                               ContainsSubstring("GroupNorm") &&
                               !ContainsSubstring("call policy->eval()"));
        },
        {"norm.*"});
  }
}

TEST_CASE("steady forward: a TorchScript module's batch normalization is seen before it moves",
          "[steady_forward]") {
  torch::jit::Module norm("__torch__.BatchNorm1d"), module("policy");
  norm.register_buffer("running_mean", torch::zeros({3}));
  norm.register_buffer("running_var", torch::ones({3}));
  norm.register_attribute("training", c10::BoolType::get(), true);
  norm.define("def forward(self, x):\n  return torch.batch_norm(x, None, None, self.running_mean, "
              "self.running_var, self.training, 0.1, 1e-5, False)\n");
  module.register_parameter("w", torch::randn({3, 4}).requires_grad_(), false);
  module.register_module("norm", norm);
  module.define("def forward(self, x):\n  return self.norm.forward(torch.mm(x, self.w.t()))\n");
  const auto forward = [&](const at::Tensor& o) { return module.forward({o}).toTensor(); };
  const auto x = torch::randn({6, 4});
  each_refuses(module, x, forward, [](const std::string& text) {
    CHECK_THAT(text, ContainsSubstring("'norm' is batch normalization"));
  });
  CHECK(norm.attr("running_mean").toTensor().equal(torch::zeros({3})));
  norm.setattr("training", false);
  CHECK_NOTHROW(estimate_fisher(module, x, forward));
  CHECK_NOTHROW(estimate_sensitivity(module, x, forward));
}

TEST_CASE(
    "steady forward: instance normalization is estimated in training mode, and its statistics stay",
    "[steady_forward]") {
  torch::manual_seed(3);
  torch::nn::Sequential net(
      torch::nn::Conv1d(1, 2, 3),
      torch::nn::InstanceNorm1d(
          torch::nn::InstanceNorm1dOptions(2).affine(true).track_running_stats(true)),
      torch::nn::Flatten(), torch::nn::Linear(8, 3));
  const auto x = torch::randn({5, 1, 6});
  const auto forward = [&](const at::Tensor& o) { return net->forward(o); };
  CHECK_NOTHROW(estimate_fisher(net, x, forward));
  CHECK_NOTHROW(estimate_sensitivity(net, x, forward));
  CHECK(net->named_buffers()["1.running_mean"].equal(torch::zeros({2})));
}

TEST_CASE("steady forward: the generator and the actions that are drawn are those of one question",
          "[steady_forward]") {
  torch::manual_seed(4);
  torch::nn::Linear net(4, 3);
  const auto x = torch::randn({6, 4});
  const auto forward = [&](const at::Tensor& o) {
    torch::rand({2});  // drawn and not used
    return draws_itself{categorical{net->forward(o)}};
  };
  torch::manual_seed(9);
  const auto actions = forward(x).sample();
  const auto next = torch::rand({3});
  torch::manual_seed(9);
  const auto drawn = estimate_kfac(net, x, forward);
  CHECK(torch::rand({3}).equal(next));
  const auto given = estimate_kfac(
      net, x, forward, retain::dataset_actions{[&](const at::Tensor&) { return actions; }});
  CHECK(drawn.layers[0].outputs.equal(given.layers[0].outputs));
}

TEST_CASE("steady forward: of a large batch the first samples are asked about twice, of one that "
          "cannot be sliced all of it",
          "[steady_forward]") {
  torch::manual_seed(5);
  torch::nn::Linear net(4, 3);
  std::vector<std::int64_t> asked;
  const auto forward = [&](const at::Tensor& o) {
    asked.push_back(o.size(0));
    return net->forward(o);
  };
  const auto x = torch::randn({100, 4});
  const std::vector batches{x, x};
  (void)estimate_fisher(net, batches, forward);
  CHECK(asked == std::vector<std::int64_t>{100, 16, 16, 1, 100});
  asked.clear();
  // may have been asked for to have no slices
  (void)estimate_fisher(net, batches, forward, {}, {.verify = 0});
  CHECK(asked == std::vector<std::int64_t>{100, 100, 100});
  asked.clear();
  (void)estimate_kfac(net, batches, forward);
  CHECK(asked == std::vector<std::int64_t>{100, 100, 100});
  asked.clear();
  (void)estimate_kfac(net, x.split(10).at(0).split(5), forward);
  CHECK(asked == std::vector<std::int64_t>{5, 5, 5, 5});
  asked.clear();
  (void)estimate_kfac(net, x.split(10), forward);
  CHECK(asked == std::vector<std::int64_t>(12, 10));  // two batches twice
}

TEST_CASE(
    "steady forward: NaN is like NaN; what rounds otherwise once passes, what goes on to does not",
    "[steady_forward]") {
  using retain::detail::likeness;
  const auto of = [](std::initializer_list<double> a, std::initializer_list<double> b,
                     at::ScalarType type = at::kDouble) {
    return retain::detail::likeness_of(torch::tensor(std::vector<double>(a), type),
                                       torch::tensor(std::vector<double>(b), type));
  };
  const double nan = std::nan(""), infinite = std::numeric_limits<double>::infinity(),
               eps = std::numeric_limits<double>::epsilon();
  CHECK(of({1, nan, infinite, -infinite}, {1, nan, infinite, -infinite}) == likeness::same);
  CHECK(of({1, nan}, {1, 2}) == likeness::different);
  CHECK(of({1, infinite}, {1, 1e300}) == likeness::different);
  CHECK(of({1, infinite}, {1, -infinite}) == likeness::different);
  CHECK(of({1, 2}, {1 + 4 * eps, 2}) == likeness::rounded);
  CHECK(of({1, 2}, {1 + 100 * eps, 2}) == likeness::different);
  CHECK(of({1, 1000}, {1 + 100 * eps, 1000}) == likeness::rounded);  // beside a large number
  CHECK(of({1}, {1 + 1e-6}, at::kFloat) == likeness::rounded);
  CHECK(of({1}, {1 + 1e-5}, at::kFloat) == likeness::different);
  CHECK(of({}, {}) == likeness::same);
  CHECK(of({1, 2}, {1}) == likeness::different);

  torch::nn::Linear net(4, 3);
  net->to(at::kDouble);
  const auto x = torch::randn({6, 4}, at::kDouble);
  int calls = 0;
  const auto off_while = [&](auto when) {
    calls = 0;
    return [&, when](const at::Tensor& o) {
      return net->forward(o) * (when(calls++) ? 1 + 4 * eps : 1.0);
    };
  };
  CHECK_NOTHROW(estimate_fisher(net, x, off_while([](int call) { return call == 0; })));
  CHECK_NOTHROW(estimate_sensitivity(net, x, off_while([](int call) { return call == 0; })));
  CHECK_THROWS_AS(estimate_fisher(net, x, off_while([](int call) { return call % 2 == 0; })),
                  retain::config_error);
  CHECK_THROWS_AS(estimate_kfac(net, x, off_while([](int call) { return call % 2 == 0; })),
                  retain::config_error);
  // A function of the states with another number of rows each time is none.
  CHECK_THROWS_AS(estimate_fisher(net, x,
                                  [&](const at::Tensor&) {
                                    return net->forward(x.narrow(0, 0, ++calls % 2 ? 6 : 5));
                                  }),
                  retain::config_error);
}

}  // namespace steady_forward_test
