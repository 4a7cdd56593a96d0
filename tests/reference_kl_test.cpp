// SPDX-License-Identifier: MIT
#include <retain/compose.hpp>
#include <retain/kickstarting.hpp>
#include <retain/reference_kl.hpp>

#include "support.hpp"

namespace reference_kl_test {

using retain::categorical;
using retain::kl_estimator;

namespace {

struct rollout {
  at::Tensor observations, actions;
};
struct stored_rollout {
  at::Tensor observations, actions, reference_log_probs;
};
struct masked_rollout {
  at::Tensor observations, actions, mask;
};
const auto identity = [](const at::Tensor& logits) { return categorical{logits}; };
static_assert(
    retain::output_term<retain::reference_kl<decltype(identity)>, decltype(identity), rollout>);
static_assert(retain::stateful<retain::reference_kl<retain::stored_reference>>);

/// One row, four actions: every one can be enumerated.
struct enumeration {
  at::Tensor logits = torch::tensor({0.3, -1.0, 0.8, 0.1}, at::kDouble).requires_grad_();
  at::Tensor reference = torch::log_softmax(torch::tensor({-0.2, 0.5, 0.4, -1.5}, at::kDouble), 0);

  at::Tensor probs() const { return torch::softmax(logits, 0).detach(); }
  /// E over a ~ pi of the estimate, and of its gradient.
  double mean(kl_estimator k) const {
    return (probs() *
            retain::reference_kl_estimate(torch::log_softmax(logits, 0).detach(), reference, k))
        .sum()
        .item<double>();
  }
  at::Tensor mean_gradient(kl_estimator k) {
    logits.mutable_grad() = at::Tensor();
    (probs() * retain::reference_kl_estimate(torch::log_softmax(logits, 0), reference, k))
        .sum()
        .backward();
    return logits.grad().clone();
  }
  at::Tensor gradient_of(const std::function<at::Tensor()>& divergence) {
    logits.mutable_grad() = at::Tensor();
    divergence().backward();
    return logits.grad().clone();
  }
};

}  // namespace

TEST_CASE("reference KL: the estimates by hand", "[reference_kl]") {
  const auto own = torch::log(torch::tensor({0.5, 0.2}, at::kDouble)),
             reference = torch::log(torch::tensor({0.25, 0.4}, at::kDouble));
  const auto k = [&](kl_estimator e) { return retain::reference_kl_estimate(own, reference, e); };
  const double log2 = std::log(2.0);
  CHECK(k(kl_estimator::k1).allclose(torch::tensor({log2, -log2}, at::kDouble)));
  CHECK(k(kl_estimator::k2).allclose(torch::full({2}, log2 * log2 / 2, at::kDouble)));
  CHECK(k(kl_estimator::k3).allclose(torch::tensor({0.5 - 1 + log2, 2 - 1 - log2}, at::kDouble)));
  CHECK_THROWS_AS(retain::reference_kl_estimate(own, reference.unsqueeze(0), kl_estimator::k1),
                  retain::shape_error);
}

TEST_CASE("reference KL: means and mean gradients by enumeration: k1 pulls nowhere, k2 is KL(pi || "
          "pi*), k3 the other way round",
          "[reference_kl]") {
  enumeration e;
  const categorical pi{e.logits}, star{e.reference};
  const double truth = kl(pi, star).item<double>();
  CHECK(e.mean(kl_estimator::k1) == Approx(truth));
  CHECK(e.mean(kl_estimator::k3) == Approx(truth));
  CHECK(std::abs(e.mean(kl_estimator::k2) - truth) > 1e-3 * truth);

  const auto reverse = e.gradient_of([&] { return kl(categorical{e.logits}, star); });
  const auto forward = e.gradient_of([&] { return kl(star, categorical{e.logits}); });
  CHECK(support::relative_error(reverse, forward) > 0.1);
  CHECK(e.mean_gradient(kl_estimator::k1).abs().max().item<double>() < 1e-15);
  CHECK(support::relative_error(e.mean_gradient(kl_estimator::k2), reverse) < 1e-12);
  CHECK(support::relative_error(e.mean_gradient(kl_estimator::k3), forward) < 1e-12);

  // As a penalty on the reward, by the score function: the gradient of KL(pi || pi*) with k1, and
  // with k3 too.
  for (const auto k : {kl_estimator::k1, kl_estimator::k3}) {
    const auto penalty =
        retain::reference_kl_estimate(torch::log_softmax(e.logits, 0).detach(), e.reference, k);
    const auto through_reward = e.gradient_of(
        [&] { return (e.probs() * penalty * torch::log_softmax(e.logits, 0)).sum(); });
    const bool same = support::relative_error(through_reward, reverse) < 1e-12;
    CHECK(same == (k == kl_estimator::k1));
  }
}

TEST_CASE("reference KL: the loss is c times the mean estimate, its gradient by finite differences",
          "[reference_kl]") {
  torch::manual_seed(1);
  const auto x = torch::randn({6, 4}, at::kDouble);
  const auto actions = torch::randint(0, 4, {6}, at::kLong);
  auto offset = torch::randn({4}, at::kDouble).requires_grad_();
  const auto student = [&](const at::Tensor& o) { return categorical{o + offset}; };
  for (const auto k : {kl_estimator::k2, kl_estimator::k3}) {
    retain::reference_kl keep{identity, {.strength = 2.5, .estimator = k}};
    const auto loss = keep.loss(student, rollout{x, actions});
    const auto expected = retain::reference_kl_estimate(student(x).log_prob(actions),
                                                        categorical{x}.log_prob(actions), k)
                              .mean();
    CHECK(loss.item<double>() == Approx(2.5 * expected.item<double>()));
    CHECK(keep.last_divergence().item<double>() == Approx(expected.item<double>()));
    offset.mutable_grad() = at::Tensor();
    loss.backward();
    const auto numeric = support::finite_differences(
        offset, [&] { return keep.loss(student, rollout{x, actions}).item<double>(); });
    CHECK(support::relative_error(offset.grad(), numeric) < 1e-8);

    // What the reference said may be stored, and nobody asked any more.
    retain::reference_kl stored{retain::stored_reference{}, {.strength = 2.5, .estimator = k}};
    CHECK(stored
              .loss(student,
                    stored_rollout{x, actions, keep.reference_log_probs(rollout{x, actions})})
              .equal(loss));
  }
}

TEST_CASE("reference KL: sampled actions estimate what kickstarting's reverse direction computes",
          "[reference_kl]") {
  torch::manual_seed(2);
  const auto row = torch::tensor({{0.5, -0.3, 0.1}}, at::kDouble);
  const auto x = row.expand({20000, 3});
  const auto student = [](const at::Tensor& o) {
    return categorical{o * torch::tensor({1.0, -2.0, 0.5}, at::kDouble)};
  };
  const auto actions = student(x).sample();
  retain::reference_kl keep{identity, {.estimator = kl_estimator::k3}};
  retain::kickstarting whole{identity, {.direction = retain::divergence::student_teacher}};
  const double estimate = keep.loss(student, rollout{x, actions}).item<double>();
  const auto each = retain::reference_kl_estimate(
      student(x).log_prob(actions), categorical{x}.log_prob(actions), kl_estimator::k3);
  const double standard_error = each.std().item<double>() / std::sqrt(20000.0);
  CHECK(std::abs(estimate - whole.loss(student, rollout{row, {}}).item<double>()) <
        4 * standard_error);
}

TEST_CASE("reference KL: padding counts neither in value nor in gradient, whatever stands in it",
          "[reference_kl]") {
  torch::manual_seed(3);
  auto x = torch::randn({2, 3, 4}, at::kDouble);
  const auto actions = torch::randint(0, 4, {2, 3}, at::kLong);
  auto mask = torch::ones({2, 3});
  mask[1][2] = 0;
  x[1][2].fill_(std::nan(""));
  auto offset = torch::randn({4}, at::kDouble).requires_grad_();
  const auto student = [&](const at::Tensor& o) { return categorical{o + offset}; };
  retain::reference_kl keep{identity};
  const auto loss = keep.loss(student, masked_rollout{x, actions, mask});
  const auto kept = mask.to(at::kBool);
  CHECK(loss.item<double>() ==
        Approx(keep.loss(student, rollout{x.index({kept}), actions.index({kept})}).item<double>()));
  loss.backward();
  CHECK(at::isfinite(offset.grad()).all().item<bool>());
  CHECK_THROWS_AS(keep.loss(student, masked_rollout{x, actions, mask[0]}), retain::shape_error);
  CHECK(keep.loss(student, rollout{torch::zeros({0, 4}, at::kDouble), torch::zeros({0}, at::kLong)})
            .item<double>() == 0);
}

TEST_CASE("reference KL: masks that do not belong together are refused, not broadcast",
          "[reference_kl]") {
  const auto x = torch::zeros({2, 3, 4}), actions = torch::zeros({2, 3}, at::kLong);
  const auto masked = [](const at::Tensor& o) {
    return retain::masked<categorical>{categorical{o}, torch::ones({2, 3})};
  };
  retain::reference_kl plain{identity};
  retain::reference_kl padded{masked};
  for (const auto& mask : {torch::ones({3}), torch::ones({1}), torch::ones({2, 1})}) {
    const masked_rollout rolled{x, actions, mask};
    CHECK_THROWS_AS(plain.loss(identity, rolled), retain::shape_error);
    CHECK_THROWS_WITH(plain.loss(masked, rolled),
                      ContainsSubstring("reference_kl: masks of shapes [2, 3] and") &&
                          ContainsSubstring("do not belong together"));
    CHECK_THROWS_AS(padded.loss(masked, rolled), retain::shape_error);
    CHECK_THROWS_AS(padded.reference_log_probs(rolled), retain::shape_error);
  }
  const auto narrow = [](const at::Tensor& o) {
    return retain::masked<categorical>{categorical{o}, torch::ones({3})};
  };
  retain::reference_kl other{narrow};
  CHECK_THROWS_WITH(other.loss(masked, rollout{x, actions}), ContainsSubstring("[2, 3] and [3]"));
  CHECK(padded.loss(masked, masked_rollout{x, actions, torch::ones({2, 3})}).item<double>() == 0);
}

TEST_CASE("reference KL: k1 is refused with the reason, strength 0 asks nobody", "[reference_kl]") {
  CHECK_THROWS_WITH((retain::reference_kl{identity, {.estimator = kl_estimator::k1}}),
                    ContainsSubstring("zero") && ContainsSubstring("k2"));
  const auto nobody = [](const at::Tensor& o) -> categorical {
    FAIL("asked at strength 0");
    return categorical{o};
  };
  retain::reference_kl keep{nobody, {.strength = 0.0}};
  CHECK(keep.loss(nobody, rollout{torch::zeros({1, 2}), torch::zeros({1}, at::kLong)})
            .item<double>() == 0);
}

TEST_CASE("reference KL: composed with others, saved with its teacher and resumed",
          "[reference_kl]") {
  const support::temporary_folder folder;
  torch::manual_seed(4);
  const auto make = [](const torch::nn::Linear& net) {
    return retain::compose(
        retain::reference_kl{retain::teacher{net},
                             {.strength = retain::linear{.initial = 1, .last = 0, .over = 4}}},
        retain::reference_kl{retain::teacher{net}, {.estimator = kl_estimator::k3}});
  };
  auto keep = make(torch::nn::Linear(3, 2));
  keep.step(1);
  retain::save(folder.file("r"), keep);
  auto resumed = make(torch::nn::Linear(3, 2));
  const rollout r{torch::randn({5, 3}), torch::randint(0, 2, {5}, at::kLong)};
  const auto student = [](const at::Tensor& o) { return categorical{o.narrow(1, 0, 2)}; };
  CHECK(!resumed.loss(student, r).equal(keep.loss(student, r)));
  retain::load(folder.file("r"), resumed);
  CHECK(resumed.loss(student, r).equal(keep.loss(student, r)));
  CHECK(resumed.breakdown().at(0).strength == 0.75);
}

TEST_CASE("reference KL: padding need not be an action, and the reference's own padding counts too",
          "[reference_kl]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto observations = torch::tensor({{0.5, -0.5}, {0.1, 0.2}, {0.3, 0.1}}, at::kDouble);
  const masked_rollout rolled{observations, torch::tensor({0, -1, 1}), torch::tensor({1, 0, 1})};
  const auto reference = [&](const at::Tensor&) {
    return retain::masked<categorical>{
        categorical{torch::tensor({{0.0, 1.0}, {0.0, 0.0}, {nan, nan}}, at::kDouble)},
        torch::tensor({1, 1, 0})};
  };
  retain::reference_kl term{reference, {.strength = 1.0, .estimator = kl_estimator::k3}};
  const auto expected = retain::reference_kl_estimate(
      categorical{observations.narrow(0, 0, 1)}.log_prob(torch::tensor({0})),
      categorical{torch::tensor({{0.0, 1.0}}, at::kDouble)}.log_prob(torch::tensor({0})),
      kl_estimator::k3);
  CHECK(term.loss(identity, rolled).item<double>() == Approx(expected.item<double>()));
}

TEST_CASE("reference KL: k3 of an action that the policy hardly takes any more is large, not "
          "infinite, and has no gradient") {
  for (const double far : {-89.0, -300.0}) {
    const auto own = torch::tensor({static_cast<float>(far), -1.0f}).requires_grad_(),
               reference = torch::tensor({0.0f, -1.5f});
    const auto estimates = retain::reference_kl_estimate(own, reference, kl_estimator::k3);
    CHECK(estimates[0].item<double>() == Approx(std::exp(20.0) - 21));
    estimates.mean().backward();
    CHECK(own.grad()[0].item<double>() == 0);
    CHECK(own.grad()[1].item<double>() == Approx((1 - std::exp(-0.5)) / 2));
  }
}

}  // namespace reference_kl_test
