// SPDX-License-Identifier: MIT
#include <retain/concepts.hpp>
#include <retain/l2_init.hpp>

#include "support.hpp"
#include "weight_penalties.hpp"

static_assert(retain::weight_penalty<retain::l2_init>);
static_assert(!retain::weight_penalty<at::Tensor>);
static_assert(!retain::weight_penalty<retain::strength_schedule>);

TEST_CASE("l2_init: value and both gradients in every floating type", "[l2_init]") {
  const auto make = [](const auto& weights) { return retain::l2_init{weights, {.strength = 0.7}}; };
  support::check_gradients(make, at::kDouble, 1e-12);
  support::check_gradients(make, at::kFloat, 1e-5);
  support::check_gradients(make, at::kHalf, 5e-3);
  support::check_gradients(make, at::kBFloat16, 2e-2);
}

TEST_CASE("l2_init: the value is c times the squared distance, groups scale it", "[l2_init]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init plain{net, {.strength = 2.0}};
  const retain::l2_init grouped{net, {.strength = 2.0, .groups = {{"w*", 10.0}, {"bias", 0.0}}}};
  {
    const at::NoGradGuard no_grad;
    net->weight.add_(0.5);
    net->bias.sub_(1.0);
  }
  CHECK(plain.add_gradient(net).item<double>() == Approx(2.0 * (6 * 0.25 + 2 * 1.0)));
  CHECK(grouped.add_gradient(net).item<double>() == Approx(2.0 * 10 * 6 * 0.25));
  CHECK_THROWS_WITH((retain::l2_init{net, {.groups = {{"head.*", 1.0}}}}), ContainsSubstring("head.*"));
  CHECK_THROWS_AS((retain::l2_init{net, {.groups = {{"*", -1.0}}}}), retain::config_error);
}

TEST_CASE("l2_init: a pattern covers by the name of a module, whole or with wildcards, and no other that begins alike", "[l2_init]") {
  const auto t = [] { return torch::ones({1}).requires_grad_(); };
  const retain::parameter_list net{{"body.0.weight", t()}, {"body.0.bias", t()}, {"body2.weight", t()}, {"head.out.weight", t()}};
  const auto kept = [&](const std::string& pattern) {
    const retain::l2_init keep{net, {.exclude = {pattern}}};
    std::vector<std::string> names;
    for (const auto& [name, tensor] : net)
      if (keep.covers(name)) names.push_back(name);
    return names;
  };
  using names = std::vector<std::string>;
  CHECK(kept("body") == names{"body2.weight", "head.out.weight"});
  CHECK(kept("body.0") == names{"body2.weight", "head.out.weight"});
  CHECK(kept("body?") == names{"body.0.weight", "body.0.bias", "head.out.weight"});
  CHECK(kept("head.out.weight") == names{"body.0.weight", "body.0.bias", "body2.weight"});
  CHECK(kept("out") == names{"body.0.weight", "body.0.bias", "body2.weight", "head.out.weight"});  // a name is read from its beginning
  CHECK(kept("*.out") == names{"body.0.weight", "body.0.bias", "body2.weight"});

  const retain::l2_init grouped{net, {.groups = {{"body", 3.0}, {"head.*", 0.5}}}};
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : net) at::Tensor(tensor).add_(1);
  CHECK(grouped.add_gradient(net).item<double>() == Approx(3 + 3 + 1 + 0.5));
  CHECK_THROWS_WITH((retain::l2_init{net, {.groups = {{"bod", 1.0}}}}), ContainsSubstring("'bod' matches no parameter"));
}

TEST_CASE("l2_init: frozen parameters are skipped, and penalised again once unfrozen", "[l2_init]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init keep{net};
  {
    const at::NoGradGuard no_grad;
    net->weight.add_(1);
    net->bias.add_(1);
  }
  net->weight.requires_grad_(false);
  CHECK(keep.add_gradient(net).item<double>() == Approx(2));
  CHECK(!net->weight.grad().defined());
  net->weight.requires_grad_(true);
  CHECK(keep.loss(net).item<double>() == Approx(8));
  net->weight.requires_grad_(false);
  net->bias.requires_grad_(false);
  CHECK(keep.loss(net).item<double>() == 0);
  CHECK(keep.add_gradient(net).item<double>() == 0);
}

TEST_CASE("l2_init: strength 0 does nothing, not even make gradients", "[l2_init]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init keep{net, {.strength = 0.0}};
  CHECK(keep.add_gradient(net).item<double>() == 0);
  CHECK(!net->weight.grad().defined());
}

TEST_CASE("l2_init: a tied weight counts once", "[l2_init]") {
  struct tied_net : torch::nn::Module {
    tied_net() {
      shared = register_parameter("a", torch::zeros({2}));
      register_parameter("b", shared);
    }
    at::Tensor shared;
  };
  tied_net net;
  const retain::l2_init keep{net};
  {
    const at::NoGradGuard no_grad;
    net.shared.add_(3);
  }
  CHECK(keep.add_gradient(net).item<double>() == 18);
}

TEST_CASE("l2_init: a sparse gradient becomes dense and keeps what it held", "[l2_init]") {
  torch::nn::Embedding table(torch::nn::EmbeddingOptions(5, 2).sparse(true));
  const retain::l2_init keep{table, {.strength = 1.0}};
  table->forward(torch::tensor({1, 3})).sum().backward();
  REQUIRE(table->weight.grad().is_sparse());
  {
    const at::NoGradGuard no_grad;
    table->weight.add_(1);
  }
  keep.add_gradient(table);
  auto expected = torch::full({5, 2}, 2.0);
  expected[1] += 1;
  expected[3] += 1;
  CHECK(!table->weight.grad().is_sparse());
  CHECK(support::relative_error(table->weight.grad(), expected) < 1e-5);
}

TEST_CASE("l2_init: a model that was moved to another type keeps its anchor", "[l2_init]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init keep{net};
  net->to(at::kDouble);
  {
    const at::NoGradGuard no_grad;
    net->bias.add_(2);
  }
  CHECK(keep.loss(net).item<double>() == Approx(8));
  CHECK(keep.add_gradient(net).item<double>() == Approx(8));
}

TEST_CASE("l2_init: half precision through LibTorch's operations does not underflow", "[l2_init]") {
  // A strided gradient keeps the fused pass away; 2 c d is representable where c alone times d^2 would not be.
  std::vector<at::Tensor> w{torch::zeros({4, 4}, at::kHalf).requires_grad_()};
  const retain::l2_init keep{w, {.strength = 1e-3}};
  w[0].mutable_grad() = torch::zeros({4, 8}, at::kHalf).slice(1, 0, 8, 2);
  {
    const at::NoGradGuard no_grad;
    w[0].fill_(1e-3);
  }
  CHECK(keep.add_gradient(w).item<double>() == Approx(16 * 1e-3 * 1e-6).epsilon(1e-2));
  CHECK(w[0].grad()[1][2].item<double>() == Approx(2e-6).epsilon(5e-2));
}

TEST_CASE("l2_init: the graph can be differentiated twice", "[l2_init]") {
  std::vector<at::Tensor> w{torch::tensor({1.0, 2.0}, at::kDouble).requires_grad_()};
  const retain::l2_init keep{w, {.strength = 1.5}};
  {
    const at::NoGradGuard no_grad;
    w[0].add_(1);
  }
  const auto first = torch::autograd::grad({w[0].pow(3).sum() + keep.loss(w)}, {w[0]}, {}, true, true)[0];
  const auto second = torch::autograd::grad({first.sum()}, {w[0]})[0];
  CHECK(support::relative_error(second, 6 * w[0].detach() + 3) < 1e-12);
}

TEST_CASE("l2_init: a model that does not fit is named, and nothing is written", "[l2_init]") {
  const auto t = [](std::int64_t n) { return torch::ones({n}).requires_grad_(); };
  const retain::l2_init keep{retain::parameter_list{{"a", t(2)}, {"b", t(3)}}};
  const retain::parameter_list resized{{"a", t(2)}, {"b", t(4)}}, missing{{"a", t(2)}}, extra{{"a", t(2)}, {"b", t(3)}, {"head", t(1)}};
  CHECK_THROWS_AS(keep.add_gradient(resized), retain::shape_error);
  CHECK_THROWS_WITH(keep.add_gradient(resized), ContainsSubstring("'b'") && ContainsSubstring("[4]") && ContainsSubstring("[3]"));
  CHECK(!resized[0].tensor.grad().defined());
  CHECK_THROWS_AS(keep.loss(missing), retain::state_error);
  CHECK_THROWS_WITH(keep.loss(missing), ContainsSubstring("'b'") && ContainsSubstring("missing"));
  CHECK_THROWS_WITH(keep.loss(extra), ContainsSubstring("'head'") && ContainsSubstring("no anchor"));
  const retain::l2_init headless{retain::parameter_list{{"a", t(2)}, {"b", t(3)}}, {.exclude = {"head*"}}};
  CHECK_NOTHROW(headless.loss(extra));
}

TEST_CASE("l2_init: an anchor other than the present weights, as a model or as a list, under the options of always", "[l2_init]") {
  torch::nn::Linear pretrained(3, 2), net(3, 2);
  const auto distance = [&](const at::Tensor& a, const at::Tensor& b) { return (a - b).square().sum().item<double>(); };
  const double weight = distance(net->weight, pretrained->weight), bias = distance(net->bias, pretrained->bias);
  retain::parameter_list list = retain::parameters(pretrained);
  const retain::l2_init from_model{net, pretrained, {.strength = 2.0, .groups = {{"bias", 3.0}}}};
  const retain::l2_init from_list{net, list};
  CHECK(from_model.add_gradient(net).item<double>() == Approx(2 * (weight + 3 * bias)));
  CHECK(support::relative_error(net->bias.grad(), 2 * 2 * 3 * (net->bias - pretrained->bias)) < 1e-6);
  {
    const at::NoGradGuard no_grad;
    pretrained->weight.zero_();  // the anchor is a copy
  }
  CHECK(from_list.loss(net).item<double>() == Approx(weight + bias));

  const retain::l2_init body_only{net, retain::parameter_list{{"weight", torch::zeros({2, 3}, at::kDouble)}}, {.exclude = {"bias"}}};
  CHECK(body_only.loss(net).item<double>() == Approx(net->weight.square().sum().item<double>()));

  const retain::parameter_list missing{{"weight", torch::zeros({2, 3})}};
  CHECK_THROWS_AS((retain::l2_init{net, missing}), retain::state_error);
  CHECK_THROWS_WITH((retain::l2_init{net, missing}), ContainsSubstring("'bias'") && ContainsSubstring("missing in the anchor"));
  list.push_back({"head.weight", torch::zeros({1})});
  CHECK_THROWS_WITH((retain::l2_init{net, list}), ContainsSubstring("'head.weight'") && ContainsSubstring("does not have"));
  CHECK_THROWS_AS((retain::l2_init{net, torch::nn::Linear(4, 2)}), retain::shape_error);
  CHECK_THROWS_WITH((retain::l2_init{net, torch::nn::Linear(4, 2)}), ContainsSubstring("[2, 4]") && ContainsSubstring("[2, 3]"));
  const retain::parameter_list poisoned{{"weight", torch::zeros({2, 3})}, {"bias", torch::full({2}, std::nan(""))}};
  CHECK_THROWS_WITH((retain::l2_init{net, poisoned}), ContainsSubstring("'bias'") && ContainsSubstring("not finite"));
}

TEST_CASE("l2_init: the scales of several patterns that match one name multiply, frozen parameters among them", "[l2_init]") {
  torch::nn::Linear net(3, 2);
  const retain::l2_init keep{net, {.strength = 5.0, .groups = {{"*", 2.0}, {"w*", 10.0}, {"*t", 0.5}}}};
  {
    const at::NoGradGuard no_grad;
    net->weight.add_(1);
    net->bias.add_(1);
  }
  CHECK(keep.loss(net).item<double>() == Approx(5 * (2 * 10 * 0.5 * 6 + 2 * 2)));
  net->weight.requires_grad_(false);
  CHECK(keep.loss(net).item<double>() == Approx(5 * 2 * 2));
  keep.add_gradient(net);
  CHECK(support::relative_error(net->bias.grad(), torch::full({2}, 2 * 5 * 2.0)) < 1e-6);
}

TEST_CASE("l2_init: an anchor that was given is saved and loaded with the rest", "[l2_init]") {
  const support::temporary_folder folder;
  torch::nn::Linear net(3, 2), pretrained(3, 2);
  const retain::l2_init keep{net, pretrained};
  retain::save(folder.file("l2"), keep);
  retain::l2_init resumed{net};
  CHECK(resumed.loss(net).item<double>() == 0);
  retain::load(folder.file("l2"), resumed);
  CHECK(resumed.loss(net).equal(keep.loss(net)));
}
