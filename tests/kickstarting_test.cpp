// SPDX-License-Identifier: MIT
#include <retain/concepts.hpp>
#include <retain/kickstarting.hpp>

#include "support.hpp"

using retain::categorical;

namespace {

struct rollout {
  at::Tensor observations;
};
struct masked_rollout {
  at::Tensor observations, mask;
};
struct asked_rollout {
  at::Tensor observations;
  categorical teacher;
};
const auto identity = [](const at::Tensor& logits) { return categorical{logits}; };
using term = retain::kickstarting<decltype(identity)>;
static_assert(retain::distillation<term, decltype(identity), rollout>);
static_assert(!retain::distillation<at::Tensor, decltype(identity), rollout>);
static_assert(retain::policy<decltype(identity), at::Tensor>);
static_assert(!retain::policy<decltype([](const at::Tensor&) { return 1; }), at::Tensor>);

}  // namespace

TEST_CASE("kickstarting: the value is c times the mean KL, its gradient against finite differences", "[kickstarting]") {
  torch::manual_seed(1);
  const auto observations = torch::randn({6, 4}, at::kDouble);
  auto offset = torch::randn({4}, at::kDouble).requires_grad_();
  const auto student = [&](const at::Tensor& x) { return categorical{x + offset}; };
  for (const auto direction : {retain::divergence::teacher_student, retain::divergence::student_teacher}) {
    term keep{identity, {.strength = 2.5, .direction = direction}};
    const categorical t{observations}, s{(observations + offset).detach()};
    const double expected = 2.5 * (direction == retain::divergence::teacher_student ? kl(t, s) : kl(s, t)).mean().item<double>();
    CHECK(keep.loss(student, rollout{observations}).item<double>() == Approx(expected));
    CHECK(keep.last_divergence().item<double>() == Approx(expected / 2.5));
    offset.mutable_grad() = at::Tensor();
    keep.loss(student, rollout{observations}).backward();
    const auto numeric = support::finite_differences(offset, [&] { return keep.loss(student, rollout{observations}).item<double>(); });
    CHECK(support::relative_error(offset.grad(), numeric) < 1e-8);
  }
}

TEST_CASE("kickstarting: padded steps count neither in value nor in gradient", "[kickstarting]") {
  torch::manual_seed(2);
  const auto observations = torch::randn({5, 3, 4}, at::kDouble);
  auto mask = torch::ones({5, 3});
  mask.narrow(0, 3, 2).select(1, 1).zero_();
  auto offset = torch::randn({4}, at::kDouble).requires_grad_();
  const auto student = [&](const at::Tensor& x) { return categorical{x + offset}; };
  term keep{identity};
  const double value = keep.loss(student, masked_rollout{observations, mask}).item<double>();
  const auto kept = observations.reshape({15, 4}).index({mask.reshape({15}).to(at::kBool)});
  CHECK(value == Approx(keep.loss(student, rollout{kept}).item<double>()));

  keep.loss(student, masked_rollout{observations, mask}).backward();
  const auto gradient = offset.grad().clone();
  for (const double garbage : {1e4, std::nan(""), static_cast<double>(INFINITY)}) {
    auto garbled = observations.clone();
    garbled[3][1].fill_(garbage);
    offset.mutable_grad() = at::Tensor();
    const auto loss = keep.loss(student, masked_rollout{garbled, mask});
    loss.backward();
    CHECK(loss.item<double>() == Approx(value));
    CHECK(support::relative_error(offset.grad(), gradient) < 1e-12);
  }
  CHECK(keep.loss(student, masked_rollout{observations, torch::zeros({5, 3})}).item<double>() == 0);
  CHECK_THROWS_AS(keep.loss(student, masked_rollout{observations, torch::ones({5})}), retain::shape_error);
}

TEST_CASE("kickstarting: an empty batch adds 0, one action is always agreed on", "[kickstarting]") {
  term keep{identity};
  const auto student = [](const at::Tensor& x) { return categorical{x.clone().requires_grad_() * 2}; };
  const auto empty = keep.loss(student, rollout{torch::zeros({0, 4})});
  CHECK(empty.item<double>() == 0);
  CHECK_NOTHROW(empty.backward());
  CHECK(keep.loss(student, rollout{torch::randn({3, 1})}).item<double>() == 0);
}

TEST_CASE("kickstarting: a prediction stored with the rollout is used instead of the teacher", "[kickstarting]") {
  int asked = 0;
  const auto counting = [&](const at::Tensor& x) {
    ++asked;
    return categorical{x};
  };
  retain::kickstarting keep{counting};
  const auto x = torch::randn({4, 3});
  const auto student = [](const at::Tensor& o) { return categorical{o * 0.5}; };
  const auto target = keep.target(rollout{x});
  const double live = keep.loss(student, rollout{x}).item<double>();
  CHECK(asked == 2);
  for (int epoch = 0; epoch < 3; ++epoch) CHECK(keep.loss(student, asked_rollout{x, target}).item<double>() == live);
  CHECK(asked == 2);
}

TEST_CASE("kickstarting: a recurrent teacher goes along the student's trajectory, asked once a rollout", "[kickstarting]") {
  // The state counts the steps of the episode; the teacher's logits are the count.
  const auto counting = [](auto&, const at::Tensor& x, const at::Tensor& count, const at::Tensor& done) {
    std::vector<at::Tensor> said;
    auto carried = count;
    for (std::int64_t t = 0; t < x.size(0); ++t) {
      carried = carried * (1 - done[t]) + 1;
      said.push_back(carried);
    }
    return std::tuple{torch::stack(said).unsqueeze(-1) * torch::tensor({0.0f, 1.0f}), carried};
  };
  struct with_done {
    at::Tensor observations, done;
  };
  retain::kickstarting keep{retain::teacher{torch::nn::Linear(1, 1), counting, torch::zeros({2})}};
  const auto done = torch::tensor({{1.f, 0.f}, {0.f, 0.f}, {0.f, 1.f}});
  const with_done rollout{torch::zeros({3, 2, 1}), done};
  const auto first = keep.target(rollout), second = keep.target(rollout);
  const auto counts = [](const categorical& d) { return d.logits.select(-1, 1); };
  CHECK(counts(first).equal(torch::tensor({{1.f, 1.f}, {2.f, 2.f}, {3.f, 1.f}})));
  CHECK(counts(second).equal(torch::tensor({{1.f, 2.f}, {2.f, 3.f}, {3.f, 1.f}})));
  const auto student = [](const at::Tensor& x) { return categorical{torch::zeros({x.size(0), x.size(1), 2})}; };
  const asked_rollout asked{rollout.observations, first};
  const double epoch = keep.loss(student, asked).item<double>();
  CHECK(epoch == Approx(kl(first, categorical{torch::zeros({3, 2, 2})}).mean().item<double>()));
  CHECK(keep.loss(student, asked).item<double>() == epoch);
}

TEST_CASE("kickstarting: a teacher that is any callable gets no gradient; stored logits do as well as a prediction", "[kickstarting]") {
  torch::nn::Linear net(3, 2);
  retain::kickstarting keep{[&](const at::Tensor& x) { return net->forward(x); }};
  const auto x = torch::randn({4, 3});
  const auto student = [](const at::Tensor& o) { return categorical{o.narrow(1, 0, 2).clone().requires_grad_()}; };
  const auto loss = keep.loss(student, rollout{x});
  loss.backward();
  CHECK(!net->weight.grad().defined());
  struct with_logits {
    at::Tensor observations, teacher;
  };
  CHECK(keep.loss(student, with_logits{x, net->forward(x).detach()}).item<double>() == Approx(loss.item<double>()));
}

TEST_CASE("kickstarting: at strength 0 nobody is asked and an infinite divergence is no NaN", "[kickstarting]") {
  const auto nobody = [](const at::Tensor& x) -> categorical {
    FAIL("asked at strength 0");
    return categorical{x};
  };
  retain::kickstarting keep{nobody, {.strength = retain::linear{.initial = 1, .last = 0, .over = 1}}};
  keep.step(1);
  CHECK(keep.loss(nobody, rollout{torch::zeros({1, 2})}).item<double>() == 0);
}

TEST_CASE("kickstarting: annealed, saved with its teacher, and resumed", "[kickstarting]") {
  const support::temporary_folder folder;
  torch::manual_seed(3);
  torch::nn::Linear net(4, 3);
  const auto make = [](torch::nn::Linear n) {
    return retain::kickstarting{retain::teacher{n}, {.strength = retain::exponential_decay{.initial = 0.75, .factor = 0.5, .floor = 0.1}}};
  };
  auto keep = make(net);
  keep.step(2);
  retain::save(folder.file("k"), keep);
  auto resumed = make(torch::nn::Linear(4, 3));
  retain::load(folder.file("k"), resumed);
  const rollout r{torch::randn({5, 4})};
  const auto student = [](const at::Tensor& x) { return categorical{x.narrow(1, 0, 3)}; };
  CHECK(resumed.strength() == 0.75 * 0.25);
  CHECK(resumed.loss(student, r).equal(keep.loss(student, r)));
}
