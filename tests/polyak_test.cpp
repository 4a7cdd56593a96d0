// SPDX-License-Identifier: MIT
#include <retain/polyak.hpp>

#include <cmath>
#include <memory>

#include "support.hpp"

namespace polyak_test {

namespace {

struct normalized_net : torch::nn::Cloneable<normalized_net> {
  normalized_net() { reset(); }
  void reset() override {
    layers = register_module(
        "layers", torch::nn::Sequential(torch::nn::Linear(3, 4), torch::nn::BatchNorm1d(4)));
  }
  torch::nn::Sequential layers{nullptr};
};

struct buffered : torch::nn::Module {
  explicit buffered(const at::Tensor& mean) {
    if (mean.defined()) register_buffer("mean", mean);
  }
  at::Tensor weight = register_parameter("weight", torch::randn({3}));
};

}  // namespace

TEST_CASE("polyak_update: the target is the running mean of its source, matched by name, in place "
          "and without a graph",
          "[polyak]") {
  torch::manual_seed(1);
  torch::nn::Linear target(3, 2), source(3, 2);
  const auto storage = target->weight.data_ptr();
  auto weight = target->weight.detach().to(at::kDouble),
       bias = target->bias.detach().to(at::kDouble);
  for (int step = 0; step < 3; ++step) {
    retain::polyak_update(target, source, 0.1);
    weight = 0.9 * weight + 0.1 * source->weight.detach();
    bias = 0.9 * bias + 0.1 * source->bias.detach();
  }
  CHECK(support::relative_error(target->weight.detach(), weight) < 1e-6);
  CHECK(support::relative_error(target->bias.detach(), bias) < 1e-6);
  CHECK(target->weight.data_ptr() == storage);
  CHECK(target->weight.is_leaf());
  CHECK(target->weight.requires_grad());

  // Another order of the names is the same update.
  const std::vector<retain::named_tensor> reversed{{"bias", source->bias},
                                                   {"weight", source->weight}};
  torch::nn::Linear other(3, 2);
  retain::polyak_update(other, target, 1);
  retain::polyak_update(other, reversed, 0.25);
  retain::polyak_update(target, source, 0.25);
  CHECK(other->weight.equal(target->weight));
  CHECK(other->bias.equal(target->bias));
}

TEST_CASE("polyak_update: a graph that holds the target's weights is told that they moved; types "
          "and large weights are no different",
          "[polyak]") {
  torch::manual_seed(3);
  for (const std::int64_t width : {3, 300}) {
    torch::nn::Linear target(width, width), source(width, width), exact(width, width);
    retain::polyak_update(exact, target, 1);
    exact->to(at::kDouble);
    const auto x = torch::randn({2, width}).requires_grad_();
    const auto held = target->forward(x).sum();
    retain::polyak_update(target, source, 0.25);
    retain::polyak_update(exact, source, 0.25);
    CHECK_THROWS_WITH(held.backward(), ContainsSubstring("modified by an inplace operation"));
    CHECK(support::relative_error(target->weight.detach(), exact->weight.detach()) < 1e-6);
  }
}

TEST_CASE("polyak_update: half types are moved too, to their precision", "[polyak]") {
  torch::manual_seed(4);
  for (const auto type : {at::kHalf, at::kBFloat16}) {
    torch::nn::Linear target(30, 20), source(30, 20), wide(30, 20);
    for (auto* layer : {&target, &source}) (*layer)->to(type);
    const double tolerance = type == at::kHalf ? 0x1p-11 : 0x1p-8;
    for (const torch::nn::Linear& from : {source, wide}) {
      const auto expected =
          (target->weight.to(at::kDouble) * 0.75 + from->weight.to(at::kDouble) * 0.25).detach();
      retain::polyak_update(target, from, 0.25);
      CHECK(target->weight.scalar_type() == type);
      CHECK(target->weight.requires_grad());
      CHECK(support::relative_error(target->weight.detach(), expected) < tolerance);
    }
    retain::polyak_update(target, source, 1);
    CHECK(target->weight.equal(source->weight));
  }
}

TEST_CASE("polyak_update: buffers are copied, frozen targets are moved", "[polyak]") {
  torch::manual_seed(2);
  auto target = std::make_shared<normalized_net>(), source = std::make_shared<normalized_net>();
  for (auto& parameter : target->parameters()) parameter.requires_grad_(false);
  source->layers->forward(torch::randn({16, 3}));
  const auto expected = (target->parameters()[0] * 0.5 + source->parameters()[0] * 0.5).detach();
  retain::polyak_update(*target, *source, 0.5);
  CHECK(at::allclose(target->parameters()[0], expected));
  CHECK(!target->parameters()[0].requires_grad());
  for (const auto& buffer : source->named_buffers())
    CHECK(target->named_buffers()[buffer.key()].equal(buffer.value()));
}

TEST_CASE("polyak_update: what does not belong together is named and nothing moves", "[polyak]") {
  torch::nn::Linear target(3, 2), source(3, 2);
  const auto before = target->weight.detach().clone();
  const auto with = [&](std::vector<retain::named_tensor> list) {
    retain::polyak_update(target, list, 0.5);
  };
  CHECK_THROWS_WITH(with({{"weight", source->weight}}), ContainsSubstring("'bias'"));
  CHECK_THROWS_WITH(with({{"weight", source->weight}, {"bias", torch::zeros({3})}}),
                    ContainsSubstring("[2]") && ContainsSubstring("[3]"));
  CHECK_THROWS_WITH(
      with({{"weight", source->weight}, {"bias", source->bias}, {"scale", torch::zeros({})}}),
      ContainsSubstring("'scale'"));
  for (const double tau : {1.5, -0.1, std::nan("")})
    CHECK_THROWS_AS(retain::polyak_update(target, source, tau), retain::config_error);
  CHECK(target->weight.equal(before));

  const buffered normalized(torch::zeros({3})), plain{at::Tensor()}, wider(torch::zeros({4}));
  const auto weight = normalized.weight.detach().clone();
  CHECK_THROWS_WITH(retain::polyak_update(normalized, plain, 0.5),
                    ContainsSubstring("the target's 'mean' [3]"));
  CHECK_THROWS_WITH(retain::polyak_update(plain, normalized, 0.5),
                    ContainsSubstring("the source's 'mean'"));
  CHECK_THROWS_AS(retain::polyak_update(normalized, plain, 0.5), retain::state_error);
  CHECK_THROWS_AS(retain::polyak_update(normalized, wider, 0.5), retain::shape_error);
  CHECK_THROWS_WITH(retain::polyak_update(normalized, wider, 1),
                    ContainsSubstring("[3]") && ContainsSubstring("[4]"));
  CHECK(normalized.weight.equal(weight));
}

TEST_CASE("polyak_update: a target that is its source is refused", "[polyak]") {
  torch::nn::Linear critic(2, 2);
  const auto same = critic;
  const auto before = critic->weight.detach().clone();
  CHECK_THROWS_AS(retain::polyak_update(*same, *critic, 0.5), retain::config_error);
  CHECK(critic->weight.equal(before));
  const auto copy = std::dynamic_pointer_cast<torch::nn::LinearImpl>(critic->clone());
  CHECK_NOTHROW(retain::polyak_update(*copy, *critic, 0.5));
}

namespace {

struct pair_net : torch::nn::Cloneable<pair_net> {
  pair_net() { reset(); }
  void reset() override {
    first = register_module("first", std::make_shared<normalized_net>());
    second = register_module("second", std::make_shared<normalized_net>());
  }
  std::shared_ptr<normalized_net> first, second;
};

}  // namespace

TEST_CASE(
    "polyak_update: a module that was tied after it was made moves both parts of its own clone",
    "[polyak]") {
  torch::manual_seed(5);
  const auto source = std::make_shared<pair_net>();
  source->second =
      std::dynamic_pointer_cast<normalized_net>(source->replace_module("second", source->first));
  const auto target = std::dynamic_pointer_cast<pair_net>(source->clone());
  const auto weight = [](const std::shared_ptr<normalized_net>& net) {
    return net->named_parameters()["layers.0.weight"].detach();
  };
  REQUIRE_FALSE(weight(target->first).is_same(weight(target->second)));
  const auto before = weight(source->first).clone();
  {
    const at::NoGradGuard no_grad;
    for (auto& [name, tensor] : retain::parameters(source)) tensor.add_(1);
    source->named_buffers()["first.layers.1.running_mean"].add_(1);
  }
  retain::polyak_update(target, source, 0.5);
  CHECK(weight(target->first).allclose(before + 0.5));
  CHECK(weight(target->second).allclose(before + 0.5 * (weight(source->first) - before)));
  for (const auto* name : {"first.layers.1.running_mean", "second.layers.1.running_mean"})
    CHECK(target->named_buffers()[name].equal(
        source->named_buffers()["first.layers.1.running_mean"]));
  retain::polyak_update(target, source, 1);
  CHECK(weight(target->second).equal(weight(source->first)));
  // What is tied in the target and not in the source is no copy of it.
  CHECK_THROWS_AS(retain::polyak_update(source, target, 0.5), retain::state_error);
}

}  // namespace polyak_test
