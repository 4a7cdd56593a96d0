// SPDX-License-Identifier: MIT
// The agent: what it draws, counts and keeps; that it learns; that equal runs and resumed runs are
// equal bit for bit.
#include "../support.hpp"

#include "clone.hpp"
#include "pyramid.hpp"
#include "teacher.hpp"
#include "trainer.hpp"

#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace montezuma_agent_test {

namespace {

using namespace montezuma;

/// A corridor of three places: right pays a point and leads on, left ends the episode in shame; a
/// lap ends after six steps.
class corridor {
 public:
  using value_type = float;
  static constexpr int actions = 2, rooms = 3;
  static std::vector<std::int64_t> observation_shape() { return {3}; }
  static std::int64_t newest_channels() { return 3; }

  void reset(int room) { at_ = room, steps_ = 0, right_ = 0; }
  step_result step(int action) {
    ++steps_;
    right_ = action == 1;
    if (right_) at_ = (at_ + 1) % 3;
    return {right_ ? 1.0f : 0.0f, !right_ || steps_ == 6};
  }
  void observe(float* values) const {
    for (int i = 0; i < 3; ++i) values[i] = i == at_ ? 1.0f : 0.0f;
  }
  int room() const { return at_; }
  bool succeeded() const { return right_; }
  std::uint64_t place_key() const { return static_cast<std::uint64_t>(at_); }
  std::string save() const {
    return std::string(reinterpret_cast<const char*>(this), sizeof *this);
  }
  void restore(std::string_view saved) {
    std::memcpy(static_cast<void*>(this), saved.data(), sizeof *this);
  }

 private:
  int at_ = 0, steps_ = 0;
  bool right_ = false, unused_[3] = {};
};
static_assert(emulator<corridor>);

/// A place for each step, whatever the action; the reward is the action's. The limit of steps ends
/// an episode, or does not exist. `real`: the end counts as the task's own.
template <bool limited, bool real>
class clockwork {
 public:
  using value_type = float;
  static constexpr int actions = 2, rooms = 1, limit = 5;
  static std::vector<std::int64_t> observation_shape() { return {3}; }
  static std::int64_t newest_channels() { return 3; }

  void reset(int) { steps_ = 0; }
  step_result step(int action) {
    const bool over = ++steps_ == limit && limited;
    return {static_cast<float>(action), over, over && !real};
  }
  void observe(float* values) const {
    for (int i = 0; i < 3; ++i) values[i] = i == steps_ % 3 ? 1.0f : 0.0f;
  }
  int room() const { return 0; }
  bool succeeded() const { return false; }
  std::uint64_t place_key() const { return static_cast<std::uint64_t>(steps_); }
  std::string save() const { return std::to_string(steps_); }
  void restore(std::string_view saved) { steps_ = std::stoi(std::string(saved)); }

 private:
  int steps_ = 0;
};

training_settings small(bonus_kind bonus = bonus_kind::count) {
  auto settings = preset("quick");
  settings.games = 8;
  settings.horizon = 16;
  settings.minibatches = 2;
  settings.bonus = bonus;
  settings.room = 0;
  settings.steps = 8 * 16 * 40;
  return settings;
}

policy corridor_policy() {
  at::manual_seed(3);
  return make_policy({3, 2, 16});
}

world_options world() { return {}; }
policy pyramid_policy(std::uint64_t seed = 3) {
  at::manual_seed(seed);
  return make_policy({numbers_of<pyramid>(), pyramid::actions, 16});
}

bool equal(const policy& a, const policy& b) {
  auto other = b->named_parameters();
  for (const auto& parameter : a->named_parameters())
    if (!parameter.value().equal(other[parameter.key()])) return false;
  return true;
}
double distance(const policy& a, const policy& b) {
  double greatest = 0;
  auto other = b->named_parameters();
  for (const auto& parameter : a->named_parameters())
    greatest =
        std::max(greatest, (parameter.value() - other[parameter.key()]).abs().max().item<double>());
  return greatest;
}
double divergence(policy& teacher, policy& student, const at::Tensor& states) {
  return retain::kl(retain::categorical{logits_of(teacher, states)},
                    retain::categorical{logits_of(student, states)})
      .mean()
      .item<double>();
}

trainer<pyramid> make_trainer(const policy& start, const training_settings& settings,
                              const std::string& retain, retention_settings kept = {},
                              const at::Tensor& memory = {}) {
  auto network = copy_of(start);
  kept.choose(retain);
  auto terms = make_retention(network, memory, kept, 5);
  return trainer<pyramid>(network, games_of(world(), settings.seed, settings.games), settings,
                          std::move(terms), kept);
}

}  // namespace

TEST_CASE("an action is drawn by inversion, with its log-probability", "[montezuma][agent]") {
  // probabilities 1/8, 2/8, 5/8
  const std::vector<float> logits{0.0f, std::log(2.0f), std::log(5.0f)};
  CHECK(draw_action(logits, 0.0).action == 0);
  CHECK(draw_action(logits, 0.124).action == 0);
  CHECK(draw_action(logits, 0.126).action == 1);
  CHECK(draw_action(logits, 0.374).action == 1);
  CHECK(draw_action(logits, 0.376).action == 2);
  CHECK(draw_action(logits, 1.0 - 1e-16).action == 2);
  CHECK(draw_action(logits, 0.3).log_probability == Approx(std::log(0.25)));
  const std::vector<float> certain{-1000.0f, 1000.0f, -1000.0f};
  CHECK(draw_action(certain, 0.999999999).action == 1);
  const auto rows = at::tensor(logits).unsqueeze(0);
  CHECK(retain::categorical{rows}.log_prob(at::tensor({2}, at::kLong)).item<float>() ==
        Approx(draw_action(logits, 0.9).log_probability));
}

TEST_CASE("a place pays one over the root of its visits, a rollout's counted first",
          "[montezuma][agent]") {
  visit_counts counts;
  const std::vector<std::uint64_t> first{7, 7, 9}, second{7};
  CHECK(counts.rewards(first) == std::vector<float>{static_cast<float>(1 / std::sqrt(2.0)),
                                                    static_cast<float>(1 / std::sqrt(2.0)), 1.0f});
  CHECK(counts.rewards(second) == std::vector<float>{static_cast<float>(1 / std::sqrt(3.0))});
  CHECK(counts.places() == 2);
  retain::state saved;
  counts.save_state(saved, "");
  visit_counts loaded;
  loaded.load_state(saved, "");
  CHECK(loaded.rewards(second) == std::vector<float>{0.5f});
  saved.set("visits", at::ones({4}, at::kLong));
  CHECK_THROWS_AS(loaded.load_state(saved, ""), retain::shape_error);
  saved.set("visits", at::zeros({1, 2}, at::kLong));
  CHECK_THROWS_WITH(loaded.load_state(saved, ""), ContainsSubstring("0 visits"));
}

TEST_CASE("a policy that says another size than its numbers have is refused before a network of "
          "that size is made",
          "[montezuma][agent]") {
  retain::state saved;
  save_network(saved, make_policy({3, 2, 8}), "p.");
  CHECK(shape_of(load_network(saved, "p.")) == policy_shape{3, 2, 8});
  for (const auto* size : {"p.width", "p.inputs", "p.actions"})
    for (const auto value : {std::int64_t{1} << 40, std::int64_t{-1}}) {
      auto bad = saved;
      bad.set(size, value);
      CHECK_THROWS_AS(load_network(bad, "p."), retain::shape_error);
    }
}

TEST_CASE("the bonus is divided by the deviation of its discounted sum over time",
          "[montezuma][agent]") {
  auto settings = small();
  settings.games = 1;
  novelty bonus(settings, {3});
  const std::vector<std::uint64_t> places{1, 2, 3};
  const auto paid = bonus.rewards(places, at::zeros({3, 1, 3}));
  // R = 1, 1.99, 2.9701: mean 1.98670, variance 0.647076, beside a weight of 1e-4 samples of mean 0
  // and variance 1.
  const double mean = 5.9601 / 3, n = 3.0001;
  const double squares =
      (1 - mean) * (1 - mean) + (1.99 - mean) * (1.99 - mean) + (2.9701 - mean) * (2.9701 - mean);
  const double variance = (squares + 1e-4 + mean * mean * 3 * 1e-4 / n) / n;
  for (int t = 0; t < 3; ++t)
    CHECK(paid[t][0].item<double>() == Approx(1 / std::sqrt(variance)).epsilon(1e-5));
  CHECK(1 / std::sqrt(variance) == Approx(1.2431).epsilon(1e-3));

  settings.bonus = bonus_kind::none;
  novelty nothing(settings, {3});
  CHECK(nothing.rewards(places, at::zeros({3, 1, 3})).abs().max().item<double>() == 0);
}

TEST_CASE("distillation pays less for what it was shown", "[montezuma][agent]") {
  auto settings = small(bonus_kind::rnd);
  settings.rnd_fraction = 1;
  at::manual_seed(4);
  novelty bonus(settings, {6});
  const auto seen = at::eye(6).slice(0, 0, 3).repeat({8, 1}).view({3, 8, 6}),
             all = at::eye(6).repeat({8, 1}).view({6, 8, 6});
  bonus.warm_up(all);
  for (int i = 0; i < 300; ++i) bonus.learn(seen.flatten(0, 1));
  const auto paid = bonus.rewards({}, all).flatten();
  const auto place = all.flatten(0, 1).argmax(1);
  const double known = paid.index({place.lt(3)}).mean().item<double>(),
               unknown = paid.index({place.ge(3)}).mean().item<double>();
  CHECK(known * 5 < unknown);
}

TEST_CASE("games begin anew where they end, and say what they were", "[montezuma][agent]") {
  games<corridor> all(std::vector<corridor>(2), 1);
  std::vector<float> rewards(2), ended(2), truncated(2), seen(6);
  std::vector<std::uint64_t> places(2);
  const auto step = [&](std::int64_t a, std::int64_t b) {
    all.step(std::vector<std::int64_t>{a, b}, rewards, ended, truncated, places);
  };
  step(1, 1);
  step(0, 1);
  CHECK(rewards == std::vector<float>{0, 1});
  CHECK(ended == std::vector<float>{1, 0});
  CHECK(places == std::vector<std::uint64_t>{2, 0});  // before the first begins anew
  CHECK(all[0].room() == 1);
  all.observe(seen.data(), 3);
  CHECK(seen == std::vector<float>{0, 1, 0, 1, 0, 0});

  retain::state saved;
  all.save_state(saved, "");
  games<corridor> other(std::vector<corridor>(2), 1), fewer(std::vector<corridor>(1), 1);
  other.load_state(saved, "");
  CHECK_THROWS_WITH(fewer.load_state(saved, ""), ContainsSubstring("2 games"));
  // What says how many bytes each has, or what each has come to, is looked at before it is
  // followed.
  const auto with = [&](const std::string& key, const at::Tensor& tensor) {
    retain::state bad;
    for (const auto& each : saved.tensor_keys())
      bad.set(each, each == key ? tensor : saved.tensor(each));
    games<corridor> tried(std::vector<corridor>(2), 1);
    tried.load_state(bad, "");
  };
  const auto size = static_cast<std::int64_t>(sizeof(corridor));
  CHECK_NOTHROW(with("", {}));
  CHECK_THROWS_AS(with("lengths", at::tensor({size, size + 1}, at::kLong)), retain::state_error);
  CHECK_THROWS_AS(with("lengths", at::tensor({std::int64_t{-8}, size}, at::kLong)),
                  retain::state_error);
  CHECK_THROWS_AS(with("lengths", at::tensor({size, size}, at::kDouble)), retain::state_error);
  CHECK_THROWS_AS(with("bytes", at::zeros({size}, at::kByte)), retain::state_error);
  CHECK_THROWS_AS(with("records", at::zeros({1, 3}, at::kDouble)), retain::shape_error);
  CHECK_THROWS_AS(with("records", at::zeros({2, 3})), retain::state_error);
  for (int i = 0; i < 4; ++i) {
    step(1, 1);
    other.step(std::vector<std::int64_t>{1, 1}, rewards, ended, truncated, places);
  }
  const auto first = all.take_finished(), second = other.take_finished();
  REQUIRE(first.size() == 2);
  CHECK(
      (first[0].reward == 1 && first[0].steps == 2 && first[0].rooms == 2 && !first[0].succeeded));
  REQUIRE(second.size() == 1);  // what was finished before belongs to the other
  CHECK((second[0].reward == 6 && second[0].steps == 6 && second[0].rooms == 3 &&
         second[0].succeeded));
  CHECK((first[1].reward == second[0].reward && first[1].rooms == second[0].rooms));
}

TEST_CASE("an episode that the limit of steps cuts off has the returns of one that goes on",
          "[montezuma][agent]") {
  // The observation at which it is cut is handed out before the game begins anew.
  games<clockwork<true, false>> all(std::vector<clockwork<true, false>>(2), 0);
  std::vector<float> rewards(2), terminated(2), truncated(2), seen(6);
  std::vector<std::uint64_t> places(2);
  for (int step = 1; step <= 5; ++step) {
    all.step(std::vector<std::int64_t>{0, 1}, rewards, terminated, truncated, places);
    CHECK(terminated == std::vector<float>{0, 0});
    CHECK(truncated == std::vector<float>(2, step == 5 ? 1.0f : 0.0f));
    CHECK(all.truncated().games.size() == (step == 5 ? 2u : 0u));
  }
  CHECK(all.truncated().games == std::vector<std::int64_t>{0, 1});
  CHECK(all.truncated().observations == std::vector<float>{0, 0, 1, 0, 0, 1});
  all.observe(seen.data(), 3);
  CHECK(seen == std::vector<float>{1, 0, 0, 1, 0, 0});

  // One rollout up to the limit. What is learned from is seen in the critic's error, before the
  // first change of the network. The bonus's values take no part: they are those of the next
  // episode in any case.
  const auto error = []<class Game>(Game) {
    auto settings = small(bonus_kind::none);
    settings.horizon = Game::limit;
    settings.minibatches = settings.epochs = 1;
    settings.novelty_discount = 0;
    auto start = corridor_policy();
    {  // states differ in value
      const at::NoGradGuard no_grad;
      start->named_parameters()["value_head.out.weight"].mul_(10);
    }
    trainer<Game> learner(start, std::vector<Game>(8), settings);
    return learner.update().value_loss;
  };
  const double unbroken = error(clockwork<false, false>());
  CHECK(error(clockwork<true, false>()) == Approx(unbroken).epsilon(1e-5));
  CHECK(std::abs(error(clockwork<true, true>()) / unbroken - 1) > 1e-3);
}

TEST_CASE("a corridor is learned", "[montezuma][agent]") {
  for (const auto bonus : {bonus_kind::none, bonus_kind::count, bonus_kind::rnd}) {
    auto network = corridor_policy();
    const auto make = [](std::uint64_t) { return corridor(); };
    const double before = summary_of(play_episodes(network, make, 0, 64, 1)).reward;
    trainer<corridor> learner(network, std::vector<corridor>(8), small(bonus));
    double entropy = 0;
    while (!learner.finished()) entropy = learner.update().entropy;
    const double after = summary_of(play_episodes(network, make, 0, 64, 1)).reward;
    CAPTURE(name(bonus), before, after, entropy);
    CHECK(before < 2.5);
    CHECK(after > 5);
    CHECK(entropy < 0.5);
  }
}

TEST_CASE("equal runs are equal bit for bit, and so is one that was resumed",
          "[montezuma][agent]") {
  const auto start = pyramid_policy();
  auto network = copy_of(start);
  const auto memory = visited_states(network, world(), 7, 300, 1);
  support::temporary_folder folder;
  const auto file = folder.file("run.state");
  for (const auto* retain : {"none", "l2+ewc+bc+ks"})
    for (const auto bonus : {bonus_kind::count, bonus_kind::rnd}) {
      CAPTURE(retain, name(bonus));
      const auto settings = small(bonus);
      auto one = make_trainer(start, settings, retain, {}, memory),
           two = make_trainer(start, settings, retain, {}, memory);
      for (int i = 0; i < 4; ++i) {
        one.update();
        if (i >= 2) continue;
        two.update();
      }
      CHECK_FALSE(equal(one.network(), two.network()));
      retain::state out;
      two.save_state(out, "");
      out.write(file);
      auto three = make_trainer(start, settings, retain, {}, memory);
      const auto in = retain::state::read(file);
      three.load_state(in, "");
      CHECK(in.unread().empty());
      CHECK(three.steps() == 2 * 8 * 16);
      for (auto* each : {&two, &three}) each->update(), each->update();
      CHECK(equal(one.network(), two.network()));
      CHECK(equal(one.network(), three.network()));
      auto other_seed = settings;
      other_seed.seed = 2;
      auto four = make_trainer(start, other_seed, retain, {}, memory);
      for (int i = 0; i < 4; ++i) four.update();
      CHECK_FALSE(equal(one.network(), four.network()));
    }
}

TEST_CASE("retention holds a policy where plain training moves it", "[montezuma][agent]") {
  // A policy that goes left in room 7 and in the corridor above it, made so by cloning labels.
  auto start = pyramid_policy();
  const auto memory = visited_states(start, world(), 7, 400, 1);
  CHECK(memory.sizes() == at::IntArrayRef({400, 157}));
  {
    training::adam optimizer({{"all", at::zeros({1})}}, {});
    for (int i = 0; i < 60; ++i) {
      const auto loss = -start->forward(memory).log_probs().select(1, 1).mean();
      for (auto& parameter : start->parameters()) parameter.mutable_grad().reset();
      loss.backward();
      const at::NoGradGuard no_grad;
      for (auto& parameter : start->parameters())
        if (parameter.grad().defined()) parameter.sub_(parameter.grad() * 0.3);
    }
  }
  auto settings = small();
  settings.room = 1;
  const auto after = [&](const std::string& retain, const retention_settings& kept = {}) {
    auto learner = make_trainer(start, settings, retain, kept, memory);
    for (int i = 0; i < 12; ++i) learner.update();
    auto network = learner.network();
    return divergence(start, network, memory);
  };
  const double plain = after("none");
  CAPTURE(plain);
  CHECK(plain > 0.02);
  retention_settings strong;
  strong.ewc_strength = 100;
  strong.l2_strength = 3;
  strong.bc_strength = 3;
  strong.ks_strength = 3;
  strong.ks_factor = 1;
  for (const auto* retain : {"l2", "ewc", "bc", "ks", "bc+ks"}) {
    const double kept = after(retain, strong);
    CAPTURE(retain, kept);
    CHECK(kept < plain / 2);
  }
}

TEST_CASE("a clone does what it was shown, mistakes included, and its values have learned nothing",
          "[montezuma][agent]") {
  auto expert = corridor_policy();
  {
    const at::NoGradGuard no_grad;  // goes right, except with chance sigmoid(-2) = .119
    for (auto& parameter : expert->named_parameters())
      if (parameter.key().starts_with("policy_head")) parameter.value().zero_();
    expert->named_parameters()["policy_head.out.bias"].copy_(at::tensor({-1.0f, 1.0f}));
  }
  const auto make = [](std::uint64_t) { return corridor(); };
  const auto exact = demonstrate(expert, make, 0, 1000, 0, 7),
             noisy = demonstrate(expert, make, 0, 1000, 0.5, 7);
  const auto n = exact.actions.size(0);
  CHECK(exact.observations.sizes() == at::IntArrayRef({n, 3}));
  // mistakes are in the writing, not in the play
  CHECK(noisy.observations.equal(exact.observations));
  // The right share of 1 - .119 = .881; half of it and half of .5 with the noise: .690.
  CHECK(exact.actions.to(at::kDouble).mean().item<double>() == Approx(0.881).margin(0.02));
  CHECK(noisy.actions.to(at::kDouble).mean().item<double>() == Approx(0.690).margin(0.03));

  auto copy =
      clone_from(noisy, expert, {.steps = 400, .batch = 256, .learning_rate = 1e-2, .seed = 4});
  const auto said = retain::categorical{logits_of(copy, at::eye(3))}.log_probs().exp().select(1, 1);
  for (int place = 0; place < 3; ++place)
    CHECK(said[place].item<double>() == Approx(0.690).margin(0.08));
  CHECK(equal(copy, clone_from(noisy, expert,
                               {.steps = 400, .batch = 256, .learning_rate = 1e-2, .seed = 4})));
  at::manual_seed(4);
  auto untaught = make_policy(shape_of(expert));
  for (const auto& parameter : untaught->named_parameters())
    if (parameter.key().starts_with("value_"))
      CHECK(parameter.value().equal(copy->named_parameters()[parameter.key()]));
  CHECK_THROWS_WITH(clone_from({}, expert, {}), ContainsSubstring("demonstrations"));
}

TEST_CASE("the task's gradient is shortened, and what it was is reported", "[montezuma][agent]") {
  const auto start = pyramid_policy();
  auto settings = small();
  auto free = make_trainer(start, settings, "none");
  const auto report = free.update();
  CHECK(report.gradient_norm > 1e-3);
  CHECK(distance(free.network(), start) > 1e-3);
  settings.longest_gradient = 1e-12;  // far below Adam's epsilon, so that nothing is left of a step
  auto held = make_trainer(start, settings, "none");
  CHECK(held.update().gradient_norm > 1e-3);
  CHECK(distance(held.network(), start) < 1e-6);
}

TEST_CASE("strengths fall by optimizer steps, and reports name what is used",
          "[montezuma][agent]") {
  auto start = pyramid_policy();
  const auto memory = visited_states(start, world(), 7, 100, 1);
  auto learner = make_trainer(start, small(), "bc+ks", {}, memory);
  const auto first = learner.update().named(), second = learner.update().named();
  // The strength of the last of 8 and of 16 steps: 7 and 15 were done before.
  CHECK(first.at("retain/kickstarting_strength") == Approx(0.1 * std::pow(0.9994, 7)));
  CHECK(second.at("retain/kickstarting_strength") == Approx(0.1 * std::pow(0.9994, 15)));
  CHECK(first.count("retain/behavioral_cloning") == 1);
  CHECK(first.count("retain/ewc") == 0);
}

TEST_CASE("evaluations are repeatable, and count what happens in the room", "[montezuma][agent]") {
  auto network = pyramid_policy();
  const auto one = play_episodes(network, world(), 1, 16, 9),
             two = play_episodes(network, world(), 1, 16, 9),
             other = play_episodes(network, world(), 1, 16, 10);
  double difference = 0, elsewhere = 0;
  for (std::size_t i = 0; i < one.size(); ++i) {
    difference += std::abs(one[i].reward - two[i].reward) +
                  std::abs(static_cast<double>(one[i].steps - two[i].steps));
    elsewhere += std::abs(static_cast<double>(one[i].steps - other[i].steps)) +
                 std::abs(one[i].reward - other[i].reward);
  }
  CHECK(difference == 0);
  CHECK(elsewhere > 0);
  const auto mean = summary_of({{.reward = 3, .steps = 10, .rooms = 2, .succeeded = true},
                                {.reward = 0, .steps = 20, .rooms = 1, .succeeded = false}});
  CHECK((mean.success == 0.5 && mean.reward == 1.5 && mean.rooms == 1.5 && mean.steps == 15));
}

TEST_CASE("teachers and policies are read back as they were written", "[montezuma][agent]") {
  support::temporary_folder folder;
  const auto file = folder.file("teacher.pt"), alone = folder.file("policy.pt");
  auto network = pyramid_policy();
  world_options deep;
  deep.game.map = "deep";
  deep.game.sticky = 0.125;
  const teacher_file written{network, visited_states(network, deep, 7, 50, 2), deep, 7, 0.75, 12,
                             1000};
  written.write(file);
  const auto read = teacher_file::read(file);
  CHECK(equal(read.network, network));
  CHECK(read.memory.equal(written.memory));
  CHECK((read.where.game.map == "deep" && read.where.game.sticky == 0.125 && read.room == 7 &&
         read.success == 0.75 && read.seed == 12 && read.steps == 1000));
  CHECK(equal(read_policy(file).first, network));
  write_policy(alone, network, deep);
  CHECK(equal(read_policy(alone).first, network));
  CHECK(read_policy(alone).second.game.map == "deep");
  CHECK_THROWS_WITH(teacher_file::read(alone), ContainsSubstring("montezuma pretrain"));
  retain::state nothing;
  nothing.set("map", "deep");
  nothing.set("sticky", 0.1);
  nothing.set("step_cap", 0);
  nothing.write(alone);
  CHECK_THROWS_WITH(read_policy(alone), ContainsSubstring("no policy of this program"));
}

TEST_CASE("what does not fit together is refused before it runs", "[montezuma][agent]") {
  auto settings = small();
  settings.minibatches = 3;
  CHECK_THROWS_WITH(trainer<corridor>(corridor_policy(), std::vector<corridor>(8), settings),
                    ContainsSubstring("128") && ContainsSubstring("3 minibatches"));
  CHECK_THROWS_WITH(trainer<corridor>(corridor_policy(), std::vector<corridor>(7), small()),
                    ContainsSubstring("7 games"));
  retention_settings kept;
  CHECK_THROWS_WITH(kept.choose("ewc+magic"),
                    ContainsSubstring("magic") && ContainsSubstring("bc+ks"));
  CHECK_THROWS(kept.choose(""));
  CHECK_THROWS(kept.choose("bc+"));
  kept.choose("ks+bc+ks");
  CHECK(kept.name() == "bc+ks");
  kept.choose("bc+ks");
  CHECK((kept.bc && kept.ks && !kept.ewc && !kept.l2 && kept.needs_memory()));
  kept.choose("ks");
  CHECK((kept.any() && !kept.needs_memory()));
  auto network = pyramid_policy();
  kept.choose("ewc");
  CHECK_THROWS_WITH(make_retention(network, {}, kept, 1),
                    ContainsSubstring("states of pre-training"));
  CHECK_THROWS_WITH(preset("hasty"), ContainsSubstring("hasty") && ContainsSubstring("careful"));
  CHECK_THROWS_WITH(bonus_of_name("candy"), ContainsSubstring("candy"));
  CHECK((preset("quick").learning_rate == 2e-3 && preset("quick").entropy == 0.03 &&
         preset("careful").learning_rate == 1e-3 && preset("careful").entropy == 0.01));
}

}  // namespace montezuma_agent_test
