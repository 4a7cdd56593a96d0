// SPDX-License-Identifier: MIT
#include <retain/concepts.hpp>
#include <retain/ewc.hpp>

#include <ATen/Parallel.h>
#include <fstream>

#include "support.hpp"
#include "weight_penalties.hpp"

static_assert(retain::weight_penalty<retain::ewc>);

namespace {

retain::parameter_list random_importance(const retain::parameter_list& model) {
  retain::parameter_list importance;
  for (const auto& [name, tensor] : model) importance.push_back({name, torch::rand(tensor.sizes(), at::kDouble)});
  return importance;
}

struct two_layers : torch::nn::Cloneable<two_layers> {
  two_layers() { reset(); }
  void reset() override {
    body = register_module("body", torch::nn::Linear(4, 3));
    head = register_module("head", torch::nn::Linear(3, 2));
  }
  torch::nn::Linear body{nullptr}, head{nullptr};
};

}  // namespace

TEST_CASE("ewc: value and both gradients in every floating type", "[ewc]") {
  const auto make = [](const auto& weights) {
    return retain::ewc{weights, random_importance(retain::parameters(weights)), {.strength = 30.0}};
  };
  support::check_gradients(make, at::kDouble, 1e-12);
  support::check_gradients(make, at::kFloat, 1e-5);
  support::check_gradients(make, at::kHalf, 5e-3);
  support::check_gradients(make, at::kBFloat16, 2e-2);
}

TEST_CASE("ewc: the formula, written out", "[ewc]") {
  std::vector<at::Tensor> w{torch::tensor({1.0, 2.0}).requires_grad_()};
  const retain::ewc keep{w, retain::parameter_list{{"0", torch::tensor({3.0, 0.5})}}, {.strength = 10.0}};
  {
    const at::NoGradGuard no_grad;
    w[0].add_(torch::tensor({0.1, -2.0}));
  }
  CHECK(keep.add_gradient(w).item<double>() == Approx(10 * (3 * 0.01 + 0.5 * 4)));
  CHECK(w[0].grad()[0].item<double>() == Approx(2 * 10 * 3 * 0.1));
  CHECK(w[0].grad()[1].item<double>() == Approx(2 * 10 * 0.5 * -2));
}

TEST_CASE("ewc: the number of threads changes neither value nor gradient", "[ewc]") {
  torch::manual_seed(5);
  std::vector<at::Tensor> w{torch::randn({700000}).requires_grad_(), torch::randn({300, 700}).requires_grad_()};
  const retain::ewc keep{w, random_importance(retain::parameters(w))};
  {
    const at::NoGradGuard no_grad;
    for (auto& t : w) t.add_(torch::randn(t.sizes()));
  }
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    for (auto& t : w) t.mutable_grad() = at::Tensor();
    const double value = keep.add_gradient(w).item<double>();
    at::set_num_threads(1);
    return std::pair{value, torch::cat({w[0].grad(), w[1].grad().reshape({-1})})};
  };
  const auto [value_one, gradient_one] = run(1);
  const auto [value_two, gradient_two] = run(2);
  CHECK(value_one == value_two);
  CHECK(gradient_one.equal(gradient_two));
}

TEST_CASE("ewc: importances that do not fit the model are named", "[ewc]") {
  two_layers net;
  auto good = random_importance(retain::parameters(net));
  CHECK_NOTHROW(retain::ewc{net, good});

  auto missing = good;
  missing.pop_back();
  CHECK_THROWS_AS((retain::ewc{net, missing}), retain::state_error);
  CHECK_THROWS_WITH((retain::ewc{net, missing}), ContainsSubstring("'head.bias'") && ContainsSubstring("no importance"));

  auto extra = good;
  extra.push_back({"critic.weight", torch::ones({1})});
  CHECK_THROWS_WITH((retain::ewc{net, extra}), ContainsSubstring("'critic.weight'") && ContainsSubstring("does not have"));
  CHECK_NOTHROW(retain::ewc{net, extra, {.exclude = {"critic.*"}}});

  auto resized = good;
  resized[0].tensor = torch::ones({4, 3});
  CHECK_THROWS_AS((retain::ewc{net, resized}), retain::shape_error);
  CHECK_THROWS_WITH((retain::ewc{net, resized}), ContainsSubstring("'body.weight'") && ContainsSubstring("[4, 3]") && ContainsSubstring("[3, 4]"));

  for (const double bad : {std::nan(""), -1e-9, static_cast<double>(INFINITY)}) {
    auto poisoned = random_importance(retain::parameters(net));
    poisoned[1].tensor[2] = bad;
    CHECK_THROWS_AS((retain::ewc{net, poisoned}), retain::state_error);
    CHECK_THROWS_WITH((retain::ewc{net, poisoned}), ContainsSubstring("'body.bias'"));
  }
}

TEST_CASE("ewc: new heads are left free by pattern", "[ewc]") {
  two_layers net;
  const retain::ewc keep{net, random_importance(retain::parameters(net)), {.strength = 1.0, .exclude = {"head.*"}}};
  keep.add_gradient(net);
  CHECK(net.body->weight.grad().defined());
  CHECK(!net.head->weight.grad().defined());
}

TEST_CASE("ewc: a parameter unfrozen after the estimate has no importance and is named", "[ewc]") {
  two_layers net;
  net.head->bias.requires_grad_(false);
  auto importance = random_importance(retain::parameters(net));
  importance.pop_back();
  const retain::ewc keep{net, importance};
  CHECK_NOTHROW(keep.loss(net));
  net.head->bias.requires_grad_(true);
  CHECK_THROWS_WITH(keep.loss(net), ContainsSubstring("'head.bias' was frozen"));
}

TEST_CASE("ewc: save, load and go on, bit for bit", "[ewc]") {
  const support::temporary_folder folder;
  const auto train = [](two_layers& net, retain::ewc& keep, torch::optim::Adam& adam, int from, int to) {
    for (int step = from; step < to; ++step) {
      torch::manual_seed(100 + step);
      adam.zero_grad();
      net.head(torch::tanh(net.body(torch::randn({8, 4})))).square().mean().backward();
      keep.add_gradient(net);
      adam.step();
      keep.step(step + 1);
    }
  };
  torch::manual_seed(1);
  auto start = std::make_shared<two_layers>();
  const auto importance = random_importance(retain::parameters(start));
  const auto options = [] { return retain::ewc_options{.strength = retain::exponential_decay{.initial = 5, .factor = 0.9}}; };
  const auto adam_of = [](two_layers& net) { return torch::optim::Adam(net.parameters(), torch::optim::AdamOptions(1e-2)); };

  auto whole = std::dynamic_pointer_cast<two_layers>(start->clone());
  retain::ewc keep_whole{whole, importance, options()};
  auto adam_whole = adam_of(*whole);
  train(*whole, keep_whole, adam_whole, 0, 20);

  auto first = std::dynamic_pointer_cast<two_layers>(start->clone());
  retain::ewc keep_first{first, importance, options()};
  auto adam_first = adam_of(*first);
  train(*first, keep_first, adam_first, 0, 10);
  retain::save(folder.file("retention"), keep_first);
  torch::save(adam_first, folder.file("adam"));

  // The next process builds the penalty from the weights it resumed: anchor and importance must come from the file.
  auto second = std::dynamic_pointer_cast<two_layers>(first->clone());
  retain::ewc keep_second{second, random_importance(retain::parameters(second)), options()};
  retain::load(folder.file("retention"), keep_second);
  auto adam_second = adam_of(*second);
  torch::load(adam_second, folder.file("adam"));
  train(*second, keep_second, adam_second, 10, 20);

  for (std::size_t i = 0; i < whole->parameters().size(); ++i) CHECK(second->parameters()[i].equal(whole->parameters()[i]));
  CHECK(keep_second.strength() == keep_whole.strength());
}

TEST_CASE("ewc: a state of another network is refused and changes nothing", "[ewc]") {
  const support::temporary_folder folder;
  const auto t = [](std::int64_t n, double v) { return torch::full({n}, v).requires_grad_(); };
  const auto make = [&](std::vector<std::pair<std::string, at::Tensor>> model) {
    return retain::ewc{model, random_importance(retain::parameters(model))};
  };
  auto keep = make({{"a", t(2, 1)}, {"b", t(3, 1)}});
  const std::vector<std::pair<std::string, at::Tensor>> moved{{"a", t(2, 4)}, {"b", t(3, 4)}};
  const double before = keep.loss(moved).item<double>();

  retain::save(folder.file("resized"), make({{"a", t(2, 0)}, {"b", t(4, 0)}}));
  retain::save(folder.file("missing"), make({{"a", t(2, 0)}}));
  retain::save(folder.file("extra"), make({{"a", t(2, 0)}, {"b", t(3, 0)}, {"c", t(1, 0)}}));
  CHECK_THROWS_AS(retain::load(folder.file("resized"), keep), retain::shape_error);
  CHECK_THROWS_WITH(retain::load(folder.file("resized"), keep), ContainsSubstring("'b'") && ContainsSubstring("[4]"));
  CHECK_THROWS_AS(retain::load(folder.file("missing"), keep), retain::state_error);
  CHECK_THROWS_WITH(retain::load(folder.file("missing"), keep), ContainsSubstring("anchor.b"));
  CHECK_THROWS_AS(retain::load(folder.file("extra"), keep), retain::state_error);
  CHECK_THROWS_WITH(retain::load(folder.file("extra"), keep), ContainsSubstring("'anchor.c'"));
  CHECK(keep.loss(moved).item<double>() == before);
}
