// SPDX-License-Identifier: MIT
#include <retain/behavioral_cloning.hpp>
#include <retain/compose.hpp>
#include <retain/concepts.hpp>
#include <retain/entropy_gate.hpp>
#include <retain/kickstarting.hpp>
#include <retain/mahalanobis_gate.hpp>

#include <array>
#include <limits>
#include <tuple>

#include "support.hpp"

namespace kickstarting_test {

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
static_assert(retain::output_term<term, decltype(identity), rollout>);
static_assert(!retain::output_term<at::Tensor, decltype(identity), rollout>);
static_assert(retain::policy<decltype(identity), at::Tensor>);
static_assert(!retain::policy<decltype([](const at::Tensor&) { return 1; }), at::Tensor>);

struct weighted_rollout {
  at::Tensor observations, weights;
};

/// What an LSTM policy carries from step to step.
using lstm_state = std::tuple<at::Tensor, at::Tensor>;

struct lstm_net : torch::nn::Cloneable<lstm_net> {
  lstm_net() { reset(); }
  void reset() override {
    cell = register_module("cell", torch::nn::LSTMCell(3, 4));
    head = register_module("head", torch::nn::Linear(4, 5));
    to(at::kDouble);
  }
  torch::nn::LSTMCell cell{nullptr};
  torch::nn::Linear head{nullptr};
};

/// Over a sequence [T, N, 3]: the state is reset before the steps that `episode_start` [T, N]
/// marks.
const auto follow = [](auto& net, const at::Tensor& xs, lstm_state carried,
                       const at::Tensor& episode_start) {
  std::vector<at::Tensor> said;
  for (std::int64_t t = 0; t < xs.size(0); ++t) {
    const auto keep = (1 - episode_start[t]).unsqueeze(1);
    carried = net->cell->forward(
        xs[t], lstm_state{std::get<0>(carried) * keep, std::get<1>(carried) * keep});
    said.push_back(net->head->forward(std::get<0>(carried)));
  }
  return std::tuple{categorical{torch::stack(said)}, carried};
};

struct recurrent_rollout {
  at::Tensor observations, episode_start;
  lstm_state state;
  categorical teacher;
};

lstm_state no_memory(std::int64_t games) {
  return {torch::zeros({games, 4}, at::kDouble), torch::zeros({games, 4}, at::kDouble)};
}

}  // namespace

TEST_CASE("kickstarting: the value is c times the mean KL, its gradient against finite differences",
          "[kickstarting]") {
  torch::manual_seed(1);
  const auto observations = torch::randn({6, 4}, at::kDouble);
  auto offset = torch::randn({4}, at::kDouble).requires_grad_();
  const auto student = [&](const at::Tensor& x) { return categorical{x + offset}; };
  for (const auto direction :
       {retain::divergence::teacher_student, retain::divergence::student_teacher}) {
    term keep{identity, {.strength = 2.5, .direction = direction}};
    const categorical t{observations}, s{(observations + offset).detach()};
    const double expected =
        2.5 * (direction == retain::divergence::teacher_student ? kl(t, s) : kl(s, t))
                  .mean()
                  .item<double>();
    CHECK(keep.loss(student, rollout{observations}).item<double>() == Approx(expected));
    CHECK(keep.last_divergence().item<double>() == Approx(expected / 2.5));
    offset.mutable_grad() = at::Tensor();
    keep.loss(student, rollout{observations}).backward();
    const auto numeric = support::finite_differences(
        offset, [&] { return keep.loss(student, rollout{observations}).item<double>(); });
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
  CHECK_THROWS_AS(keep.loss(student, masked_rollout{observations, torch::ones({5})}),
                  retain::shape_error);
  const auto padded = [](const at::Tensor& o) {
    return retain::masked<categorical>{categorical{o}, torch::ones({5, 3})};
  };
  CHECK_THROWS_WITH(keep.loss(padded, masked_rollout{observations, torch::ones({3})}),
                    ContainsSubstring("kickstarting: masks of shapes [5, 3] and [3]"));
}

TEST_CASE("kickstarting: an empty batch adds 0, one action is always agreed on", "[kickstarting]") {
  term keep{identity};
  const auto student = [](const at::Tensor& x) {
    return categorical{x.clone().requires_grad_() * 2};
  };
  const auto empty = keep.loss(student, rollout{torch::zeros({0, 4})});
  CHECK(empty.item<double>() == 0);
  CHECK_NOTHROW(empty.backward());
  CHECK(keep.loss(student, rollout{torch::randn({3, 1})}).item<double>() == 0);
}

TEST_CASE("kickstarting: a prediction stored with the rollout is used instead of the teacher",
          "[kickstarting]") {
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
  for (int epoch = 0; epoch < 3; ++epoch)
    CHECK(keep.loss(student, asked_rollout{x, target}).item<double>() == live);
  CHECK(asked == 2);
}

TEST_CASE(
    "kickstarting: a recurrent teacher goes along the student's trajectory, asked once a rollout",
    "[kickstarting]") {
  // The state counts the steps of the episode; the teacher's logits are the count.
  const auto counting = [](auto&, const at::Tensor& x, const at::Tensor& count,
                           const at::Tensor& episode_start) {
    std::vector<at::Tensor> said;
    auto carried = count;
    for (std::int64_t t = 0; t < x.size(0); ++t) {
      carried = carried * (1 - episode_start[t]) + 1;
      said.push_back(carried);
    }
    return std::tuple{torch::stack(said).unsqueeze(-1) * torch::tensor({0.0f, 1.0f}), carried};
  };
  struct with_starts {
    at::Tensor observations, episode_start;
  };
  retain::kickstarting keep{retain::teacher{torch::nn::Linear(1, 1), counting, torch::zeros({2})}};
  const auto episode_start = torch::tensor({{1.f, 0.f}, {0.f, 0.f}, {0.f, 1.f}});
  const with_starts rollout{torch::zeros({3, 2, 1}), episode_start};
  const auto first = keep.target(rollout), second = keep.target(rollout);
  const auto counts = [](const categorical& d) { return d.logits.select(-1, 1); };
  CHECK(counts(first).equal(torch::tensor({{1.f, 1.f}, {2.f, 2.f}, {3.f, 1.f}})));
  CHECK(counts(second).equal(torch::tensor({{1.f, 2.f}, {2.f, 3.f}, {3.f, 1.f}})));
  const auto student = [](const at::Tensor& x) {
    return categorical{torch::zeros({x.size(0), x.size(1), 2})};
  };
  const asked_rollout asked{rollout.observations, first};
  const double epoch = keep.loss(student, asked).item<double>();
  CHECK(epoch == Approx(kl(first, categorical{torch::zeros({3, 2, 2})}).mean().item<double>()));
  CHECK(keep.loss(student, asked).item<double>() == epoch);
}

TEST_CASE("kickstarting: a teacher that is any callable gets no gradient; stored logits do as well "
          "as a prediction",
          "[kickstarting]") {
  torch::nn::Linear net(3, 2);
  retain::kickstarting keep{[&](const at::Tensor& x) { return net->forward(x); }};
  const auto x = torch::randn({4, 3});
  const auto student = [](const at::Tensor& o) {
    return categorical{o.narrow(1, 0, 2).clone().requires_grad_()};
  };
  const auto loss = keep.loss(student, rollout{x});
  loss.backward();
  CHECK(!net->weight.grad().defined());
  struct with_logits {
    at::Tensor observations, teacher;
  };
  CHECK(keep.loss(student, with_logits{x, net->forward(x).detach()}).item<double>() ==
        Approx(loss.item<double>()));
}

TEST_CASE("kickstarting: at strength 0 nobody is asked and an infinite divergence is no NaN",
          "[kickstarting]") {
  const auto nobody = [](const at::Tensor& x) -> categorical {
    FAIL("asked at strength 0");
    return categorical{x};
  };
  retain::kickstarting keep{nobody,
                            {.strength = retain::linear{.initial = 1, .last = 0, .over = 1}}};
  keep.step(1);
  CHECK(keep.loss(nobody, rollout{torch::zeros({1, 2})}).item<double>() == 0);
}

TEST_CASE("kickstarting: annealed, saved with its teacher, and resumed", "[kickstarting]") {
  const support::temporary_folder folder;
  torch::manual_seed(3);
  torch::nn::Linear net(4, 3);
  const auto make = [](torch::nn::Linear n) {
    return retain::kickstarting{
        retain::teacher{n},
        {.strength = retain::exponential_decay{.initial = 0.75, .factor = 0.5, .floor = 0.1}}};
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

TEST_CASE("kickstarting: weights scale each step's pull and leave the number of steps as it is",
          "[kickstarting]") {
  torch::manual_seed(4);
  const auto x = torch::randn({6, 4}, at::kDouble);
  auto offset = torch::randn({4}, at::kDouble).requires_grad_();
  const auto student = [&](const at::Tensor& o) { return categorical{o + offset}; };
  term keep{identity, {.strength = 3.0}};
  const auto weights = torch::tensor({0.0, 1.0, 0.5, 2.0, 0.0, 0.25}, at::kDouble);
  const auto rows = kl(categorical{x}, categorical{(x + offset).detach()});
  CHECK(keep.loss(student, weighted_rollout{x, weights}).item<double>() ==
        Approx(3.0 * (rows * weights).sum().item<double>() / 6));
  CHECK(keep.last_weight().item<double>() == Approx(3.75 / 6));
  keep.loss(student, weighted_rollout{x, weights}).backward();
  const auto numeric = support::finite_differences(
      offset, [&] { return keep.loss(student, weighted_rollout{x, weights}).item<double>(); });
  CHECK(support::relative_error(offset.grad(), numeric) < 1e-8);

  // With padding: only valid steps are counted; what stands in padding is never looked at, in the
  // weights neither.
  struct all_of_it {
    at::Tensor observations, mask, weights;
  };
  auto garbled = weights.clone();
  garbled[3].fill_(std::nan(""));
  const auto mask = torch::tensor({1, 1, 1, 0, 1, 1}, at::kBool);
  const auto padded = keep.loss(student, all_of_it{x, mask, garbled});
  CHECK(padded.item<double>() == Approx(3.0 * (rows * weights * mask).sum().item<double>() / 5));
  CHECK(keep.last_weight().item<double>() == Approx(1.75 / 5));
  offset.mutable_grad() = at::Tensor();
  padded.backward();
  CHECK(at::isfinite(offset.grad()).all().item<bool>());
  CHECK_THROWS_WITH(keep.loss(student, all_of_it{x, mask, weights.narrow(0, 0, 5)}),
                    ContainsSubstring("weights of shape [5]") && ContainsSubstring("[6]"));
  CHECK_THROWS_AS(keep.loss(student, weighted_rollout{x, weights.narrow(0, 0, 5)}),
                  retain::shape_error);
}

TEST_CASE("kickstarting: a step that the gate rejects loses its pull, the others keep theirs",
          "[kickstarting]") {
  torch::manual_seed(5);
  auto x = torch::randn({8, 3}, at::kDouble);
  x.narrow(0, 5, 3).add_(50);  // far from where the teacher was trained
  auto offset = torch::randn({8, 3}, at::kDouble).requires_grad_();
  const auto student = [&](const at::Tensor& o) { return categorical{o + offset}; };
  const auto near = [](const at::Tensor& o) { return o.abs().amax(-1).lt(20); };
  retain::kickstarting gated{identity, {.strength = 2.0}, near};
  term open{identity, {.strength = 2.0}};

  gated.loss(student, rollout{x}).backward();
  const auto through_gate = offset.grad().clone();
  offset.mutable_grad() = at::Tensor();
  open.loss(student, rollout{x}).backward();
  CHECK(through_gate.narrow(0, 0, 5).equal(offset.grad().narrow(0, 0, 5)));
  CHECK(through_gate.narrow(0, 5, 3).count_nonzero().item<std::int64_t>() == 0);
  CHECK(gated.last_weight().item<double>() == Approx(5.0 / 8));

  // Where the gate is shut the teacher may say anything.
  const auto beside_itself = [](const at::Tensor& o) {
    return categorical{o.masked_fill(o.gt(20), std::nan(""))};
  };
  retain::kickstarting strict{beside_itself, {.strength = 2.0}, near};
  offset.mutable_grad() = at::Tensor();
  strict.loss(student, rollout{x}).backward();
  CHECK(offset.grad().equal(through_gate));

  // A gate that looks at the teacher's answer; one that is shut to everything adds nothing.
  retain::kickstarting sure{identity, {}, [](const at::Tensor&, const categorical& t) {
                              return 1 - t.entropy() / std::log(3.0);
                            }};
  const auto weights = 1 - categorical{x}.entropy() / std::log(3.0);
  CHECK(sure.loss(student, rollout{x}).item<double>() ==
        Approx((weights * kl(categorical{x}, categorical{(x + offset).detach()}))
                   .mean()
                   .item<double>()));
  retain::kickstarting shut{
      identity, {}, [](const at::Tensor& o) { return torch::zeros({o.size(0)}); }};
  CHECK(shut.loss(student, rollout{x}).item<double>() == 0);
}

TEST_CASE("kickstarting: where the teacher is at home, cloning elsewhere: a gate composed with "
          "behavioral cloning, saved and resumed",
          "[kickstarting]") {
  torch::manual_seed(6);
  const support::temporary_folder folder;
  const auto seen = torch::randn({400, 3}, at::kDouble);
  const auto make = [&](const at::Tensor& states) {
    return retain::compose(
        retain::kickstarting{identity,
                             {.strength = retain::linear{.initial = 1, .last = 0, .over = 10}},
                             retain::mahalanobis_gate{states}},
        retain::behavioral_cloning{
            states, identity, {.strength = 2.0, .batch_size = 16, .seed = 3}});
  };
  auto keep = make(seen);
  keep.step(4);
  auto x = torch::randn({10, 3}, at::kDouble) * 0.5;
  x.narrow(0, 6, 4).add_(30);
  const auto student = [](const at::Tensor& o) { return categorical{o * 0.5}; };
  CHECK(keep.loss(student, rollout{x}).item<double>() > 0);
  CHECK(keep.term<0>().last_weight().item<double>() == Approx(0.6));
  retain::save(folder.file("both"), keep);
  auto resumed = make(torch::randn({400, 3}, at::kDouble) * 3);
  retain::load(folder.file("both"), resumed);
  CHECK(resumed.term<0>().gate().threshold() == keep.term<0>().gate().threshold());
  CHECK(resumed.loss(student, rollout{x}).equal(keep.loss(student, rollout{x})));
}

TEST_CASE("kickstarting: several teachers are several terms, each with its index in what the "
          "rollout keeps",
          "[kickstarting]") {
  torch::manual_seed(7);
  struct asked_both {
    at::Tensor observations;
    std::array<categorical, 2> teachers;
  };
  const auto x = torch::randn({4, 3}, at::kDouble);
  const auto doubled = [](const at::Tensor& o) { return categorical{o * 2}; };
  const auto student = [](const at::Tensor& o) { return categorical{o * 0.5}; };
  const auto left = [](const at::Tensor& o) { return torch::arange(o.size(0)).lt(2); };
  const auto right = [](const at::Tensor& o) { return torch::arange(o.size(0)).ge(2); };
  auto keep =
      retain::compose(retain::kickstarting{identity, {.strength = 1.0}, left},
                      retain::kickstarting{doubled, {.strength = 3.0, .teacher_index = 1}, right});
  const double live = keep.loss(student, rollout{x}).item<double>();
  const auto s = student(x);
  const double expected = (kl(categorical{x}, s).narrow(0, 0, 2).sum() +
                           3 * kl(categorical{x * 2}, s).narrow(0, 2, 2).sum())
                              .item<double>() /
                          4;
  CHECK(live == Approx(expected));
  const asked_both kept{x, {keep.term<0>().target(rollout{x}), keep.term<1>().target(rollout{x})}};
  CHECK(keep.loss(student, kept).item<double>() == live);
  CHECK(keep.breakdown().at(1).name == "kickstarting_2");
  retain::kickstarting lost{identity, {.teacher_index = 2}};
  CHECK_THROWS_WITH(lost.loss(student, kept), ContainsSubstring("predictions of 2") &&
                                                  ContainsSubstring("teacher_index is 2"));
}

TEST_CASE("kickstarting: a recurrent student starts from the rollout's state and resets before the "
          "steps that episode_start marks",
          "[kickstarting]") {
  torch::manual_seed(8);
  auto net = std::make_shared<lstm_net>(), origin = std::make_shared<lstm_net>();
  const auto student = [&](const at::Tensor& xs, const lstm_state& carried,
                           const at::Tensor& episode_start) {
    return follow(net, xs, carried, episode_start);
  };
  static_assert(retain::recurrent_policy<decltype(student), at::Tensor, lstm_state>);
  retain::kickstarting keep{retain::teacher{origin, follow, no_memory(2)}, {.strength = 1.5}};

  const auto xs = torch::randn({5, 2, 3}, at::kDouble);
  auto episode_start = torch::zeros({5, 2}, at::kDouble);
  episode_start[3][0] = 1;
  const lstm_state before{torch::randn({2, 4}, at::kDouble), torch::randn({2, 4}, at::kDouble)};
  recurrent_rollout played{xs, episode_start, before,
                           keep.target(recurrent_rollout{xs, episode_start, before,
                                                         categorical{torch::zeros({5, 2, 5})}})};
  const auto loss = keep.loss(student, played);

  // Step by step gives what the whole sequence gives.
  std::vector<at::Tensor> logits;
  lstm_state carried = before;
  for (std::int64_t t = 0; t < 5; ++t) {
    const auto one = student(xs.narrow(0, t, 1), carried, episode_start.narrow(0, t, 1));
    logits.push_back(std::get<0>(one).logits);
    carried = std::get<1>(one);
  }
  CHECK(torch::cat(logits).equal(std::get<0>(student(xs, before, episode_start)).logits));
  CHECK(loss.item<double>() ==
        Approx(1.5 * kl(played.teacher, categorical{torch::cat(logits)}).mean().item<double>()));

  // Game 0 begins anew at step 3: its last two steps are those of a student, and of a teacher, that
  // remember nothing.
  const auto fresh =
      std::get<0>(follow(net, xs.narrow(0, 3, 2), no_memory(2), torch::zeros({2, 2}, at::kDouble)));
  CHECK(torch::cat(logits).narrow(0, 3, 2).select(1, 0).allclose(fresh.logits.select(1, 0), 0,
                                                                 1e-14));
  CHECK(!torch::cat(logits).narrow(0, 3, 2).select(1, 1).allclose(fresh.logits.select(1, 1), 0,
                                                                  1e-6));
  const auto fresh_teacher = std::get<0>(
      follow(origin, xs.narrow(0, 3, 2), no_memory(2), torch::zeros({2, 2}, at::kDouble)));
  CHECK(played.teacher.logits.narrow(0, 3, 2).select(1, 0).allclose(
      fresh_teacher.logits.select(1, 0), 0, 1e-14));

  // The gradient runs through time, within an episode and never across its end.
  loss.backward();
  auto weight = net->cell->weight_hh;
  const auto numeric = support::finite_differences(
      weight.detach(), [&] { return keep.loss(student, played).item<double>(); });
  CHECK(support::relative_error(weight.grad(), numeric) < 1e-7);

  // The same student where a rollout carries no state is asked as a plain policy.
  const auto plain = [&](const at::Tensor& o) {
    return std::get<0>(follow(net, o, no_memory(2), episode_start));
  };
  CHECK(keep.loss(plain, asked_rollout{xs, played.teacher}).item<double>() ==
        Approx(1.5 * kl(played.teacher, plain(xs)).mean().item<double>()));
}

TEST_CASE("kickstarting: a row counts where the rollout, the teacher and the student all say so",
          "[kickstarting]") {
  struct masked_rollout {
    at::Tensor observations, mask;
    retain::masked<retain::categorical> teacher;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto observations = torch::tensor({{0.5, -0.5}, {0.1, 0.2}, {0.3, 0.1}}, torch::kDouble);
  const masked_rollout rollout{
      observations,
      torch::tensor({1, 1, 0}),
      {retain::categorical{torch::tensor({{0.0, 1.0}, {nan, nan}, {2.0, 0.0}}, torch::kDouble)},
       torch::tensor({1, 0, 1})}};
  retain::kickstarting asked{identity, {.strength = 1.0}};
  const auto expected = retain::kl(retain::categorical{torch::tensor({{0.0, 1.0}}, torch::kDouble)},
                                   retain::categorical{observations.narrow(0, 0, 1)});
  CHECK(asked.loss(identity, rollout).item<double>() == Approx(expected.item<double>()));
}

// Of half, LibTorch 1.13 has no log_softmax on the CPU.
TEST_CASE(
    "kickstarting: in bfloat16 loss and gradient are what they are in double, to its precision",
    "[kickstarting]") {
  struct weighted_rollout {
    at::Tensor observations, mask, weights;
  };
  torch::manual_seed(12);
  const auto x = torch::randn({20, 4}).to(at::kBFloat16),
             weights = torch::rand({20}).to(at::kBFloat16), mask = torch::rand({20}).gt(0.3);
  const auto offset = torch::randn({4}).to(at::kBFloat16);
  for (const auto direction :
       {retain::divergence::teacher_student, retain::divergence::student_teacher}) {
    const auto both = [&](at::ScalarType type) {
      const auto bias = offset.to(type).clone().requires_grad_();
      retain::kickstarting keep{[](const at::Tensor& o) { return categorical{o * 2}; },
                                {.strength = 0.5, .direction = direction}};
      const auto loss = keep.loss([&](const at::Tensor& o) { return categorical{o + bias}; },
                                  weighted_rollout{x.to(type), mask, weights.to(type)});
      loss.backward();
      return std::vector<at::Tensor>{loss.detach(), bias.grad()};
    };
    const auto narrow = both(at::kBFloat16), wide = both(at::kDouble);
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(narrow[i].scalar_type() == at::kBFloat16);
      CHECK(support::relative_error(narrow[i], wide[i]) < 0x1p-6);
    }
  }
}

}  // namespace kickstarting_test
