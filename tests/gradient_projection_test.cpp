// SPDX-License-Identifier: MIT
#include <retain/gradient_projection.hpp>

#include "support.hpp"

namespace gradient_projection_test {

namespace {

using model = std::vector<at::Tensor>;

model make(at::ScalarType type = at::kDouble) {
  return {torch::randn({3, 2}, type).requires_grad_(), torch::randn({4}, type).requires_grad_()};
}
void set_gradients(model& m, const at::Tensor& flat) {
  std::int64_t at = 0;
  for (auto& p : m) {
    p.mutable_grad() = flat.narrow(0, at, p.numel()).view(p.sizes()).to(p.scalar_type()).clone();
    at += p.numel();
  }
}
at::Tensor gradients(const model& m) {
  std::vector<at::Tensor> flat;
  for (const auto& p : m) flat.push_back(p.grad().reshape({-1}));
  return torch::cat(flat);
}

}  // namespace

static_assert(retain::stateful<retain::gradient_projection>);

TEST_CASE("gradient projection: against the literal formula over all parameters at once",
          "[gradient_projection]") {
  torch::manual_seed(1);
  auto m = make();
  int projected = 0;
  for (int i = 0; i < 20; ++i) {
    const auto reference = torch::randn({10}, at::kDouble), g = torch::randn({10}, at::kDouble);
    retain::gradient_projection guard;
    set_gradients(m, reference);
    guard.store_reference(m);
    set_gradients(m, g);
    const auto dot = guard.project(m);
    const double expected = g.dot(reference).item<double>();
    CHECK(dot.scalar_type() == at::kDouble);
    CHECK(dot.item<double>() == Approx(expected));
    if (expected >= 0) {
      CHECK(gradients(m).equal(g));
    } else {
      ++projected;
      CHECK(support::relative_error(
                gradients(m),
                g - reference * (expected / reference.dot(reference).item<double>())) < 1e-14);
      CHECK(std::abs(gradients(m).dot(reference).item<double>()) < 1e-13);
    }
  }
  CHECK(projected > 3);
  CHECK(projected < 17);
}

TEST_CASE("gradient projection: keeps a loss from rising that plain descent would raise",
          "[gradient_projection]") {
  // Minimizing |w - (1, 1)|^2 from the origin would raise the pre-training loss 3 w_0 - w_1.
  const auto train = [](bool guarded) {
    model m{torch::zeros({2}, at::kDouble).requires_grad_()};
    const auto kept = [&] { return m[0][0] * 3 - m[0][1]; };
    retain::gradient_projection guard;
    for (int i = 0; i < 50; ++i) {
      m[0].mutable_grad() = at::Tensor();
      kept().backward();
      guard.store_reference(m);
      m[0].mutable_grad() = at::Tensor();
      (m[0] - 1).square().sum().backward();
      if (guarded) guard.project(m);
      const at::NoGradGuard no_grad;
      m[0].sub_(m[0].grad(), 0.05);
    }
    return kept().item<double>();
  };
  CHECK(train(false) > 1.9);
  CHECK(train(true) <= 1e-12);
}

TEST_CASE("gradient projection: a tolerance on the angle", "[gradient_projection]") {
  model m{torch::zeros({2}, at::kDouble).requires_grad_()};
  // cosine -0.0995
  const auto reference = torch::tensor({1.0, 0.0}, at::kDouble),
             g = torch::tensor({-0.1, 1.0}, at::kDouble);
  for (const double tolerance : {0.0, 0.09, 0.11}) {
    retain::gradient_projection guard{{.tolerance = tolerance}};
    set_gradients(m, reference);
    guard.store_reference(m);
    set_gradients(m, g);
    guard.project(m);
    CHECK(m[0].grad().equal(g) == (tolerance == 0.11));
  }
}

TEST_CASE(
    "gradient projection: undefined, frozen and excluded gradients take no part and none is made",
    "[gradient_projection]") {
  const auto parameter = [](double value) {
    return torch::full({1}, value, at::kDouble).requires_grad_();
  };
  retain::parameter_list m{{"a", parameter(1)},
                           {"b", parameter(1)},
                           {"frozen", parameter(1)},
                           {"head.w", parameter(1)},
                           {"late", parameter(1)}};
  const auto set = [&](std::vector<double> values) {
    for (std::size_t i = 0; i < m.size(); ++i)
      m[i].tensor.mutable_grad() =
          std::isnan(values[i]) ? at::Tensor() : torch::full({1}, values[i], at::kDouble);
  };
  const double none = std::nan("");
  retain::gradient_projection guard{{.exclude = {"head.*"}}};
  set({1, 2, 5, 5, none});
  guard.store_reference(m);
  set({-3, none, -7, -8, -9});
  m[2].tensor.requires_grad_(false);
  CHECK(guard.project(m).item<double>() == -3);
  CHECK(m[0].tensor.grad().item<double>() == 0);
  CHECK(!m[1].tensor.grad().defined());
  CHECK(m[2].tensor.grad().item<double>() == -7);
  CHECK(m[3].tensor.grad().item<double>() == -8);
  CHECK(m[4].tensor.grad().item<double>() == -9);
}

TEST_CASE("gradient projection: half types, sparse gradients, a reference of zeros, NaN",
          "[gradient_projection]") {
  auto half = make(at::kHalf);
  // the products overflow half
  const auto reference = torch::full({10}, 300.0), g = torch::full({10}, -300.0);
  retain::gradient_projection guard;
  set_gradients(half, reference);
  guard.store_reference(half);
  set_gradients(half, g);
  CHECK(guard.project(half).item<double>() == -900000);
  CHECK(gradients(half).abs().max().item<double>() == 0);

  torch::nn::Embedding table(torch::nn::EmbeddingOptions(5, 2).sparse(true));
  table->forward(torch::tensor({1, 2})).sum().backward();
  guard.store_reference(*table);
  table->weight.mutable_grad() = at::Tensor();
  (-table->forward(torch::tensor({2, 3})).sum()).backward();
  CHECK(guard.project(*table).item<double>() == -2);
  CHECK((table->weight.grad() * torch::tensor({0.f, 1.f, 1.f, 0.f, 0.f}).unsqueeze(1))
            .sum()
            .item<double>() == Approx(0).margin(1e-6));

  auto m = make();
  set_gradients(m, torch::zeros({10}));
  guard.store_reference(m);
  set_gradients(m, torch::ones({10}));
  guard.project(m);
  CHECK(gradients(m).equal(torch::ones({10}, at::kDouble)));
  set_gradients(m, torch::full({10}, 2.0));
  guard.store_reference(m);
  set_gradients(m, torch::full({10}, std::nan("")));
  CHECK(std::isnan(guard.project(m).item<double>()));
}

TEST_CASE("gradient projection: saved and gone on with; errors say what to do",
          "[gradient_projection]") {
  const support::temporary_folder folder;
  torch::manual_seed(2);
  auto m = make();
  retain::gradient_projection guard, resumed;
  CHECK_THROWS_WITH(guard.store_reference(m), ContainsSubstring("backward()"));
  CHECK_THROWS_WITH(guard.project(m), ContainsSubstring("store_reference()"));
  const auto reference = torch::randn({10}, at::kDouble);
  set_gradients(m, reference);
  guard.store_reference(m);
  retain::save(folder.file("g"), guard);
  retain::load(folder.file("g"), resumed);
  set_gradients(m, -reference);
  guard.project(m);
  const auto projected = gradients(m);
  set_gradients(m, -reference);
  resumed.project(m);
  CHECK(gradients(m).equal(projected));
  model other{torch::zeros({2}).requires_grad_()};
  other[0].mutable_grad() = torch::ones({2});
  CHECK_THROWS_WITH(guard.project(other),
                    ContainsSubstring("'0' has shape [2]") && ContainsSubstring("[3, 2]"));
  CHECK(other[0].grad().equal(torch::ones({2})));
  CHECK_THROWS_AS((retain::gradient_projection{{.tolerance = 1}}), retain::config_error);
}

TEST_CASE("gradient projection: in half precision the share may be too large a number",
          "[gradient_projection]") {
  for (const auto type : {torch::kHalf, torch::kBFloat16}) {
    auto weight = torch::zeros({2}, type).requires_grad_();
    const std::vector<retain::named_tensor> model{{"weight", weight}};
    retain::gradient_projection projection;
    weight.mutable_grad() = torch::tensor({1e-4, 0.0}).to(type);
    projection.store_reference(model);
    weight.mutable_grad() = torch::tensor({-8.0, 1.0}).to(type);  // a share of -8e4
    projection.project(model);
    CHECK(torch::allclose(weight.grad().to(torch::kFloat), torch::tensor({0.0f, 1.0f}), 0, 0.05));
  }
}

TEST_CASE(
    "gradient_projection: a view has no gradient to project, and a state holds gradients only",
    "[gradient_projection]") {
  const std::vector<at::Tensor> weights{torch::randn({4}).requires_grad_()};
  weights[0].sum().backward();
  retain::gradient_projection guard;
  CHECK_THROWS_AS(guard.store_reference(std::vector<at::Tensor>{weights[0].narrow(0, 0, 2)}),
                  retain::config_error);
  guard.store_reference(weights);
  retain::state saved;
  guard.save_state(saved, "");
  saved.set("reference.0", torch::ones({4}, at::kLong));
  CHECK_THROWS_AS(guard.load_state(saved, ""), retain::state_error);
  CHECK(guard.project(weights).item<double>() == 4);
}

}  // namespace gradient_projection_test
