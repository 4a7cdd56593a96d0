// SPDX-License-Identifier: MIT
#include <retain/compose.hpp>
#include <retain/concepts.hpp>
#include <retain/dark_experience_replay.hpp>

#include <cmath>
#include <limits>

#include "support.hpp"

namespace dark_experience_replay_test {

using retain::categorical;
using retain::dark_experience_replay;

namespace {

const auto third = [](const at::Tensor& x) { return x * 0.3; };
static_assert(retain::output_term<dark_experience_replay, decltype(third), at::Tensor>);
static_assert(retain::stateful<dark_experience_replay>);

struct pushed {
  at::Tensor states, logits, labels;
};
pushed some(std::int64_t n) {
  return {torch::randn({n, 4}, at::kDouble), torch::randn({n, 4}, at::kDouble),
          torch::randint(0, 4, {n}, at::kLong)};
}

}  // namespace

TEST_CASE(
    "dark_experience_replay: the squared distance of the logits, drawn as the reservoir draws",
    "[dark_experience_replay]") {
  torch::manual_seed(1);
  const auto data = some(30);
  dark_experience_replay keep{{.strength = 2.0, .batch_size = 5, .capacity = 10, .seed = 3}};
  CHECK(keep.loss(third).item<double>() == 0);
  keep.push(data.states, data.logits);
  retain::reservoir twin(10, 3);
  const auto slots = twin.offer(30);
  const auto drawn = twin.sample(5).indices;
  double sum = 0;
  for (int i = 0; i < 5; ++i)
    for (int item = 0; item < 30; ++item)
      if (slots[item].equal(drawn[i]))
        for (int a = 0; a < 4; ++a)
          sum += std::pow(
              data.logits[item][a].item<double>() - 0.3 * data.states[item][a].item<double>(), 2);
  CHECK(keep.loss(third).item<double>() == Approx(2 * sum / 5));
  CHECK(keep.last_divergence().item<double>() == Approx(sum / 5));
}

TEST_CASE("dark_experience_replay: over many batches, both means are those of what is kept",
          "[dark_experience_replay]") {
  torch::manual_seed(2);
  const auto data = some(25);
  dark_experience_replay keep{
      {.strength = 0.5, .label_strength = 3.0, .batch_size = 64, .capacity = 25, .seed = 1}};
  keep.push(data.states, data.logits, data.labels);
  const auto distances = (data.logits - data.states * 0.3).square().sum(1) * 0.5;
  const auto surprises = categorical{data.states * 0.3}.log_prob(data.labels) * -3.0;
  constexpr int batches = 400;
  double sum = 0;
  for (int i = 0; i < batches; ++i) sum += keep.loss(third).item<double>();
  // Independent draws: the variances add up.
  const double error = std::sqrt(
      (distances.var(0, false) + surprises.var(0, false)).item<double>() / (64.0 * batches));
  CHECK(std::abs(sum / batches - (distances.mean() + surprises.mean()).item<double>()) < 4 * error);
}

TEST_CASE("dark_experience_replay: its gradient against finite differences",
          "[dark_experience_replay]") {
  torch::manual_seed(3);
  const auto data = some(8);
  auto offset = torch::randn({4}, at::kDouble).requires_grad_();
  const auto student = [&](const at::Tensor& x) { return categorical{x.tanh() + offset}; };
  dark_experience_replay start{
      {.strength = 0.7, .label_strength = 0.4, .batch_size = 6, .capacity = 8}};
  start.push(data.states, data.logits, data.labels);
  const auto value = [&] {
    auto keep = start;  // a copy draws the same batch again
    return keep.loss(student);
  };
  value().backward();
  CHECK(support::relative_error(offset.grad(), support::finite_differences(offset, [&] {
                                  return value().item<double>();
                                })) < 1e-8);
}

TEST_CASE("dark_experience_replay: rows that the student masks count not at all",
          "[dark_experience_replay]") {
  const auto states = torch::tensor({{1.0, 0.0}, {2.0, 0.0}}), logits = torch::zeros({2, 2});
  dark_experience_replay keep{{.label_strength = 1.0, .batch_size = 40, .capacity = 2, .seed = 4}};
  keep.push(states, logits, torch::zeros({2}, at::kLong));
  const auto only_first = [](const at::Tensor& x) {
    const auto mask = x.select(1, 0).eq(1);
    return retain::masked{categorical{x.masked_fill(mask.logical_not().unsqueeze(1), std::nan(""))},
                          mask};
  };
  CHECK(keep.loss(only_first).item<double>() == Approx(1.0 + std::log(1 + std::exp(-1.0))));
}

TEST_CASE("dark_experience_replay: schedules, strength 0, and a place among other terms",
          "[dark_experience_replay]") {
  torch::manual_seed(4);
  const auto data = some(12);
  const auto nobody = [](const at::Tensor& x) {
    FAIL("asked at strength 0");
    return x;
  };
  const retain::linear down{.initial = 1, .last = 0, .over = 10};
  dark_experience_replay keep{{.strength = down, .label_strength = down, .batch_size = 4}};
  dark_experience_replay twin{{.strength = down, .label_strength = 0.0, .batch_size = 4}};
  keep.push(data.states, data.logits, data.labels);
  twin.push(data.states, data.logits, data.labels);
  keep.step(10);
  CHECK(keep.label_strength() == 0);
  CHECK(keep.loss(nobody).item<double>() == 0);
  static_cast<void>(twin.loss(third));
  keep.step(0);
  static_cast<void>(keep.loss(third));
  static_cast<void>(twin.loss(third));
  CHECK(keep.last_divergence().equal(twin.last_divergence()));  // the draws went on
  auto all = retain::compose(keep);
  CHECK(all.distillation(third, data).item<double>() > 0);
  CHECK(all.breakdown()[0].name == "dark_experience_replay");
}

TEST_CASE("dark_experience_replay: save, load and go on, bit for bit", "[dark_experience_replay]") {
  const support::temporary_folder folder;
  torch::manual_seed(5);
  const auto make = [](std::uint64_t seed) {
    return dark_experience_replay{{.strength = 0.5,
                                   .label_strength = retain::exponential_decay{.factor = 0.9},
                                   .batch_size = 7,
                                   .capacity = 20,
                                   .seed = seed}};
  };
  auto a = make(1);
  const auto first = some(50);
  a.push(first.states, first.logits, first.labels);
  static_cast<void>(a.loss(third));
  a.step(3);
  retain::save(folder.file("der"), a);
  auto b = make(2);
  retain::load(folder.file("der"), b);
  for (int i = 0; i < 4; ++i) {
    const auto more = some(9);
    a.push(more.states, more.logits, more.labels);
    b.push(more.states, more.logits, more.labels);
    CHECK(a.loss(third).equal(b.loss(third)));
  }
}

TEST_CASE("dark_experience_replay: what does not fit is refused", "[dark_experience_replay]") {
  const auto data = some(5);
  CHECK_THROWS_AS((dark_experience_replay{{.batch_size = 0}}), retain::config_error);
  CHECK_THROWS_AS((dark_experience_replay{{.capacity = 0}}), retain::config_error);
  dark_experience_replay plus{{.label_strength = 1.0}};
  CHECK_THROWS_WITH(plus.push(data.states, data.logits),
                    ContainsSubstring("push(observations, logits, labels)"));
  CHECK_THROWS_AS(plus.push(data.states, data.logits, data.states), retain::shape_error);
  CHECK_THROWS_AS(plus.push(data.states, data.logits.narrow(0, 0, 3), data.labels),
                  retain::shape_error);
  dark_experience_replay keep;
  CHECK_THROWS_AS(keep.push(data.states, data.labels), retain::shape_error);
  keep.push(data.states, data.logits);
  CHECK_THROWS_AS(keep.push(data.states, data.logits, data.labels), retain::config_error);
  CHECK_THROWS_WITH(keep.loss([](const at::Tensor& x) { return x.narrow(1, 0, 3); }),
                    ContainsSubstring("[256, 3]") && ContainsSubstring("[256, 4]"));
}

TEST_CASE(
    "dark_experience_replay: labels that are asked for later and are not there are missed aloud",
    "[dark_experience_replay]") {
  retain::dark_experience_replay term{
      {.strength = 1.0,
       .label_strength = retain::linear{.initial = 0, .last = 1, .over = 10},
       .batch_size = 4}};
  term.push(torch::randn({6, 3}), torch::randn({6, 3}));
  const auto student = [](const at::Tensor& x) { return x; };
  CHECK_NOTHROW(term.loss(student));
  term.step(10);
  CHECK_THROWS_AS(term.loss(student), retain::config_error);
}

TEST_CASE("dark_experience_replay: what both sides forbid is no distance, what one side forbids "
          "alone is said",
          "[dark_experience_replay]") {
  torch::manual_seed(6);
  constexpr double infinity = std::numeric_limits<double>::infinity();
  auto stored = torch::randn({5, 4});
  stored.select(1, 2).fill_(-infinity);
  const auto states = torch::randn({5, 4});
  auto weight = torch::ones({4}).requires_grad_();
  const auto student = [&](const at::Tensor& x) {
    return categorical{(x * weight).masked_fill(torch::tensor({0, 0, 1, 0}, at::kBool), -infinity)};
  };
  const auto free = [&](const at::Tensor& x) { return categorical{x * weight}; };
  const auto seeded = dark_experience_replay{{.batch_size = 6, .seed = 2}};
  auto keep = seeded;
  keep.push(states, stored);
  const auto loss = keep.loss(student);
  auto without = seeded;  // the same draws, of the other actions
  const auto left = torch::tensor({0, 1, 3});
  without.push(states, stored.index_select(1, left));
  const auto expected =
      without.loss([&](const at::Tensor& x) { return (x * weight).index_select(1, left); });
  CHECK(loss.item<double>() == Approx(expected.item<double>()));
  const auto gradient = torch::autograd::grad({loss}, {weight})[0],
             truth = torch::autograd::grad({expected}, {weight})[0];
  CHECK(gradient.allclose(truth));

  CHECK_THROWS_AS(keep.loss(free), retain::config_error);
  CHECK_THROWS_WITH(keep.loss(free), ContainsSubstring("mask the student"));
  auto unmasked = seeded;
  unmasked.push(states, torch::randn({5, 4}));
  CHECK_THROWS_AS(unmasked.loss(student), retain::config_error);
  // A row that the student drops may differ, and a student that has diverged is seen in its loss.
  CHECK(keep.loss([&](const at::Tensor& x) {
              return retain::masked{free(x), torch::zeros({x.size(0)})};
            })
            .item<double>() == 0);
  CHECK(std::isnan(unmasked.loss([](const at::Tensor& x) { return x * NAN; }).item<double>()));

  retain::state saved;
  keep.save_state(saved, "");
  auto loaded = seeded;
  loaded.load_state(saved, "");
  CHECK(loaded.loss(student).equal(keep.loss(student)));
}

TEST_CASE("dark_experience_replay: logits that are no logits are refused when pushed, and nothing "
          "is kept",
          "[dark_experience_replay]") {
  for (const double foul : {std::nan(""), std::numeric_limits<double>::infinity()})
    for (const auto type : {at::kFloat, at::kHalf}) {
      dark_experience_replay keep;
      auto logits = torch::zeros({3, 2});
      logits[1][1] = foul;
      CHECK_THROWS_AS(keep.push(torch::zeros({3, 2}), logits.to(type)), retain::config_error);
      CHECK(keep.memory().size() == 0);
    }
  dark_experience_replay plus{{.label_strength = 1.0, .batch_size = 4}};
  plus.push(torch::zeros({2, 2}), torch::zeros({2, 2}), torch::tensor({1, 0}, at::kInt));
  CHECK(plus.loss([](const at::Tensor& x) { return x; }).item<double>() == Approx(std::log(2.0)));
  dark_experience_replay half{{.batch_size = 4}};
  half.push(torch::zeros({2, 2}), torch::ones({2, 2}, at::kHalf));
  CHECK(half.loss([](const at::Tensor& x) { return x; }).item<double>() == Approx(2));
}

TEST_CASE("dark_experience_replay: a state says truly whether its memory has labels",
          "[dark_experience_replay]") {
  const auto data = some(8);
  dark_experience_replay labelled, unlabelled, empty;
  labelled.push(data.states, data.logits, data.labels);
  unlabelled.push(data.states, data.logits);
  const auto refused = [](const dark_experience_replay& from, const char* word) {
    retain::state saved;
    from.save_state(saved, "");
    saved.set("labelled", word);
    dark_experience_replay loaded;
    CHECK_THROWS_AS(loaded.load_state(saved, ""), retain::state_error);
    CHECK(loaded.memory().size() == 0);  // nothing was changed
  };
  refused(labelled, "0");
  refused(labelled, "2");
  refused(unlabelled, "1");
  refused(unlabelled, "-1");
  refused(empty, "1");
  retain::state saved;
  labelled.save_state(saved, "");
  empty.load_state(saved, "");
  CHECK(empty.memory().size() == 8);
}

}  // namespace dark_experience_replay_test
