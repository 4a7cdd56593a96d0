// SPDX-License-Identifier: MIT
#include <retain/interpolation.hpp>

#include <map>

#include "support.hpp"

namespace interpolation_test {

namespace {

struct net : torch::nn::Module {
  net() {
    body = register_module(
        "body", torch::nn::Sequential(torch::nn::Linear(3, 4), torch::nn::BatchNorm1d(4)));
    head = register_module("head", torch::nn::Linear(4, 2));
  }
  at::Tensor forward(const at::Tensor& x) { return head->forward(body->forward(x)); }
  torch::nn::Sequential body{nullptr};
  torch::nn::Linear head{nullptr};
};

std::map<std::string, at::Tensor> by_name(const retain::parameter_list& list) {
  std::map<std::string, at::Tensor> map;
  for (const auto& [name, tensor] : list) map.emplace(name, tensor);
  return map;
}

}  // namespace

TEST_CASE("interpolation: the formula, exact at both ends and where the models agree",
          "[interpolation]") {
  torch::manual_seed(1);
  auto model = std::make_shared<net>();
  model->forward(torch::randn({8, 3}));
  const auto origin = retain::snapshot(*model);
  {
    const at::NoGradGuard no_grad;
    for (const auto& p : model->named_parameters())
      if (p.key() != "body.0.weight")  // as if that one had been frozen
        p.value().add_(torch::randn_like(p.value()));
  }
  model->forward(torch::randn({8, 3}) * 3 + 1);
  model->forward(torch::randn({8, 3}) * 3 + 1);
  const auto learned = by_name(retain::snapshot(*model)), before = by_name(origin);
  for (const double alpha : {0.0, 0.3, 0.8, 1.0}) {
    const auto mixed = by_name(retain::interpolated(*model, origin, {.fine_tuned = alpha}));
    CHECK(mixed.size() == learned.size());
    for (const auto& [name, tensor] : mixed) {
      CHECK(!tensor.requires_grad());
      if (name == "body.1.num_batches_tracked" || alpha == 1)
        CHECK(tensor.equal(learned.at(name)));
      else if (alpha == 0 || name == "body.0.weight")
        CHECK(tensor.equal(before.at(name)));
      else
        CHECK(
            tensor.allclose(learned.at(name) * alpha + before.at(name) * (1 - alpha), 1e-5, 1e-6));
    }
  }
  for (const auto& [name, tensor] : by_name(retain::snapshot(*model)))
    CHECK(tensor.equal(learned.at(name)));
}

TEST_CASE("interpolation: written into the model, what is excluded stays as fine-tuned",
          "[interpolation]") {
  torch::manual_seed(2);
  auto model = std::make_shared<net>();
  const auto origin = retain::snapshot(model);
  {
    const at::NoGradGuard no_grad;
    for (auto& p : model->parameters()) p.add_(1);
  }
  const auto learned = by_name(retain::snapshot(*model));
  auto* const weight = model->head->weight.data_ptr();
  retain::interpolate(*model, origin, {.fine_tuned = 0.25, .exclude = {"head.bias", "*running*"}});
  const auto now = by_name(retain::snapshot(*model)), before = by_name(origin);
  CHECK(now.at("head.weight").allclose(before.at("head.weight") + 0.25));
  CHECK(now.at("head.bias").equal(learned.at("head.bias")));
  CHECK(model->head->weight.data_ptr() == weight);  // the optimizer's tensors are the model's still
  CHECK(model->head->weight.requires_grad());
}

TEST_CASE(
    "interpolation: between linear models, outputs lie between too; half types and bare tensors",
    "[interpolation]") {
  torch::nn::Linear a(3, 2), b(3, 2);
  const auto x = torch::randn({5, 3});
  const auto expected = a->forward(x) * 0.6 + b->forward(x) * 0.4;
  retain::interpolate(a, b, {.fine_tuned = 0.6});
  CHECK(a->forward(x).allclose(expected, 1e-5, 1e-6));
  const auto half = retain::interpolated(std::vector<at::Tensor>{torch::full({1}, 1.0, at::kHalf)},
                                         std::vector<at::Tensor>{torch::full({1}, 2.0)});
  CHECK(half[0].tensor.scalar_type() == at::kHalf);
  CHECK(half[0].tensor.item<double>() == 1.5);
}

TEST_CASE("interpolation: what does not belong together is refused before anything is written",
          "[interpolation]") {
  auto model = std::make_shared<net>();
  const auto origin = retain::snapshot(*model);
  CHECK_THROWS_WITH(retain::interpolated(*model, origin, {.fine_tuned = 1.5}),
                    ContainsSubstring("[0, 1]"));
  CHECK_THROWS_WITH(retain::interpolate(*model, *model), ContainsSubstring("snapshot()"));
  auto fewer = origin;
  fewer.erase(fewer.begin() + 4);  // head.weight
  CHECK_THROWS_WITH(retain::interpolate(*model, fewer),
                    ContainsSubstring("'head.weight' [2, 4] is not in the pre-trained"));
  CHECK_NOTHROW(retain::interpolated(*model, fewer, {.exclude = {"head.*"}}));
  auto more = origin;
  more.push_back({"old_head.weight", torch::zeros({7})});
  CHECK_THROWS_WITH(retain::interpolate(*model, more),
                    ContainsSubstring("'old_head.weight' [7] is not in the fine-tuned"));
  auto other = origin;
  other[5].tensor = torch::zeros({3});
  {
    const at::NoGradGuard no_grad;
    for (auto& p : model->parameters()) p.add_(1);
  }
  const auto before = by_name(retain::snapshot(*model));
  CHECK_THROWS_WITH(retain::interpolate(*model, other),
                    ContainsSubstring("'head.bias' has shape [2]") && ContainsSubstring("[3]"));
  for (const auto& [name, tensor] : by_name(retain::snapshot(*model)))
    CHECK(tensor.equal(before.at(name)));
}

TEST_CASE("interpolation: one model twice is refused, whatever is excluded; excluding all of it "
          "leaves it as it is",
          "[interpolation]") {
  torch::nn::Linear model(2, 2);
  CHECK_THROWS_AS(retain::interpolate(*model, *model, {.fine_tuned = 0.5, .exclude = {"bias"}}),
                  retain::config_error);
  CHECK_NOTHROW(retain::interpolate(*model, *model, {.fine_tuned = 0.5, .exclude = {"*"}}));
}

TEST_CASE("interpolation: a graph that holds a weight is told that it was written to",
          "[interpolation]") {
  torch::nn::Linear model(3, 2);
  const auto origin = retain::snapshot(*model);
  const auto v = torch::randn({2, 3}).requires_grad_();
  const auto y = (model->weight * v).sum();
  retain::interpolate(*model, origin);
  CHECK_THROWS_WITH(y.backward(), ContainsSubstring("modified by an inplace operation"));
}

}  // namespace interpolation_test
