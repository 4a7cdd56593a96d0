// SPDX-License-Identifier: MIT
#include <retain/behavioral_cloning.hpp>
#include <retain/concepts.hpp>
#include <retain/replay/prioritized.hpp>
#include <retain/replay/sequences.hpp>
#include <retain/replay/stratified.hpp>

#include "support.hpp"

namespace behavioral_cloning_test {

using retain::behavioral_cloning;
using retain::categorical;

namespace {

const auto as_logits = [](const at::Tensor& x) { return categorical{x}; };
static_assert(retain::output_term<behavioral_cloning<at::Tensor, at::Tensor>, decltype(as_logits),
                                  at::Tensor>);
static_assert(retain::stateful<behavioral_cloning<at::Tensor, retain::expert_actions<at::Tensor>,
                                                  retain::sequences>>);

/// A unit normal around the answer, with as much of a distribution as cloning from labels asks for.
struct unit_normal {
  at::Tensor mean;
  at::Tensor log_prob(const at::Tensor& actions) const {
    return (actions - mean).square().sum(-1) * -0.5;
  }
  at::Tensor entropy() const { return torch::zeros(mean.sizes().slice(0, 1)); }
  at::Tensor sample() const { return mean; }
  at::Tensor mode() const { return mean; }
};
at::Tensor kl(const unit_normal& p, const unit_normal& q) {
  return (p.mean - q.mean).square().sum(-1) * 0.5;
}

/// Logits that count the steps since the state was last reset, from the state, or from `start`, on:
/// a recurrent policy whose answers say what it remembers.
struct step_counter {
  double start = 0;
  std::pair<categorical, at::Tensor> operator()(const at::Tensor& observations,
                                                const at::Tensor& state,
                                                const at::Tensor& episode_start) const {
    std::vector<at::Tensor> said;
    auto count = state.defined() ? state : torch::full({observations.size(1)}, start, at::kDouble);
    for (std::int64_t t = 0; t < observations.size(0); ++t) {
      count = count * episode_start[t].logical_not() + 1;
      said.push_back(torch::stack({count, torch::zeros_like(count)}, -1));
    }
    return {categorical{torch::stack(said)}, count};
  }
};

/// Always the given items, with weights: what a test can compare with.
struct listed {
  at::Tensor items, weights;
  std::int64_t size() const { return 6; }
  retain::drawn sample(std::int64_t) const { return {items, weights, {}, {}}; }
};

/// Sequences of different lengths, padded: what a recurrent policy is cloned from.
struct padded_sequences {
  at::Tensor steps;   // [n, T, A]
  at::Tensor length;  // [n]
  std::int64_t size() const { return steps.size(0); }
  struct batch {
    at::Tensor steps, mask;  // [T, B, A], [T, B]
  };
  batch gather(const at::Tensor& indices) const {
    const auto chosen = steps.index_select(0, indices).transpose(0, 1);
    const auto time = torch::arange(steps.size(1)).unsqueeze(1);
    return {chosen, time < length.index_select(0, indices).unsqueeze(0)};
  }
};

}  // namespace

TEST_CASE("behavioral_cloning: a live teacher and stored logits give the same loss",
          "[behavioral_cloning]") {
  torch::manual_seed(1);
  torch::nn::Linear net(4, 3);
  const auto states = torch::randn({50, 4});
  const retain::teacher t{net};
  auto stored = t(states).logits.clone();
  behavioral_cloning live{states, t, {.strength = 2.0, .batch_size = 16, .seed = 5}};
  behavioral_cloning from_logits{states, stored, {.strength = 2.0, .batch_size = 16, .seed = 5}};
  {
    const at::NoGradGuard no_grad;
    net->weight.mul_(0.5);
  }
  const auto student = [&](const at::Tensor& x) { return net->forward(x); };
  for (int i = 0; i < 3; ++i) {
    const double a = live.loss(student).item<double>();
    CHECK(a > 0);
    CHECK(from_logits.loss(student).item<double>() == Approx(a));
  }
}

TEST_CASE("behavioral_cloning: over all states, the mean of many batches is the mean KL",
          "[behavioral_cloning]") {
  torch::manual_seed(2);
  const auto states = torch::randn({20, 3}, at::kDouble);
  const auto student = [](const at::Tensor& x) { return categorical{x * 0.3}; };
  const auto expected = kl(categorical{states}, categorical{states * 0.3});
  behavioral_cloning keep{states, states, {.strength = 1.0, .batch_size = 64, .seed = 1}};
  constexpr int batches = 400;
  double sum = 0;
  for (int i = 0; i < batches; ++i) sum += keep.loss(student).item<double>();
  const double error = expected.std(0, false).item<double>() / std::sqrt(64.0 * batches);
  CHECK(std::abs(sum / batches - expected.mean().item<double>()) < 4 * error);
}

TEST_CASE("behavioral_cloning: equal seeds draw equal batches, other seeds others; the draw goes "
          "on after a load",
          "[behavioral_cloning]") {
  const support::temporary_folder folder;
  torch::manual_seed(3);
  const auto states = torch::randn({1000, 3}, at::kDouble);
  const auto student = [](const at::Tensor& x) { return categorical{x * 0.3}; };
  const auto make = [&](std::uint64_t seed) {
    return behavioral_cloning{states, states, {.batch_size = 8, .seed = seed}};
  };
  auto a = make(1), b = make(1), c = make(2);
  CHECK(a.loss(student).item<double>() == b.loss(student).item<double>());
  CHECK(a.loss(student).item<double>() != c.loss(student).item<double>());
  retain::save(folder.file("bc"), a);
  auto resumed = behavioral_cloning{torch::zeros({1000, 3}, at::kDouble),
                                    torch::zeros({1000, 3}, at::kDouble),
                                    {.batch_size = 8, .seed = 9}};
  retain::load(folder.file("bc"), resumed);
  for (int i = 0; i < 3; ++i)
    CHECK(resumed.loss(student).item<double>() == a.loss(student).item<double>());
}

TEST_CASE("behavioral_cloning: sequences with padding", "[behavioral_cloning]") {
  torch::manual_seed(4);
  const padded_sequences memory{torch::randn({6, 5, 3}, at::kDouble),
                                torch::tensor({5, 3, 1, 4, 2, 5})};
  const auto teacher = [](const padded_sequences::batch& b) { return categorical{b.steps}; };
  const auto student = [](const padded_sequences::batch& b) {
    return retain::masked{categorical{b.steps * 0.2}, b.mask};
  };
  behavioral_cloning keep{memory, teacher, {.batch_size = 4, .seed = 7}};
  const double value = keep.loss(student).item<double>();
  retain::detail::splitmix64 random(7);
  double sum = 0, count = 0;
  for (int i = 0; i < 4; ++i) {
    const auto n = static_cast<std::int64_t>(random.below(6));
    const auto valid = memory.steps[n].narrow(0, 0, memory.length[n].item<std::int64_t>());
    sum += kl(categorical{valid}, categorical{valid * 0.2}).sum().item<double>();
    count += static_cast<double>(valid.size(0));
  }
  CHECK(value == Approx(sum / count));
  const auto first_step = [](const padded_sequences::batch& b) {
    return retain::masked{categorical{b.steps}, b.mask[0]};
  };
  behavioral_cloning other{memory, first_step, {.batch_size = 4}};
  CHECK_THROWS_WITH(other.loss(student),
                    ContainsSubstring("behavioral_cloning: masks of shapes [4] and [5, 4]"));
}

TEST_CASE("behavioral_cloning: a state of other data is refused and changes nothing",
          "[behavioral_cloning]") {
  const support::temporary_folder folder;
  torch::manual_seed(5);
  const auto states = torch::randn({6, 3});
  const auto student = [](const at::Tensor& x) { return categorical{x * 0.3}; };
  retain::save(folder.file("wide"), behavioral_cloning{torch::zeros({6, 7}), torch::zeros({6, 7})});
  retain::save(folder.file("double"), behavioral_cloning{torch::zeros({6, 3}, at::kDouble),
                                                         torch::zeros({6, 3}, at::kDouble)});
  behavioral_cloning keep{states, states, {.seed = 1}}, twin{states, states, {.seed = 1}};
  CHECK_THROWS_AS(retain::load(folder.file("wide"), keep), retain::shape_error);
  CHECK_THROWS_AS(retain::load(folder.file("double"), keep), retain::state_error);
  CHECK(keep.loss(student).item<double>() == twin.loss(student).item<double>());
}

TEST_CASE("behavioral_cloning: what cannot work is refused", "[behavioral_cloning]") {
  const auto states = torch::zeros({5, 2});
  CHECK_THROWS_AS((behavioral_cloning{torch::zeros({0, 2}), torch::zeros({0, 2})}),
                  retain::config_error);
  CHECK_THROWS_AS((behavioral_cloning{states, states, {.batch_size = 0}}), retain::config_error);
  CHECK_THROWS_WITH((behavioral_cloning{states, torch::zeros({4, 2})}),
                    ContainsSubstring("4 rows") && ContainsSubstring("5 states"));
}

TEST_CASE(
    "behavioral_cloning: the keys of a uniform term's state, and the draws of its seed, are fixed",
    "[behavioral_cloning]") {
  retain::state saved;
  retain::strength_schedule{2.0}.save_state(saved, "bc.schedule.");
  saved.set("bc.random", 41);
  const auto states = torch::rand({1000, 2});
  saved.set("bc.memory", states);
  saved.set("bc.target", states);
  behavioral_cloning keep{
      torch::zeros({3, 2}), torch::zeros({3, 2}), {.strength = 2.0, .batch_size = 4}};
  keep.load_state(saved, "bc.");
  CHECK(saved.unread().empty());
  static_cast<void>(keep.loss(as_logits));
  retain::detail::splitmix64 random(41);
  for (int i = 0; i < 4; ++i)
    CHECK(keep.last_draw().indices[i].item<std::int64_t>() ==
          static_cast<std::int64_t>(random.below(1000)));
}

TEST_CASE("behavioral_cloning: a memory may have grown between two losses, and in the file",
          "[behavioral_cloning]") {
  const support::temporary_folder folder;
  torch::manual_seed(6);
  const auto states = torch::randn({40, 3}, at::kDouble);
  behavioral_cloning large{states, states, {.batch_size = 30, .seed = 3}};
  retain::save(folder.file("bc"), large);
  behavioral_cloning small{
      states.narrow(0, 0, 5), states.narrow(0, 0, 5), {.batch_size = 30, .seed = 1}};
  retain::load(folder.file("bc"), small);
  const auto student = [](const at::Tensor& x) { return categorical{x * 0.3}; };
  CHECK(small.loss(student).equal(large.loss(student)));
  CHECK(small.last_draw().indices.equal(large.last_draw().indices));
  CHECK(small.last_draw().indices.max().item<std::int64_t>() >= 5);
}

TEST_CASE("behavioral_cloning: expert actions give the mean of -log pi, with its gradient",
          "[behavioral_cloning]") {
  torch::manual_seed(7);
  const auto states = torch::randn({6, 4}, at::kDouble);
  const auto actions = torch::tensor({3, 0, 1, 2, 3, 3}, at::kLong);
  auto offset = torch::randn({4}, at::kDouble).requires_grad_();
  const auto student = [&](const at::Tensor& x) { return categorical{x + offset}; };
  behavioral_cloning keep{states,
                          retain::expert_actions{actions},
                          listed{torch::tensor({5, 0, 2}, at::kLong), {}},
                          {.strength = 2.0}};
  const double value = keep.loss(student).item<double>();
  double expected = 0;
  for (const std::int64_t i : {5, 0, 2})
    expected -=
        torch::log_softmax(states[i] + offset, 0)[actions[i].item<std::int64_t>()].item<double>() /
        3;
  CHECK(value == Approx(2 * expected));
  CHECK(keep.last_divergence().item<double>() == Approx(expected));
  keep.loss(student).backward();
  CHECK(support::relative_error(offset.grad(), support::finite_differences(offset, [&] {
                                  return keep.loss(student).item<double>();
                                })) < 1e-8);

  const auto moves = torch::randn({6, 2}, at::kDouble);
  const auto continuous = [](const at::Tensor& x) { return unit_normal{x.narrow(1, 0, 2)}; };
  behavioral_cloning imitate{states, retain::expert_actions{moves},
                             listed{torch::tensor({1, 4}, at::kLong), {}}};
  double squares = 0;
  for (const std::int64_t i : {1, 4})
    squares += (moves[i] - states[i].narrow(0, 0, 2)).square().sum().item<double>() / 2 / 2;
  CHECK(imitate.loss(continuous).item<double>() == Approx(squares));
}

TEST_CASE(
    "behavioral_cloning: a padded label counts neither in value nor in gradient, whatever it is",
    "[behavioral_cloning]") {
  torch::manual_seed(8);
  const auto states = torch::randn({3, 4}, at::kDouble);
  const auto mask = torch::tensor({true, false, true});
  auto offset = torch::zeros({4}, at::kDouble).requires_grad_();
  const auto student = [&](const at::Tensor& x) {
    return retain::masked{categorical{x + offset + at::where(mask, 0.0, std::nan("")).unsqueeze(1)},
                          mask};
  };
  struct in_order {
    std::int64_t size() const { return 3; }
    retain::drawn sample(std::int64_t) const { return {torch::arange(3), {}, {}, {}}; }
  };
  behavioral_cloning keep{states, retain::expert_actions{torch::tensor({1, -1, 2}, at::kLong)},
                          in_order{}};
  const auto loss = keep.loss(student);
  const auto log_p = torch::log_softmax(states, 1);
  CHECK(loss.item<double>() == Approx(-(log_p[0][1] + log_p[2][2]).item<double>() / 2));
  loss.backward();
  CHECK(offset.grad().isfinite().all().item<bool>());
}

TEST_CASE("behavioral_cloning: weights of the sampler scale each state; last_rows are as they were "
          "before",
          "[behavioral_cloning]") {
  torch::manual_seed(9);
  const auto states = torch::randn({6, 3}, at::kDouble);
  const auto student = [](const at::Tensor& x) { return categorical{x * 0.3}; };
  const auto items = torch::tensor({4, 4, 1, 0}, at::kLong);
  const auto weights = torch::tensor({0.5, 0.25, 1.0, 0.125}, at::kDouble);
  behavioral_cloning keep{states, states, listed{items, weights}, {.strength = 3.0}};
  const auto divergences =
      kl(categorical{states}, categorical{states * 0.3}).index_select(0, items);
  CHECK(keep.loss(student).item<double>() ==
        Approx(3 * (divergences * weights).mean().item<double>()));
  CHECK(support::relative_error(keep.last_rows(), divergences) < 1e-12);
  behavioral_cloning flat{states, states, listed{items, weights.narrow(0, 0, 3)}};
  CHECK_THROWS_WITH(flat.loss(student), ContainsSubstring("weights of shape [3]") &&
                                            ContainsSubstring("rows of shape [4]"));
  behavioral_cloning single{states.to(at::kFloat), states.to(at::kFloat), listed{items, weights}};
  CHECK(single.loss(student).scalar_type() == at::kFloat);
}

TEST_CASE("behavioral_cloning: stratified and prioritized draws, saved and resumed",
          "[behavioral_cloning]") {
  const support::temporary_folder folder;
  torch::manual_seed(10);
  const auto states = torch::randn({100, 3}, at::kDouble);
  const auto rare = torch::arange(100).lt(5).to(at::kLong);
  const auto student = [](const at::Tensor& x) { return categorical{x * 0.3}; };
  behavioral_cloning balanced{states, states, retain::stratified{rare}, {.batch_size = 20}};
  static_cast<void>(balanced.loss(student));
  CHECK(balanced.last_draw().indices.lt(5).sum().item<std::int64_t>() == 10);

  const auto make = [&](std::uint64_t seed) {
    return behavioral_cloning{states,
                              states,
                              retain::prioritized{100, {.alpha = 1, .beta = 1.0, .seed = seed}},
                              {.batch_size = 50}};
  };
  const auto learn = [&](auto& term) {
    const double value = term.loss(student).template item<double>();
    term.sampler().update(term.last_draw().indices, term.last_rows());
    return value;
  };
  auto a = make(1);
  for (int i = 0; i < 20; ++i) learn(a);
  const auto divergences = kl(categorical{states}, categorical{states * 0.3});
  CHECK(support::relative_error(a.sampler().probabilities(),
                                (divergences + 1e-6) / (divergences + 1e-6).sum()) < 0.2);
  retain::save(folder.file("bc"), a);
  auto b = make(2);
  retain::load(folder.file("bc"), b);
  for (int i = 0; i < 5; ++i) CHECK(learn(a) == learn(b));
}

TEST_CASE("behavioral_cloning: sampled sequences are [L, N] for student and targets, and padding "
          "is masked",
          "[behavioral_cloning]") {
  torch::manual_seed(11);
  const auto states = torch::randn({12, 3}, at::kDouble);
  const auto lengths = torch::tensor({5, 2, 5}, at::kLong);
  for (const bool pad : {false, true}) {
    retain::sequences sampler{lengths, {.length = 3, .pad = pad, .seed = 6}};
    behavioral_cloning keep{states, states, sampler, {.batch_size = 7}};
    const auto student = [&](const at::Tensor& x) {
      CHECK(x.sizes() == at::IntArrayRef({3, 7, 3}));
      return categorical{x * 0.2};
    };
    const double value = keep.loss(student).item<double>();
    const auto drawn = sampler.sample(7);
    double sum = 0, count = 0;
    for (int t = 0; t < 3; ++t)
      for (int i = 0; i < 7; ++i) {
        if (pad && !drawn.mask[t][i].item<bool>()) continue;
        const auto z = states[drawn.indices[t][i].item<std::int64_t>()];
        sum += kl(categorical{z}, categorical{z * 0.2}).item<double>();
        ++count;
      }
    CHECK(value == Approx(sum / count));
    CHECK((count == 21) == !pad);
  }
}

TEST_CASE("behavioral_cloning: a burn-in warms the state of what began inside an episode, and "
          "spares what began with it",
          "[behavioral_cloning]") {
  const auto states = torch::zeros({40, 1}, at::kDouble);
  const auto lengths = torch::tensor({8, 20, 12}, at::kLong);
  // The target is what the student would say had it seen the episode from its first step.
  std::vector<at::Tensor> counted;
  for (const std::int64_t length : {8, 20, 12})
    counted.push_back(torch::arange(1, length + 1).to(at::kDouble));
  const auto steps = torch::cat(counted);
  const auto target = torch::stack({steps, torch::zeros_like(steps)}, 1);
  retain::sequences sampler{lengths, {.length = 6, .seed = 2}};
  auto twin = sampler;
  behavioral_cloning keep{states, target, sampler, {.batch_size = 30, .burn_in = 4}};
  const double value = keep.loss(step_counter{}).item<double>();
  const auto drawn = twin.sample(30);
  double sum = 0, count = 0, from_first = 0;
  for (int i = 0; i < 30; ++i) {
    const bool first = drawn.episode_start[0][i].item<bool>();
    for (int t = first ? 0 : 4; t < 6; ++t) {
      const auto z = target[drawn.indices[t][i].item<std::int64_t>()];
      sum += kl(categorical{z}, categorical{torch::tensor({t + 1.0, 0.0}, at::kDouble)})
                 .item<double>();
      ++count;
      from_first += first;
    }
  }
  CHECK(from_first > 0);
  CHECK(count > from_first);
  CHECK(value == Approx(sum / count));

  // Sequences that a memory holds itself have no `episode_start`: all begin cold.
  const padded_sequences memory{torch::randn({6, 5, 3}, at::kDouble),
                                torch::tensor({5, 3, 5, 4, 2, 5})};
  const auto teacher = [](const padded_sequences::batch& b) { return categorical{b.steps}; };
  const auto student = [](const padded_sequences::batch& b) {
    return retain::masked{categorical{b.steps * 0.2}, b.mask};
  };
  behavioral_cloning own{memory, teacher, listed{torch::arange(6), {}}, {.burn_in = 3}};
  double late = 0, valid = 0;
  for (int i = 0; i < 6; ++i)
    for (std::int64_t t = 3; t < memory.length[i].item<std::int64_t>(); ++t, ++valid)
      late +=
          kl(categorical{memory.steps[i][t]}, categorical{memory.steps[i][t] * 0.2}).item<double>();
  CHECK(own.loss(student).item<double>() == Approx(late / valid));
}

TEST_CASE("behavioral_cloning: a recurrent teacher starts anew with every batch",
          "[behavioral_cloning]") {
  const auto forward = [](auto&, const at::Tensor& x, const at::Tensor& count,
                          const at::Tensor& episode_start) {
    return step_counter{}(x, count, episode_start);
  };
  const auto states = torch::zeros({20, 1}, at::kDouble);
  const retain::teacher teacher{torch::nn::Linear(1, 1), forward, torch::zeros({8}, at::kDouble)};
  behavioral_cloning keep{states,
                          teacher,
                          retain::sequences{torch::tensor({20}, at::kLong), {.length = 5}},
                          {.batch_size = 8}};
  for (int batch = 0; batch < 3; ++batch) CHECK(keep.loss(step_counter{}).item<double>() == 0);
  CHECK(keep.loss(step_counter{3}).item<double>() > 0);
}

TEST_CASE("behavioral_cloning: what samplers and labels make impossible is refused",
          "[behavioral_cloning]") {
  const auto states = torch::zeros({5, 2});
  const auto lengths = torch::tensor({5}, at::kLong);
  const auto labels = torch::zeros({5}, at::kLong);
  CHECK_THROWS_WITH(
      (behavioral_cloning{states, states, retain::stratified{torch::zeros({6}, at::kLong)}}),
      ContainsSubstring("6 items") && ContainsSubstring("holds only 5"));
  CHECK_THROWS_WITH(
      (behavioral_cloning{states, retain::expert_actions{torch::zeros({4}, at::kLong)}}),
      ContainsSubstring("4 rows of expert actions"));
  CHECK_THROWS_AS((behavioral_cloning{states,
                                      retain::expert_actions{labels},
                                      {.direction = retain::divergence::student_teacher}}),
                  retain::config_error);
  CHECK_THROWS_AS((behavioral_cloning{states, states, {.burn_in = -1}}), retain::config_error);
  CHECK_THROWS_AS((behavioral_cloning{
                      states, states, retain::sequences{lengths, {.length = 3}}, {.burn_in = 3}}),
                  retain::config_error);
  behavioral_cloning flat{states, states, {.burn_in = 1}};
  CHECK_THROWS_WITH(flat.loss(as_logits),
                    ContainsSubstring("burn_in of 1 steps needs rows [T, N]"));
  behavioral_cloning merged{
      states, states, retain::sequences{lengths, {.length = 3, .pad = true}}, {.batch_size = 4}};
  CHECK_THROWS_AS(merged.loss([](const at::Tensor& x) { return categorical{x.flatten(0, 1)}; }),
                  retain::shape_error);
}

TEST_CASE("behavioral_cloning: a load that fails late changes neither draws nor data",
          "[behavioral_cloning]") {
  torch::manual_seed(12);
  const auto states = torch::randn({9, 3}, at::kDouble);
  const auto student = [](const at::Tensor& x) { return categorical{x * 0.3}; };
  const auto make = [&] {
    return behavioral_cloning{
        states, states, retain::stratified{torch::arange(9) % 3}, {.batch_size = 4}};
  };
  auto keep = make(), twin = make();
  retain::state saved;
  behavioral_cloning{
      states * 2, states * 2, retain::stratified{torch::arange(9) % 2}, {.batch_size = 4}}
      .save_state(saved, "");
  saved.set("target", torch::zeros({8, 3}, at::kDouble));
  CHECK_THROWS_AS(keep.load_state(saved, ""), retain::shape_error);
  for (int i = 0; i < 3; ++i) CHECK(keep.loss(student).equal(twin.loss(student)));
}

TEST_CASE("behavioral_cloning: last_rows are priorities, of near equals in float too, and belong "
          "to the last draw",
          "[behavioral_cloning]") {
  torch::manual_seed(31);
  const auto states = torch::randn({400, 6});
  const auto said = states * 1.0f;
  retain::behavioral_cloning term{
      states,
      said,
      retain::prioritized{400, {.seed = 3}},
      {.strength = retain::linear{.initial = 1, .last = 0, .over = 10}, .batch_size = 256}};
  const auto nearly = [](const at::Tensor& x) {
    return retain::categorical{x + torch::randn_like(x) * 1e-4};
  };
  for (int i = 0; i < 5; ++i) {
    static_cast<void>(term.loss(nearly));
    CHECK(term.last_rows().min().item<double>() >= 0);
    CHECK_NOTHROW(term.sampler().update(term.last_draw().indices, term.last_rows()));
  }
  term.step(10);
  static_cast<void>(term.loss(nearly));
  CHECK_FALSE(term.last_rows().defined());
}

// Of half, LibTorch 1.13 has no log_softmax on the CPU.
TEST_CASE("behavioral_cloning: in bfloat16 loss and gradient are what they are in double, to its "
          "precision",
          "[behavioral_cloning]") {
  torch::manual_seed(13);
  const auto states = torch::randn({30, 4}).to(at::kBFloat16),
             logits = torch::randn({30, 4}).to(at::kBFloat16),
             offset = torch::randn({4}).to(at::kBFloat16);
  const auto actions = torch::randint(4, {30});
  const auto all = [&](at::ScalarType type) {
    const auto bias = offset.to(type).clone().requires_grad_();
    const auto student = [&](const at::Tensor& x) { return categorical{x + bias}; };
    behavioral_cloning said{
        states.to(type), logits.to(type), {.strength = 0.5, .batch_size = 16, .seed = 1}};
    behavioral_cloning done{states.to(type),
                            retain::expert_actions{actions},
                            {.strength = 0.5, .batch_size = 16, .seed = 1}};
    const auto divergence = said.loss(student), surprise = done.loss(student);
    return std::vector<at::Tensor>{divergence.detach(),
                                   torch::autograd::grad({divergence}, {bias})[0],
                                   surprise.detach(), torch::autograd::grad({surprise}, {bias})[0]};
  };
  const auto narrow = all(at::kBFloat16), wide = all(at::kDouble);
  for (std::size_t i = 0; i < wide.size(); ++i) {
    INFO(i);
    CHECK(narrow[i].scalar_type() == at::kBFloat16);
    CHECK(support::relative_error(narrow[i], wide[i]) < 0x1p-6);
  }
}

TEST_CASE("behavioral_cloning: logits stored in half are cloned by float", "[behavioral_cloning]") {
  torch::manual_seed(31);
  const auto states = torch::randn({6, 3}), logits = torch::randn({6, 3}).to(at::kHalf);
  for (const auto direction :
       {retain::divergence::teacher_student, retain::divergence::student_teacher}) {
    behavioral_cloning half{states, logits, {.batch_size = 8, .direction = direction}};
    behavioral_cloning whole{
        states, logits.to(at::kFloat), {.batch_size = 8, .direction = direction}};
    CHECK(half.loss(as_logits).item<double>() ==
          Approx(whole.loss(as_logits).item<double>()).epsilon(1e-5));
  }
}

}  // namespace behavioral_cloning_test
