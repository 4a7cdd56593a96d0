// SPDX-License-Identifier: MIT
#include <retain/loss/sac_temperature.hpp>

#include <cmath>

#include "support.hpp"

namespace loss_sac_temperature_test {

using retain::sac_temperature;

static_assert(retain::parameter_source<sac_temperature>);
static_assert(retain::stateful<sac_temperature>);

namespace {

double alpha_at(const sac_temperature& t, std::int64_t k) { return t.alpha()[k].item<double>(); }
std::vector<at::Tensor> tensors(const sac_temperature& t) {
  return {t.named_parameters()[0].tensor};
}

}  // namespace

TEST_CASE("sac_temperature: the loss and its gradient, a stage at a time", "[sac]") {
  sac_temperature t(-2, 3, {.initial = {1.0, std::exp(1.0), 0.5}});
  const auto log_probs = torch::tensor({3.0f, 1.0f, 4.0f, 2.0f});
  const auto stage = torch::tensor({0, 1, 1, 0});
  const auto loss = t.loss(log_probs, stage);
  CHECK(loss.item<double>() == Approx(-(0 * 1 + 1 * (1 - 2) + 1 * (4 - 2) + 0 * 0) / 4.0));
  loss.backward();
  const auto gradient = tensors(t)[0].grad();
  CHECK(at::allclose(gradient, torch::tensor({-(1.0f + 0.0f) / 4, -(-1.0f + 2.0f) / 4, 0.0f})));
  CHECK(at::allclose(t.alpha(stage), torch::tensor({1.0f, std::exp(1.0f), std::exp(1.0f), 1.0f})));

  sac_temperature one(-2);
  CHECK(one.loss(log_probs).item<double>() == 0);  // log 1
  const auto several = torch::tensor({{0, 2}, {1, 1}});
  CHECK(t.alpha(several).sizes() == at::IntArrayRef({2, 2}));
  CHECK(at::allclose(t.alpha(several),
                     torch::tensor({{1.0f, 0.5f}, {std::exp(1.0f), std::exp(1.0f)}})));
  CHECK(t.alpha(torch::tensor(2)).dim() == 0);
  CHECK(t.alpha(torch::zeros({0}, at::kLong)).sizes() == at::IntArrayRef({0}));
  CHECK_THROWS_WITH(t.loss(log_probs), ContainsSubstring("3 stages"));
  CHECK_THROWS_WITH(t.loss(log_probs, torch::tensor({0, 1})),
                    ContainsSubstring("[4]") && ContainsSubstring("[2]"));
}

TEST_CASE("sac_temperature: add_gradient is what the loss's backward gives, bit for bit, and adds "
          "to what is there",
          "[sac]") {
  const auto stage = torch::tensor({0, 2, 2, 0, 2, 0, 0});
  const auto log_probs = torch::tensor({0.31f, -1.7f, 4.13f, 2.9f, -0.001f, 17.3f, 1e-3f});
  sac_temperature by_loss(-1.7, 3, {.cap = {0.5}}), direct(by_loss);
  for (int round = 0; round < 2; ++round) {
    by_loss.loss(log_probs, stage).backward();
    direct.add_gradient(log_probs, stage);
    CHECK(at::equal(tensors(direct)[0].grad(), tensors(by_loss)[0].grad()));
    CHECK(at::equal(tensors(direct)[0], tensors(by_loss)[0]));  // moved back below the cap, both
  }
  const auto before = tensors(direct)[0].grad().clone();
  direct.add_gradient(at::empty({0}), at::empty({0}, at::kLong));
  CHECK(at::equal(tensors(direct)[0].grad(), before));

  sac_temperature one(-2), same(one);
  one.loss(log_probs).backward();
  same.add_gradient(log_probs);
  CHECK(tensors(same)[0].grad().item<double>() == Approx(tensors(one)[0].grad().item<double>()));
  sac_temperature in_double(-2, 3), in_float(in_double);
  in_double.add_gradient(log_probs.to(at::kDouble), stage);
  in_float.add_gradient(log_probs, stage);
  CHECK(at::allclose(tensors(in_double)[0].grad(), tensors(in_float)[0].grad()));

  sac_temperature frozen(-2, 3);
  tensors(frozen)[0].set_requires_grad(false);
  frozen.add_gradient(log_probs, stage);
  CHECK_FALSE(tensors(frozen)[0].grad().defined());
  CHECK_THROWS_WITH(direct.add_gradient(log_probs), ContainsSubstring("3 stages"));
}

TEST_CASE("sac_temperature: of an empty batch the loss is 0, and so is its gradient", "[sac]") {
  sac_temperature one(-2, 1, {.initial = {3.0}}), three(-2, 3, {.initial = {3.0}});
  for (auto* t : {&one, &three}) {
    const auto loss = t->loss(at::empty({0}), t == &one ? at::Tensor() : at::empty({0}, at::kLong));
    CHECK(loss.item<double>() == 0);
    loss.backward();
    CHECK(tensors(*t)[0].grad().equal(at::zeros_like(tensors(*t)[0])));
  }
}

TEST_CASE(
    "sac_temperature: alpha rises while the entropy is too low and falls while it is too high",
    "[sac]") {
  sac_temperature t(-1, 2);
  torch::optim::Adam adam(tensors(t), torch::optim::AdamOptions(1e-2));
  for (int i = 0; i < 20; ++i) {
    adam.zero_grad();
    // entropies -5 and 5 for a target of -1
    t.loss(torch::tensor({5.0f, -5.0f}), torch::tensor({0, 1})).backward();
    adam.step();
  }
  CHECK(alpha_at(t, 0) > 1.1);
  CHECK(alpha_at(t, 1) < 0.9);
}

TEST_CASE("sac_temperature: a pinned policy cannot drive alpha beyond its cap, nor far behind it",
          "[sac]") {
  sac_temperature t(
      -1, 3, {.initial = {0.02, 0.02, 0.5}, .floor = {0.001, 0.001, 0.5}, .cap = {0.03, 1e6, 0.5}});
  torch::optim::SGD sgd(tensors(t), torch::optim::SGDOptions(1.0));
  const auto stage = torch::tensor({0, 1, 2});
  const auto push = [&](float log_prob) {
    sgd.zero_grad();
    t.loss(torch::full({3}, log_prob), stage).backward();
    sgd.step();
  };
  for (int i = 0; i < 10; ++i) push(4.0f);
  CHECK(alpha_at(t, 0) == Approx(0.03));
  CHECK(alpha_at(t, 1) == Approx(0.02 * std::exp(10.0)).epsilon(1e-4));
  CHECK(alpha_at(t, 2) == Approx(0.5));
  // one step the other way: log alpha falls by 1 from the cap, not from where ten steps would have
  // carried it
  push(-2.0f);
  CHECK(alpha_at(t, 0) == Approx(0.03 * std::exp(-1.0)).epsilon(1e-4));
  for (int i = 0; i < 30; ++i) push(-4.0f);
  CHECK(alpha_at(t, 0) == Approx(0.001));
  CHECK(alpha_at(t, 2) == Approx(0.5));
}

TEST_CASE("sac_temperature: copies learn apart; saved, loaded into the optimizer's own parameter "
          "and gone on with",
          "[sac]") {
  const support::temporary_folder folder;
  sac_temperature t(-1, 2, {.initial = {0.3}}), resumed(-1, 2), copy(t);
  torch::optim::SGD sgd(tensors(t), torch::optim::SGDOptions(0.1)),
      other(tensors(resumed), torch::optim::SGDOptions(0.1));
  const auto learn = [](sac_temperature& each, torch::optim::SGD& optimizer) {
    optimizer.zero_grad();
    each.loss(torch::tensor({3.0f, 2.0f}), torch::tensor({1, 0})).backward();
    optimizer.step();
  };
  learn(t, sgd);
  CHECK(alpha_at(copy, 0) == Approx(0.3));
  retain::state before;
  t.save_state(before, "");
  retain::save(folder.file("t"), t);
  retain::load(folder.file("t"), resumed);
  learn(t, sgd);
  learn(resumed, other);
  CHECK(resumed.alpha().equal(t.alpha()));
  t.load_state(before, "");
  CHECK(alpha_at(t, 0) < alpha_at(resumed, 0));
  sac_temperature three(-1, 3);
  CHECK_THROWS_AS(retain::load(folder.file("t"), three), retain::shape_error);
  retain::state in_double;
  in_double.set("log_alpha", torch::zeros({2}, at::kDouble));
  const auto kept = t.alpha();
  CHECK_THROWS_AS(t.load_state(in_double, ""), retain::state_error);
  for (const double bad : {std::nan(""), double(INFINITY), -double(INFINITY)}) {
    retain::state none;
    none.set("log_alpha", torch::full({2}, bad, at::kFloat));
    CHECK_THROWS_AS(t.load_state(none, ""), retain::state_error);
  }
  CHECK(t.alpha().equal(kept));
  copy = t;
  CHECK(copy.alpha().equal(t.alpha()));
  CHECK(!tensors(copy)[0].is_same(tensors(t)[0]));
}

TEST_CASE("sac_temperature: options out of their range are refused", "[sac]") {
  CHECK_THROWS_AS(sac_temperature(-1, 0), retain::config_error);
  CHECK_THROWS_AS(sac_temperature(std::nan("")), retain::config_error);
  CHECK_THROWS_WITH(sac_temperature(-1, 3, {.cap = {1, 2}}),
                    ContainsSubstring("cap has 2 values for 3 stages"));
  CHECK_THROWS_AS(sac_temperature(-1, 1, {.initial = {0.0}}), retain::config_error);
  CHECK_THROWS_WITH(sac_temperature(-1, 1, {.floor = {2.0}, .cap = {1.0}}),
                    ContainsSubstring("above its cap"));
  CHECK(sac_temperature(-1, 1, {.initial = {5}, .cap = {2}}).alpha().item<double>() == Approx(2));
}

TEST_CASE("sac_temperature: stages of any integral type; real ones are refused", "[sac]") {
  const auto log_probs = torch::randn({3}), stage = torch::tensor({1, 0, 1}, at::kLong);
  const auto run = [&](const at::Tensor& stages) {
    sac_temperature alpha(-1, 2, {.initial = {0.5, 2.0}});
    alpha.loss(log_probs, stages).backward();
    alpha.add_gradient(log_probs, stages);
    return std::pair{alpha.alpha(stages), alpha.named_parameters()[0].tensor.grad().clone()};
  };
  const auto expected = run(stage);
  for (const auto type : {at::kInt, at::kByte, at::kBool}) {
    const auto made = run(stage.to(type));
    CHECK(made.first.equal(expected.first));
    CHECK(made.second.equal(expected.second));
  }
  CHECK_THROWS_AS(run(stage.to(at::kFloat)), retain::config_error);
}

}  // namespace loss_sac_temperature_test
