// SPDX-License-Identifier: MIT
#include <retain/retain.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support.hpp"

namespace retention_test {

using retain::categorical;

namespace {

struct rollout {
  at::Tensor observations;
};
using set = retain::retention<rollout>;

/// A network and three terms of different kinds around its current weights.
struct setting {
  torch::nn::Linear net{4, 3};
  at::Tensor states = torch::randn({30, 4});
  rollout r{torch::randn({10, 4})};

  retain::ewc ewc(double strength = 3.0) const {
    retain::parameter_list importance;
    for (const auto& [name, t] : retain::parameters(net))
      importance.push_back({name, torch::rand_like(t)});
    return {net, importance, {.strength = strength}};
  }
  auto cloning() const {
    return retain::behavioral_cloning{states, retain::teacher{net}, {.strength = 2.0, .seed = 1}};
  }
  auto kickstarting() const {
    return retain::kickstarting{retain::teacher{net},
                                {.strength = retain::linear{.initial = 1, .last = 0, .over = 10}}};
  }
  void move() {
    const at::NoGradGuard no_grad;
    for (auto& p : net->parameters()) p.add_(0.1 * torch::randn(p.sizes()));
  }
  auto student() {
    return [this](const at::Tensor& x) { return categorical{net->forward(x)}; };
  }
  auto view() { return retain::policy_view{net, student()}; }
};

std::vector<at::Tensor> gradients_of(const torch::nn::Linear& net) {
  return {net->weight.grad().clone(), net->bias.grad().clone()};
}

/// A term that cannot be copied and has no schedule that its own step uses.
struct move_only {
  static constexpr const char* name = "move_only";
  retain::strength_schedule strength = 1.0;
  std::unique_ptr<int> part = std::make_unique<int>(0);

  at::Tensor loss(const retain::parameter_list& model) const {
    return model[0].tensor.sum() * strength.value();
  }
  at::Tensor add_gradient(const retain::parameter_list& model) const { return loss(model); }
  retain::strength_schedule& schedule() { return strength; }
  void save_state(retain::state& out, const std::string& prefix) const {
    strength.save_state(out, prefix);
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    strength.load_state(in, prefix);
  }
};

}  // namespace

static_assert(std::is_copy_constructible_v<set> && std::is_nothrow_move_constructible_v<set>);
static_assert(retain::attachable<set> && retain::stateful<set>);

TEST_CASE("retention: the losses, gradients and reports of compose, to the bit", "[retention]") {
  torch::manual_seed(1);
  setting s;
  auto known = retain::compose(s.ewc(), s.cloning(), s.kickstarting());
  set keep;
  keep.add(known.term<0>());
  keep.add(known.term<1>());
  keep.add("ks", known.term<2>());
  CHECK(keep.names() == std::vector<std::string>{"ewc", "behavioral_cloning", "ks"});
  s.move();
  auto view = s.view();

  for (int round = 0; round < 2; ++round) {
    known.step(round);
    keep.step(round);
    known.distillation(view, s.r).backward();
    const auto expected_value = known.add_gradient(s.net);
    const auto expected = gradients_of(s.net);
    s.net->zero_grad();
    keep.distillation(s.student(), s.r).backward();
    const auto value = keep.add_gradient(s.net);
    const auto gradients = gradients_of(s.net);
    s.net->zero_grad();
    CHECK(value.equal(expected_value));
    for (std::size_t i = 0; i < 2; ++i) CHECK(gradients[i].equal(expected[i]));
    const auto one = keep.breakdown(), other = known.breakdown();
    REQUIRE(one.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(one[i].value.equal(other[i].value));
      CHECK(one[i].strength == other[i].strength);
    }
    CHECK(one[2].name == "ks");
  }
  CHECK(keep.loss(view, s.r).equal(known.loss(view, s.r)));
}

TEST_CASE("retention: an empty set costs nothing and changes nothing", "[retention]") {
  setting s;
  set keep;
  CHECK(keep.empty());
  CHECK(keep.distillation(s.student(), s.r).item<double>() == 0);
  CHECK(keep.add_gradient(s.net).item<double>() == 0);
  CHECK(keep.loss(s.net).item<double>() == 0);
  CHECK(keep.add_gradient(s.net).scalar_type() == at::kDouble);
  CHECK(!s.net->weight.grad().defined());
  keep.step(3);
  CHECK(keep.breakdown().empty());
  CHECK_THROWS_WITH(retain::attach(keep, s.net), ContainsSubstring("no trainable parameter"));
}

TEST_CASE("retention: terms are added, found and removed by name", "[retention]") {
  setting s;
  set keep;
  retain::ewc& first = keep.add(s.ewc());
  keep.add(s.ewc(7.0));
  keep.add("third", retain::l2_init{s.net});
  CHECK(keep.names() == std::vector<std::string>{"ewc", "ewc_2", "third"});
  CHECK(keep.find<retain::ewc>("ewc") == &first);
  CHECK(keep.find<retain::ewc>("ewc_2")->strength() == 7.0);
  CHECK(keep.find<retain::l2_init>("ewc") == nullptr);
  CHECK(std::as_const(keep).find<retain::ewc>("fourth") == nullptr);
  CHECK_THROWS_WITH(keep.add("third", s.ewc()), ContainsSubstring("'third' already"));
  CHECK_THROWS_AS(keep.add("", s.ewc()), retain::config_error);
  CHECK_THROWS_AS(keep.add("a.b", s.ewc()), retain::config_error);
  keep.remove("ewc");
  CHECK(keep.names() == std::vector<std::string>{"ewc_2", "third"});
  CHECK_THROWS_WITH(keep.remove("ewc"), ContainsSubstring("there is 'ewc_2', 'third'"));
  CHECK_THROWS_AS(keep.strength("ewc"), retain::config_error);
  CHECK_THROWS_AS(keep.set_strength("ewc", 1.0), retain::config_error);
  CHECK_THROWS_AS(keep.observe("ewc", 1.0), retain::config_error);
  CHECK(keep.add(s.ewc()).strength() == 3.0);  // the name is free again
  CHECK(keep.names().back() == "ewc");
}

TEST_CASE("retention: a copy is independent, a moved set keeps its terms where they are",
          "[retention]") {
  torch::manual_seed(2);
  setting s;
  set keep;
  const auto* where = &keep.add(s.ewc());
  keep.add(s.cloning());
  s.move();
  set copy = keep;
  copy.set_strength("ewc", 0.0);
  CHECK(keep.strength("ewc") == 3.0);
  // both draw the same first batch, since the copy has its own sampler
  const auto one = keep.distillation(s.student(), s.r), other = copy.distillation(s.student(), s.r);
  CHECK(one.equal(other));
  set moved = std::move(keep);
  CHECK(moved.find<retain::ewc>("ewc") == where);
  CHECK(keep.empty());
  moved = copy;
  CHECK(moved.strength("ewc") == 0.0);

  set fixed;
  fixed.add(move_only{});
  CHECK_THROWS_WITH(set(fixed), ContainsSubstring("'move_only' cannot be copied"));
  set taken = std::move(fixed);
  CHECK(taken.size() == 1);
}

TEST_CASE("retention: step moves all schedules or none, or one by name", "[retention]") {
  setting s;
  set keep;
  keep.add("a", retain::l2_init{s.net, {.strength = [](double p) { return 10 - p; }}});
  keep.add("b", retain::l2_init{s.net, {.strength = [](double p) { return 3 - p; }}});
  keep.step(1);
  CHECK(keep.strength("a") == 9);
  CHECK_THROWS_AS(keep.step(5), retain::config_error);
  CHECK(keep.strength("a") == 9);
  CHECK(keep.strength("b") == 2);
  keep.step("a", 4);
  CHECK(keep.strength("a") == 6);
  CHECK(keep.strength("b") == 2);
}

TEST_CASE("retention: a set strength is saved and goes on, whatever the constructor said",
          "[retention]") {
  torch::manual_seed(3);
  setting s;
  const support::temporary_folder folder;
  const auto made = [&] {
    set keep;
    keep.add(s.ewc());
    keep.add("ks", s.kickstarting());
    return keep;
  };
  torch::manual_seed(4);
  set keep = made();
  s.move();
  keep.set_strength("ewc", retain::linear{.initial = 8, .last = 2, .over = 30});
  keep.step(10);
  CHECK(keep.strength("ewc") == 6);
  keep.set_strength("ks", 0.25);
  retain::save(folder.file("set"), keep);

  torch::manual_seed(4);
  set resumed = made();
  const auto report = retain::load(folder.file("set"), resumed);
  REQUIRE(report.strengths.size() == 2);
  CHECK_THAT(report.strengths[0], ContainsSubstring("loaded linear{8 to 2 over 30} in place of "
                                                    "constant{3}"));
  for (const double progress : {10, 20, 40}) {
    keep.step(progress);
    resumed.step(progress);
    CHECK(resumed.strength("ewc") == keep.strength("ewc"));
    CHECK(resumed.strength("ks") == 0.25);
    CHECK(resumed.loss(s.view(), s.r).equal(keep.loss(s.view(), s.r)));
  }

  torch::manual_seed(4);
  set kept = made();
  const auto notes = retain::load(folder.file("set"), kept, retain::keep_strength);
  CHECK(kept.strength("ewc") == 3);
  CHECK(kept.strength("ks") == 0);  // its own schedule, at the saved progress
  REQUIRE(notes.strengths.size() == 2);
  CHECK_THAT(notes.strengths[0], ContainsSubstring("kept constant{3}"));
}

TEST_CASE("retention: loaded completely or not at all", "[retention]") {
  setting s;
  const support::temporary_folder folder;
  set keep;
  keep.add(s.ewc());
  keep.add(s.cloning());
  retain::save(folder.file("set"), keep);

  set fewer, more, other;
  fewer.add(s.ewc(5.0));
  CHECK_THROWS_WITH(retain::load(folder.file("set"), fewer),
                    ContainsSubstring("behavioral_cloning."));
  CHECK(fewer.strength("ewc") == 5.0);
  more.add(s.ewc(5.0));
  more.add(s.cloning());
  more.add(retain::l2_init{s.net});
  CHECK_THROWS_AS(retain::load(folder.file("set"), more), retain::state_error);
  CHECK(more.strength("ewc") == 5.0);
}

TEST_CASE("retention: one guard pulls with all weight terms, and follows set_strength",
          "[retention][attach]") {
  torch::manual_seed(5);
  setting s;
  set keep;
  keep.add(s.ewc());
  keep.add(retain::l2_init{s.net, {.strength = 0.5, .exclude = {"bias"}}});
  keep.add(s.cloning());
  s.move();
  const auto guard = retain::attach(keep, s.net);
  const auto backward = [&] { s.net->forward(s.r.observations).square().sum().backward(); };
  const auto pull_of = [&](double l2) {
    s.net->zero_grad();
    keep.set_strength("l2_init", l2);
    backward();
    return gradients_of(s.net);
  };
  const auto pulled = pull_of(0.5);
  CHECK_THROWS_WITH(retain::attach(keep, s.net), ContainsSubstring("another guard"));

  setting plain = s;
  plain.net = torch::nn::Linear(std::dynamic_pointer_cast<torch::nn::LinearImpl>(s.net->clone()));
  const auto expected = [&](double l2) {
    plain.net->zero_grad();
    plain.net->forward(s.r.observations).square().sum().backward();
    keep.set_strength("l2_init", l2);
    keep.add_gradient(plain.net);
    return gradients_of(plain.net);
  };
  const auto half = expected(0.5);
  for (std::size_t i = 0; i < 2; ++i) CHECK(support::relative_error(pulled[i], half[i]) < 1e-6);
  const auto none = expected(0.0);
  const auto without = pull_of(0.0);
  for (std::size_t i = 0; i < 2; ++i) CHECK(support::relative_error(without[i], none[i]) < 1e-6);

  // a term of the set, and a const term or set
  CHECK_THROWS_WITH(retain::attach(*keep.find<retain::ewc>("ewc"), s.net),
                    ContainsSubstring("another guard"));
  const retain::ewc alone = s.ewc();
  CHECK(retain::attach(alone, s.net).attached());
  const set all = keep;
  CHECK(retain::attach(all, s.net).attached());
  auto known = retain::compose(s.ewc(), s.cloning());
  const auto guarded = retain::attach(known, s.net);
  CHECK_THROWS_WITH(retain::attach(known.term<0>(), s.net), ContainsSubstring("another guard"));

  set own;
  own.add(move_only{});
  CHECK_THROWS_WITH(retain::attach(own, s.net),
                    ContainsSubstring("'move_only' cannot be attached"));
  // added while the guard lives, it is not forgotten without a word
  keep.add(move_only{});
  s.net->zero_grad();
  CHECK_THROWS_WITH(backward(), ContainsSubstring("'move_only' cannot be attached"));
}

TEST_CASE("retention: adapt holds the KL of a probe near its target, resumed to the bit",
          "[retention]") {
  // The task pulls the policy away from the teacher with a constant force on the logits' bias.
  torch::manual_seed(6);
  setting s;
  const auto far = torch::randn({50, 4});
  const auto run = [&](double initial, int steps, const std::string& resume, int from) {
    setting own = s;
    own.net = torch::nn::Linear(std::dynamic_pointer_cast<torch::nn::LinearImpl>(s.net->clone()));
    set keep;
    keep.add("l2", retain::l2_init{own.net, {.strength = initial}});
    retain::monitor watch{retain::teacher{s.net}};
    watch.add("FAR", far);
    CHECK_THROWS_AS(keep.adapt("l2", watch, "FAR", 0.02), retain::config_error);  // not measured
    double kl = 0;
    const support::temporary_folder folder;
    for (int i = 1; i <= steps; ++i) {
      torch::optim::SGD optimizer(own.net->parameters(), 0.01);
      for (int inner = 0; inner < 5; ++inner) {
        optimizer.zero_grad();
        own.net->forward(s.states).select(1, 0).mean().neg().backward();
        keep.add_gradient(own.net);
        optimizer.step();
      }
      watch.measure(own.student(), i);
      keep.adapt("l2", watch, "FAR", 0.02);
      const double strength = keep.strength("l2");
      keep.adapt("l2", watch, "FAR", 0.02);  // the same measurement once more
      CHECK(keep.strength("l2") == strength);
      kl = watch.kl("FAR");
      if (!resume.empty() && i == from) {
        retain::save(folder.file(resume), keep);
        set fresh;
        fresh.add("l2", retain::l2_init{own.net, {.strength = 123.0}});
        retain::load(folder.file(resume), fresh);
        keep = std::move(fresh);
      }
    }
    return std::pair{kl, keep.strength("l2")};
  };
  for (const double initial : {0.01, 1.0, 10.0}) {
    const auto [kl, strength] = run(initial, 80, "", 0);
    INFO("from " << initial);
    CHECK(kl == Approx(0.02).epsilon(0.2));
    CHECK(run(initial, 80, "half", 20) == std::pair{kl, strength});
  }
}

TEST_CASE("retention: masks, logits and a student with memory", "[retention]") {
  struct stretch {
    at::Tensor observations, state, episode_start, mask;
  };
  torch::manual_seed(7);
  torch::nn::Linear net(3, 3);
  const auto fixed = [](const at::Tensor& o) { return categorical{o}; };
  retain::kickstarting term{fixed, {.strength = 2.0}};
  retain::retention<stretch> keep;
  keep.add(term);
  // Adds up what it saw since the episode began: [T, N, 3]; the state is the sum before.
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
  const stretch steps{torch::randn({5, 2, 3}), torch::randn({2, 3}), torch::rand({5, 2}).lt(0.3),
                      torch::rand({5, 2}).lt(0.8)};
  CHECK(keep.distillation(recall, steps).equal(term.loss(recall, steps)));
  const auto plain = [&](const at::Tensor& o) { return net(o); };  // logits
  CHECK(keep.distillation(plain, steps).equal(term.loss(plain, steps)));
  const auto with_mask = [&](const at::Tensor& o) {
    return retain::masked{categorical{net(o)}, steps.mask.logical_not()};
  };
  CHECK(keep.distillation(with_mask, steps).item<double>() == 0);  // nothing is left of both masks
}

namespace {

at::Tensor as_they_are(const at::Tensor& observations) { return observations; }

}  // namespace

TEST_CASE("retention: a function as student, a single state of a student with memory, an adopted "
          "student",
          "[retention]") {
  torch::manual_seed(10);
  setting s;
  const rollout same{torch::randn({10, 3})};
  set keep;
  retain::kickstarting term{[](const at::Tensor& o) { return categorical{2 * o}; }};
  keep.add(term);
  CHECK(keep.distillation(as_they_are, same).equal(term.loss(as_they_are, same)));

  set stored;
  stored.add(s.cloning());
  const auto recall = [](const at::Tensor& o, const at::Tensor& state, const at::Tensor&) {
    return std::tuple{categorical{o}, state};
  };
  CHECK_THROWS_WITH(stored.distillation(recall, s.r), ContainsSubstring("sampler of sequences"));

  // A head is trained on a trunk that the teacher adopted, so the loss has a graph.
  torch::nn::Linear head(3, 3);
  struct trunk_and_head {
    torch::nn::Linear trunk, head;
    retain::parameter_list named_parameters() const {
      auto list = retain::parameters(trunk);
      for (auto& entry : retain::parameters(head))
        list.push_back({"head." + entry.name, entry.tensor});
      return list;
    }
  };
  const trunk_and_head both{s.net, head};
  const retain::policy_view view{
      both, [&](const at::Tensor& o) { return categorical{head->forward(s.net->forward(o))}; }};
  set adopted;
  adopted.add(retain::kickstarting{retain::teacher{retain::adopt, s.net}});
  CHECK_THROWS_WITH(adopted.loss(view, s.r), ContainsSubstring("adopted teacher"));
}

TEST_CASE("retention: adapt follows one probe, from any strength and any progress", "[retention]") {
  torch::manual_seed(11);
  setting s;
  set keep;
  keep.add(s.ewc());
  retain::monitor watch{retain::teacher{s.net}};
  watch.add("FAR", torch::randn({20, 4}));
  watch.add("CLOSE", torch::randn({20, 4}));
  s.move();
  watch.measure(s.student(), -1);
  keep.set_strength("ewc", 1e-8);
  keep.adapt("ewc", watch, "FAR", 1e-4);
  CHECK(keep.strength("ewc") == Approx(1e-6 * std::exp(1.0)));
  CHECK_THROWS_WITH(keep.adapt("ewc", watch, "CLOSE", 1e-4), ContainsSubstring("one probe"));
  CHECK_THROWS_AS(keep.adapt("ewc", watch, "FAR", 0.0), retain::config_error);
}

namespace {

using network = torch::nn::Linear;

/// The agent of README, with a loss of its own in place of PPO's.
class my_agent {
  retain::retention<> keep_;  // at::Tensor observations, categorical answers; other types are
                              // template arguments

 public:
  explicit my_agent(network policy)
      : policy_(std::move(policy)), optimizer_(policy_->parameters(), 0.1) {}

  void retain_skills(const retain::teacher<network>& teacher, const retain::fisher& fisher) {
    keep_.add(retain::ewc{*policy_, fisher, {.strength = 500.0}});
    keep_.add("ks", retain::kickstarting{teacher, {.strength = 0.5}});
  }
  void update(const retain::steps& rollout) {
    const auto student = [this](const at::Tensor& o) { return policy_->forward(o); };  // logits
    optimizer_.zero_grad();
    (ppo_loss(rollout) + keep_.distillation(student, rollout)).backward();
    keep_.add_gradient(*policy_);
    optimizer_.step();
  }
  void set_strength(const std::string& term, double strength) {
    keep_.set_strength(term, strength);  // saved with the state
  }

 private:
  at::Tensor ppo_loss(const retain::steps& rollout) {
    return policy_->forward(rollout.observations).select(1, 0).mean();
  }
  network policy_;
  torch::optim::SGD optimizer_;
};

}  // namespace

TEST_CASE("retention: an agent that holds its terms, as in README", "[retention]") {
  torch::manual_seed(9);
  network policy(3, 2);
  const auto states = torch::randn({20, 3});
  const retain::teacher teacher{policy};
  const auto fisher = retain::estimate_fisher(
      policy, states, [&](const at::Tensor& o) { return policy->forward(o); });
  const auto moved = [&](double strength) {
    network own(std::dynamic_pointer_cast<torch::nn::LinearImpl>(policy->clone()));
    my_agent agent(own);
    agent.retain_skills(teacher, fisher);
    agent.set_strength("ewc", strength);
    agent.set_strength("ks", strength);
    for (int i = 0; i < 50; ++i) agent.update({.observations = states});
    return (own->weight - policy->weight).norm().item<double>();
  };
  CHECK(moved(5.0) < 0.5 * moved(0.0));
}

TEST_CASE("retention: another distribution and observations of any type", "[retention]") {
  struct seen {
    at::Tensor position;
  };
  struct flight {
    seen observations;
  };
  torch::manual_seed(8);
  torch::nn::Linear net(2, 2);
  const auto student = [&](const seen& o) {
    return retain::diagonal_gaussian{net(o.position), torch::zeros({2})};
  };
  const auto fixed = [](const seen& o) {
    return retain::diagonal_gaussian{o.position, torch::zeros({2})};
  };
  retain::retention<flight, retain::diagonal_gaussian> keep;
  retain::kickstarting term{fixed, {.strength = 2.0}};
  keep.add(term);
  const flight f{{torch::randn({6, 2})}};
  CHECK(keep.distillation(student, f).equal(term.loss(student, f)));
}

}  // namespace retention_test
