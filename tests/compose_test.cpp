// SPDX-License-Identifier: MIT
#include <retain/retain.hpp>

#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "support.hpp"

namespace compose_test {

using retain::categorical;

namespace {
struct rollout {
  at::Tensor observations;
};

struct setting {
  torch::nn::Linear net{4, 3};
  at::Tensor states = torch::randn({30, 4});
  rollout r{torch::randn({10, 4})};

  auto terms() {
    retain::parameter_list importance;
    for (const auto& [name, t] : retain::parameters(net))
      importance.push_back({name, torch::ones_like(t)});
    const retain::teacher t{net};
    return std::tuple{
        retain::ewc{net, importance, {.strength = 3.0}},
        retain::behavioral_cloning{states, t, {.strength = 2.0, .seed = 1}},
        retain::kickstarting{t, {.strength = retain::linear{.initial = 1, .last = 0, .over = 10}}}};
  }
  void move() {
    const at::NoGradGuard no_grad;
    for (auto& p : net->parameters()) p.add_(0.1 * torch::randn(p.sizes()));
  }
  auto view() {
    return retain::policy_view{
        net, [this](const at::Tensor& x) { return categorical{net->forward(x)}; }};
  }
};
}  // namespace

TEST_CASE("compose: the sum of its terms, with a breakdown by name", "[compose]") {
  torch::manual_seed(1);
  setting s;
  auto [e, b, k] = s.terms();
  auto [e2, b2, k2] = s.terms();
  auto keep = retain::compose(e, b, k);
  s.move();
  auto view = s.view();
  const auto sum = keep.loss(view, s.r);
  const double ve = e2.loss(s.net).item<double>(), vb = b2.loss(view).item<double>(),
               vk = k2.loss(view, s.r).item<double>();
  CHECK(sum.item<double>() == Approx(ve + vb + vk));
  const auto parts = keep.breakdown();
  REQUIRE(parts.size() == 3);
  CHECK(parts[0].name == "ewc");
  CHECK(parts[1].name == "behavioral_cloning");
  CHECK(parts[2].name == "kickstarting");
  CHECK(parts[0].value.item<double>() == Approx(ve));
  CHECK(parts[1].value.item<double>() == Approx(vb));
  CHECK(parts[2].value.item<double>() == Approx(vk));
  CHECK(parts[0].strength == 3.0);
  CHECK(!parts[0].value.requires_grad());
}

TEST_CASE("compose: the graph and the fused way give the same gradient", "[compose]") {
  torch::manual_seed(2);
  setting s;
  auto [e, b, k] = s.terms();
  auto one = retain::compose(e, b, k), two = one;
  s.move();
  auto view = s.view();
  one.loss(view, s.r).backward();
  const auto graph = s.net->weight.grad().clone();
  s.net->zero_grad();
  s.net->weight.mutable_grad() = at::Tensor();
  s.net->bias.mutable_grad() = at::Tensor();
  two.distillation(view, s.r).backward();
  two.add_gradient(s.net);
  CHECK(support::relative_error(s.net->weight.grad(), graph) < 1e-6);
}

TEST_CASE("compose: step moves every schedule, a single term can be stepped by itself",
          "[compose]") {
  torch::manual_seed(3);
  setting s;
  auto [e, b, k] = s.terms();
  auto keep = retain::compose(e, b, k);
  keep.step(5);
  CHECK(keep.term<2>().strength() == 0.5);
  keep.term<2>().step(10);
  CHECK(keep.breakdown()[2].strength == 0.0);
  CHECK(keep.breakdown()[0].strength == 3.0);
  s.move();
  auto view = s.view();
  const double sum = keep.loss(view, s.r).item<double>();
  const auto parts = keep.breakdown();
  CHECK(sum == Approx(parts[0].value.item<double>() + parts[1].value.item<double>()));
  CHECK(parts[2].value.item<double>() == 0.0);
}

TEST_CASE("compose: terms that are switched off cost nothing and are not reported", "[compose]") {
  torch::manual_seed(4);
  setting s;
  auto [e, b, k] = s.terms();
  std::optional<retain::l2_init> off;
  auto keep = retain::compose(off, std::optional(e), std::optional(retain::ewc(e)));
  s.move();
  CHECK(keep.breakdown().size() == 2);
  CHECK(keep.breakdown()[1].name == "ewc_2");
  CHECK(keep.loss(s.net).item<double>() == Approx(2 * e.loss(s.net).item<double>()));
  auto nothing = retain::compose(off);
  CHECK(nothing.loss(s.net).item<double>() == 0);
  CHECK(nothing.add_gradient(s.net).item<double>() == 0);
  CHECK(nothing.distillation(s.view(), s.r).item<double>() == 0);
}

TEST_CASE("compose: saved as one file, loaded completely or not at all", "[compose]") {
  const support::temporary_folder folder;
  torch::manual_seed(5);
  setting s;
  auto [e, b, k] = s.terms();
  auto keep = retain::compose(e, b, k);
  s.move();
  auto view = s.view();
  static_cast<void>(keep.loss(view, s.r));
  keep.step(4);
  retain::save(folder.file("r"), keep);

  // anchored at the moved weights: all of it must come from the file
  auto [e2, b2, k2] = s.terms();
  auto resumed = retain::compose(e2, b2, k2);
  retain::load(folder.file("r"), resumed);
  for (int i = 0; i < 3; ++i) CHECK(resumed.loss(view, s.r).equal(keep.loss(view, s.r)));

  // A composition whose last term has another teacher: the first two would fit, and must stay as
  // they were. The lambda must be back too.
  auto own = retain::ewc{e2};
  own.set_strength([](double) { return 7.0; });
  auto other = retain::compose(
      own, b2, retain::kickstarting{retain::teacher{torch::nn::Linear(4, 5)}, {.strength = 7.0}});
  const double before = other.term<0>().loss(s.net).item<double>();
  CHECK_THROWS_AS(retain::load(folder.file("r"), other), retain::shape_error);
  CHECK(other.term<0>().strength() == 7.0);
  CHECK(other.term<0>().loss(s.net).item<double>() == before);
}

TEST_CASE("compose: a recurrent student gets its state and episode_start through the view",
          "[compose]") {
  struct stretch {
    at::Tensor observations, state, episode_start, teacher;
  };
  torch::manual_seed(7);
  torch::nn::Linear net(3, 3);
  // Adds up what it saw since the episode began: [T, N, 3], the state is the sum before the first
  // step.
  const auto recall = [&](const at::Tensor& observations, const at::Tensor& state,
                          const at::Tensor& episode_start) {
    auto sum = state;
    std::vector<at::Tensor> logits;
    for (std::int64_t t = 0; t < observations.size(0); ++t) {
      sum = sum.masked_fill(episode_start[t].unsqueeze(-1), 0) + observations[t];
      logits.push_back(net(sum));
    }
    return std::tuple{categorical{torch::stack(logits)}, sum};
  };
  const retain::policy_view view{net, recall};
  static_assert(std::invocable<decltype(view), at::Tensor, at::Tensor, at::Tensor>);
  static_assert(!std::invocable<decltype(view), at::Tensor>);

  const stretch steps{torch::randn({5, 2, 3}), torch::randn({2, 3}), torch::rand({5, 2}).lt(0.3),
                      torch::randn({5, 2, 3})};
  // the rollout has the teacher's answers
  const auto silent = [](const at::Tensor& o) { return categorical{o}; };
  auto keep =
      retain::compose(retain::l2_init{net}, retain::kickstarting{silent, {.strength = 2.0}});
  {
    const at::NoGradGuard no_grad;
    net->weight.add_(0.5);
  }
  const double expected =
      9 * 0.25 +
      2 * retain::kl(categorical{steps.teacher},
                     std::get<0>(recall(steps.observations, steps.state, steps.episode_start)))
              .mean()
              .item<double>();
  CHECK(keep.loss(view, steps).item<double>() == Approx(expected));
  CHECK(keep.distillation(view, steps).item<double>() == Approx(expected - 9 * 0.25));
}

namespace {

/// A term of somebody's own, named by a std::string.
struct named_by_string {
  static inline const std::string name = "mine";
  retain::strength_schedule own = 1.0;
  bool refuses = false;
  int loads = 0;

  at::Tensor loss(const retain::parameter_list& model) const {
    return model[0].tensor.square().sum() * own.value();
  }
  at::Tensor add_gradient(const retain::parameter_list&) const { return torch::zeros({}); }
  retain::strength_schedule& schedule() { return own; }
  void step(double progress) {
    if (refuses) throw retain::config_error("refused");
    own.step(progress);
  }
  void save_state(retain::state& out, const std::string& prefix) const {
    own.save_state(out, prefix);
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    own.load_state(in, prefix);
    ++loads;
  }
};
struct named_by_view : named_by_string {
  static constexpr std::string_view name = "seen";
};

retain::l2_init falling(const std::vector<at::Tensor>& w, double from) {
  return retain::l2_init{w, {.strength = [from](double progress) { return from - progress; }}};
}

}  // namespace

namespace {
struct named_like_a_second : named_by_string {
  static constexpr const char* name = "l2_init_2";
};
struct named_with_a_dot : named_by_string {
  static constexpr const char* name = "l2.init";
};
}  // namespace

TEST_CASE("compose: no two terms have one name", "[compose]") {
  const std::vector<at::Tensor> w{torch::ones({2}).requires_grad_()};
  auto keep = retain::compose(retain::l2_init{w}, retain::l2_init{w}, named_like_a_second{});
  const auto parts = keep.breakdown();
  REQUIRE(parts.size() == 3);
  CHECK(parts[1].name == "l2_init_2");
  CHECK(parts[2].name == "l2_init_2_2");
  CHECK_THROWS_AS(retain::compose(named_with_a_dot{}), retain::config_error);
}

TEST_CASE("compose: a term's name is text in any form", "[compose]") {
  const std::vector<at::Tensor> w{torch::ones({2}).requires_grad_()};
  auto keep =
      retain::compose(named_by_string{}, named_by_view{}, named_by_string{}, retain::l2_init{w});
  CHECK(keep.loss(w).item<double>() == 6);
  const auto parts = keep.breakdown();
  REQUIRE(parts.size() == 4);
  CHECK(parts[0].name == "mine");
  CHECK(parts[1].name == "seen");
  CHECK(parts[2].name == "mine_2");
  CHECK(parts[3].name == "l2_init");
}

TEST_CASE("compose: a step that one schedule refuses moves none", "[compose]") {
  const std::vector<at::Tensor> w{torch::ones({2}).requires_grad_()};
  auto keep = retain::compose(falling(w, 10), std::optional(falling(w, 3)), falling(w, 20));
  keep.step(1);
  CHECK_THROWS_AS(keep.step(5), retain::config_error);
  CHECK(keep.term<0>().strength() == 9);
  CHECK(keep.term<1>()->strength() == 2);
  CHECK(keep.term<2>().strength() == 19);
  CHECK_THROWS_AS(keep.step(std::nan("")), retain::config_error);
  keep.term<1>().reset();
  keep.step(5);
  CHECK(keep.term<0>().strength() == 5);

  auto with_own = retain::compose(falling(w, 10), named_by_string{}, falling(w, 20));
  with_own.term<1>().refuses = true;  // and cannot be asked beforehand
  CHECK_THROWS_WITH(with_own.step(1), ContainsSubstring("refused"));
  CHECK(with_own.term<0>().strength() == 10);
  CHECK(with_own.term<2>().strength() == 20);
}

TEST_CASE("compose: a state of which one term refuses its part is loaded by none", "[compose]") {
  const std::vector<at::Tensor> w{torch::ones({2}).requires_grad_()};
  const auto make = [&] {
    return retain::compose(retain::l2_init{w, {.strength = retain::linear{.over = 10}}},
                           named_by_string{}, retain::l2_init{w});
  };
  auto keep = make(), other = make();
  other.step(4);
  retain::state saved;
  other.save_state(saved, "");
  saved.set("l2_init.anchor.0", torch::zeros({2}));
  saved.set("l2_init_2.anchor.0", torch::full({2}, std::nan("")));
  CHECK_THROWS_WITH(keep.load_state(saved, ""), ContainsSubstring("anchor of '0'"));
  CHECK(keep.term<0>().strength() == 1);
  // that of the middle one alone: both anchors are still where w is
  CHECK(keep.loss(w).item<double>() == 2);
  saved.set("l2_init_2.anchor.0", torch::ones({2}));
  keep.load_state(saved, "");
  CHECK(keep.term<0>().strength() == 0.6);
  CHECK(keep.term<0>().loss(w).item<double>() == Approx(2 * 0.6));
}

}  // namespace compose_test
