// SPDX-License-Identifier: MIT
#include <retain/behavioral_cloning.hpp>

#include "support.hpp"

using retain::behavioral_cloning;
using retain::categorical;

namespace {

/// Sequences of different lengths, padded: what a recurrent policy is cloned from.
struct sequences {
  at::Tensor steps;  // [n, T, A]
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

TEST_CASE("behavioral_cloning: a live teacher and stored logits give the same loss", "[behavioral_cloning]") {
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

TEST_CASE("behavioral_cloning: over all states, the mean of many batches is the mean KL", "[behavioral_cloning]") {
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

TEST_CASE("behavioral_cloning: equal seeds draw equal batches, other seeds others; the draw goes on after a load", "[behavioral_cloning]") {
  const support::temporary_folder folder;
  torch::manual_seed(3);
  const auto states = torch::randn({1000, 3}, at::kDouble);
  const auto student = [](const at::Tensor& x) { return categorical{x * 0.3}; };
  const auto make = [&](std::uint64_t seed) { return behavioral_cloning{states, states, {.batch_size = 8, .seed = seed}}; };
  auto a = make(1), b = make(1), c = make(2);
  CHECK(a.loss(student).item<double>() == b.loss(student).item<double>());
  CHECK(a.loss(student).item<double>() != c.loss(student).item<double>());
  retain::save(folder.file("bc"), a);
  auto resumed = behavioral_cloning{torch::zeros({1000, 3}, at::kDouble), torch::zeros({1000, 3}, at::kDouble), {.batch_size = 8, .seed = 9}};
  retain::load(folder.file("bc"), resumed);
  for (int i = 0; i < 3; ++i) CHECK(resumed.loss(student).item<double>() == a.loss(student).item<double>());
}

TEST_CASE("behavioral_cloning: sequences with padding", "[behavioral_cloning]") {
  torch::manual_seed(4);
  const sequences memory{torch::randn({6, 5, 3}, at::kDouble), torch::tensor({5, 3, 1, 4, 2, 5})};
  const auto teacher = [](const sequences::batch& b) { return categorical{b.steps}; };
  const auto student = [](const sequences::batch& b) { return retain::masked{categorical{b.steps * 0.2}, b.mask}; };
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
}

TEST_CASE("behavioral_cloning: a state of other data is refused and changes nothing", "[behavioral_cloning]") {
  const support::temporary_folder folder;
  torch::manual_seed(5);
  const auto states = torch::randn({6, 3});
  const auto student = [](const at::Tensor& x) { return categorical{x * 0.3}; };
  retain::save(folder.file("wide"), behavioral_cloning{torch::zeros({6, 7}), torch::zeros({6, 7})});
  retain::save(folder.file("double"), behavioral_cloning{torch::zeros({6, 3}, at::kDouble), torch::zeros({6, 3}, at::kDouble)});
  behavioral_cloning keep{states, states, {.seed = 1}}, twin{states, states, {.seed = 1}};
  CHECK_THROWS_AS(retain::load(folder.file("wide"), keep), retain::shape_error);
  CHECK_THROWS_AS(retain::load(folder.file("double"), keep), retain::state_error);
  CHECK(keep.loss(student).item<double>() == twin.loss(student).item<double>());
}

TEST_CASE("behavioral_cloning: what cannot work is refused", "[behavioral_cloning]") {
  const auto states = torch::zeros({5, 2});
  CHECK_THROWS_AS((behavioral_cloning{torch::zeros({0, 2}), torch::zeros({0, 2})}), retain::config_error);
  CHECK_THROWS_AS((behavioral_cloning{states, states, {.batch_size = 0}}), retain::config_error);
  CHECK_THROWS_WITH((behavioral_cloning{states, torch::zeros({4, 2})}), ContainsSubstring("4 rows") && ContainsSubstring("5 states"));
}
