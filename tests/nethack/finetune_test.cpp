// SPDX-License-Identifier: MIT
#include "../support.hpp"

#include "finetune.hpp"
#include "monitor.hpp"

#include <array>
#include <cstddef>
#include <set>

namespace nethack_finetune_test {

namespace {

/// A game that shows an arrow and pays a point for following it. Episodes are as long as a rollout,
/// so that giving up the games in flight, as a resumed run does, gives up nothing.
class arrow_games {
 public:
  static constexpr std::size_t games = 4;
  static constexpr int length = 16;

  /// `every`: every how many games end, and 0 for none. `end`: how they end.
  explicit arrow_games(nethack::ending end = nethack::ending::turn_cap, std::size_t every = 1)
      : end_(end), every_(every) {}

  std::size_t size() const { return games; }
  void reset() {
    for (std::size_t i = 0; i < games; ++i) begin(i);
  }
  const nethack::observation& view(std::size_t i) const { return views_[i]; }
  void step(std::span<const nethack::key> keys, std::span<nethack::step_result> results) {
    finished_.clear();
    truncated_.clear();
    for (std::size_t i = 0; i < games; ++i) {
      const double reward = keys[i] == small_key(arrow_[i]) ? 1 : 0;
      scores_[i] += reward;
      const bool done = ++steps_[i] == length && every_ != 0 && i % every_ == 0;
      results[i] = {reward, done, done ? end_ : nethack::ending::none};
      show(i);
      if (!done) continue;
      if (nethack::is_truncation(end_)) truncated_.push_back({i, views_[i]});
      finished_.push_back({.game = i,
                           .seed = 1,
                           .ending = end_,
                           .score = scores_[i],
                           .max_depth = 1,
                           .turns = length,
                           .steps = length});
      begin(i);
    }
  }
  const std::vector<nethack::episode_summary>& finished() const { return finished_; }
  const std::vector<nethack::truncated_game>& truncated() const { return truncated_; }
  const std::vector<std::uint64_t>& episodes() const { return episodes_; }
  void set_episodes(const std::vector<std::uint64_t>& episodes) {
    episodes_ = episodes;
    // The real games have begun one more when a run is saved at the end of a rollout; so have
    // these.
    for (auto& episode : episodes_) --episode;
  }

 private:
  static nethack::key small_key(unsigned action) { return nethack::small_actions[action].code; }
  void begin(std::size_t i) {
    steps_[i] = 0;
    scores_[i] = 0;
    dice_[i].seed(static_cast<unsigned>(episodes_[i]++ * games + i));
    show(i);
  }
  void show(std::size_t i) {
    arrow_[i] = dice_[i]() % 4;
    auto& view = views_[i];
    view.chars.fill(' ');
    view.hero_row = 10;
    view.hero_column = 40;
    for (std::size_t row = 8; row < 13; ++row)
      for (std::size_t column = 38; column < 43; ++column)
        view.chars[row * 80 + column] = static_cast<std::uint8_t>("abcd"[arrow_[i]]);
    view.stats.depth = 1;
    view.stats.turn = steps_[i] + 1;
  }

  std::array<nethack::observation, games> views_;
  std::array<std::mt19937, games> dice_;
  std::array<unsigned, games> arrow_{};
  std::array<int, games> steps_{};
  std::array<double, games> scores_{};
  std::vector<std::uint64_t> episodes_ = std::vector<std::uint64_t>(games, 0);
  std::vector<nethack::episode_summary> finished_;
  std::vector<nethack::truncated_game> truncated_;
  nethack::ending end_;
  std::size_t every_;
};

nethack::policy start_policy(nethack::core_kind core = nethack::core_kind::none) {
  torch::manual_seed(3);
  return nethack::policy{nethack::policy_config{
      .cell_width = 4, .encoder_width = 16, .trunk_width = 16, .core = core}};
}
constexpr std::array every_core{nethack::core_kind::none, nethack::core_kind::gru,
                                nethack::core_kind::lstm};

at::Tensor some_states(std::size_t count = 60) {
  std::mt19937 dice(4);
  std::vector<nethack::features> records(count);
  for (std::size_t r = 0; r < count; ++r) {
    auto& record = records[r];
    record.first = r % 45 == 0;
    for (auto& token : record.tokens) token = static_cast<std::uint8_t>(dice() % 5);
    record.row_count = 3;
    for (std::size_t i = 0; i < 3; ++i) record.rows[i] = static_cast<std::uint16_t>(dice() % 50);
  }
  return nethack::to_tensor(records);
}

nethack::finetune_options small_options(const std::string& terms) {
  nethack::finetune_options options;
  options.games = arrow_games::games;
  options.horizon = arrow_games::length;
  options.minibatch = 32;
  options.learning_rate = 3e-3;
  options.steps = 4 * 64;
  options.retention.choose(terms);
  options.retention.ewc_states = 30;
  options.retention.bc_states = 40;
  options.retention.bc_batch_size = 8;
  return options;
}

bool equal(const nethack::policy& a, const nethack::policy& b) {
  const auto p = a->named_parameters(), q = b->named_parameters();
  for (const auto& parameter : p)
    if (!at::equal(parameter.value(), q[parameter.key()])) return false;
  return true;
}

using finetuner = nethack::finetuner<arrow_games>;

/// What a policy says of states in the order of play, from a new game on.
retain::categorical said_of(nethack::policy network, const at::Tensor& states) {
  const at::NoGradGuard no_grad;
  return retain::categorical{network->logits(states.unsqueeze(1)).squeeze(1)};
}

}  // namespace

TEST_CASE("fine-tuning stopped, saved and resumed ends where it would have ended, bit for bit") {
  support::temporary_folder folder;
  const auto states = some_states(300);
  const auto check = [&](nethack::core_kind core, const std::string& terms, bool careful) {
    auto options = small_options(terms);
    if (careful) {
      options.separate_critic = true;
      options.critic_warmup = 64;
      options.schedule = nethack::rate_schedule::linear;
      options.value_clip = 1;
      options.freeze = {"encoder.*"};
    }
    INFO(nethack::name(core) << ", " << terms << (careful ? ", careful" : ""));
    arrow_games once;
    finetuner straight(start_policy(core), once, states, options);
    CHECK(straight.run());

    arrow_games before, after;
    finetuner first(start_policy(core), before, states, options);
    int updates = 0;
    CHECK_FALSE(first.run({.updated = [&](const auto&) { ++updates; },
                           .checkpoint = [&](auto) { first.save(folder.file("c")); },
                           .stop = [&] { return updates == 2; }}));
    CHECK(first.steps() == 128);
    finetuner second(start_policy(core), after, states, options);
    second.resume(folder.file("c"));
    CHECK(second.steps() == 128);
    CHECK(second.run());
    CHECK(equal(straight.network(), second.network()));
    CHECK_FALSE(equal(straight.network(), first.network()));
  };
  for (const auto core : every_core)
    for (const std::string terms : {"none", "l2+ewc+bc+ks"})
      for (const bool careful : {false, true}) check(core, terms, careful);
}

TEST_CASE("a game that a cap cuts off has the returns of a game that goes on, a dead one has not") {
  // One rollout; every second game ends at its last step, or none does. What is learned from is
  // seen in the critic's error, before the first change of the network.
  for (const auto core : every_core) {
    const auto error = [&](nethack::ending end, std::size_t every) {
      auto options = small_options("none");
      options.minibatch = 64;
      options.epochs = 1;
      options.steps = 64;
      options.learning_rate = 0;
      options.fresh_critic = false;
      arrow_games games(end, every);
      auto start = start_policy(core);
      {  // states differ in value
        const at::NoGradGuard no_grad;
        for (auto& parameter : start->named_parameters())
          if (parameter.key().rfind("value_head", 0) == 0) parameter.value().mul_(30);
      }
      finetuner run(start, games, {}, options);
      double found = 0;
      run.run({.updated = [&](const nethack::update_report& report) {
        found = report.value_loss;
        CHECK(report.episodes.size() == (every == 0 ? 0u : 2u));
      }});
      return found;
    };
    INFO(nethack::name(core));
    const double unbroken = error(nethack::ending::turn_cap, 0);
    for (const auto end : {nethack::ending::turn_cap, nethack::ending::lost})
      CHECK(error(end, 2) == Approx(unbroken).epsilon(1e-5));
    for (const auto end : {nethack::ending::death, nethack::ending::stuck})
      CHECK(std::abs(error(end, 2) / unbroken - 1) > 1e-3);
  }
}

TEST_CASE("fine-tuning learns what pays") {
  auto options = small_options("none");
  options.steps = 120 * 64;
  options.clip = {0.5, 2};
  options.discount = 0.5;  // what an action earns, it earns at once
  for (const auto core : every_core) {
    INFO(nethack::name(core));
    arrow_games games;
    finetuner run(start_policy(core), games, {}, options);
    double first = -1, last = 0;
    run.run({.updated = [&](const nethack::update_report& report) {
      last = report.named().at("charts/episodic_return");
      if (first < 0) first = last;
    }});
    CHECK(first < 7);
    CHECK(last > 8);
  }
}

TEST_CASE("what cannot be trained is refused when it is said") {
  arrow_games games;
  const auto refused = [&](const std::string& why, auto change) {
    auto options = small_options("none");
    change(options);
    CHECK_THROWS_WITH(
        (finetuner{start_policy(nethack::core_kind::none), games, at::Tensor(), options}),
        ContainsSubstring(why));
  };
  refused("the pattern 'encodr' matches no parameter",
          [](auto& options) { options.freeze = {"encodr"}; });
  refused("every parameter is frozen", [](auto& options) { options.freeze = {"*"}; });
  refused("at least 1", [](auto& options) { options.minibatch = 0; });
  refused("at least 1", [](auto& options) { options.horizon = 0; });
  refused("at least 1", [](auto& options) { options.epochs = 0; });
  nethack::retention_options terms;
  terms.choose("ks+bc");
  CHECK(terms.name() == "bc+ks");
  terms.choose("none");
  CHECK(terms.name() == "none");
}

TEST_CASE(
    "each retention term keeps the policy closer to where it began, and is reported by its name") {
  const auto states = some_states(640);
  for (const auto core : every_core) {
    std::map<std::string, double> distance;
    for (const std::string terms : {"none", "l2", "ewc", "bc", "ks"}) {
      auto options = small_options(terms);
      options.steps = 20 * 64;
      options.retention.l2_strength = 3;
      options.retention.ewc_strength = 3000;
      options.retention.bc_strength = options.retention.ks_strength = options.retention.ks_floor =
          10;
      if (core != nethack::core_kind::none)
        options.retention.ewc_states = options.retention.bc_states = 640;
      arrow_games games;
      finetuner run(start_policy(core), games, states, options);
      std::set<std::string> names;
      run.run({.updated = [&](const nethack::update_report& report) {
        for (const auto& term : report.retention) names.insert(term.name);
      }});
      distance[terms] =
          retain::kl(said_of(start_policy(core), states), said_of(run.network(), states))
              .mean()
              .item<double>();
      const std::map<std::string, std::string> name{
          {"l2", "l2_init"}, {"ewc", "ewc"}, {"bc", "behavioral_cloning"}, {"ks", "kickstarting"}};
      CHECK(names ==
            (terms == "none" ? std::set<std::string>{} : std::set<std::string>{name.at(terms)}));
    }
    for (const std::string terms : {"l2", "ewc", "bc", "ks"}) {
      INFO(nethack::name(core) << ", " << terms << " " << distance[terms] << " against "
                               << distance["none"]);
      CHECK(distance[terms] < 0.7 * distance["none"]);
    }
  }
}

TEST_CASE(
    "before it has learned, a policy learning from a rollout says what it said when it played") {
  // One update of one minibatch: the ratios of the first pass are 1, over stretches from the stored
  // state with resets inside.
  for (const auto core : every_core) {
    for (const std::string terms : {"none", "ks"}) {
      INFO(nethack::name(core) << ", " << terms);
      auto options = small_options(terms);
      options.horizon = 11;  // games of 16 steps begin and end within
      options.minibatch = 44;
      options.epochs = 1;
      options.steps = 12 * 44;
      options.learning_rate = options.critic_warmup_rate = 0;
      options.critic_warmup = 2 * 44;  // a recurrent teacher follows the play all the same
      arrow_games games;
      finetuner run(start_policy(core), games, {}, options);
      run.run({.updated = [](const nethack::update_report& report) {
        CHECK(std::abs(report.approx_kl) < 1e-7);
        CHECK(report.clip_fraction == 0);
        for (const auto& term : report.retention)
          // the teacher is in the same state
          if (term.value.defined()) CHECK(std::abs(term.value.item<double>()) < 1e-6);
      }});
    }
  }
}

TEST_CASE(
    "the monitor measures the same states of any policy, a recurrent one's in stretches of play") {
  auto observations = some_states(640);
  for (std::int64_t i = 0; i < 640; ++i)
    observations[i][static_cast<std::int64_t>(offsetof(nethack::features, depth))] =
        i % 90 < 45 ? 1 : 3;
  const nethack::training_states states{observations, at::zeros({640}, at::kLong), 15};
  for (const auto core : every_core) {
    INFO(nethack::name(core));
    nethack::forgetting_monitor monitor(states, start_policy(core), 100);
    CHECK(monitor.close_states() >= 100);
    CHECK(monitor.far_states() >= 100);
    CHECK(monitor.far_states() < 140);
    const auto itself = monitor.measure(start_policy(core));
    CHECK(itself.close.kl == 0);
    CHECK(itself.far.agreement == 1);
    auto other = start_policy(core);
    {
      const at::NoGradGuard no_grad;
      for (auto& parameter : other->parameters()) parameter.add_(at::randn_like(parameter) * 0.1);
    }
    CHECK(monitor.measure(other).far.kl > 0);
    if (other->recurrent())  // between single states it would forget each time
      CHECK_THROWS_AS(nethack::forgetting_monitor(states, start_policy(), 100).measure(other),
                      retain::config_error);
    else
      CHECK(nethack::forgetting_monitor(states, start_policy(nethack::core_kind::gru), 100)
                .measure(other)
                .far.kl > 0);
    CHECK(nethack::stretch_length(other) == (other->recurrent() ? 32 : 1));
  }
}

TEST_CASE("a recurrent policy's Fisher information is that of a loop over its stretches") {
  const auto states = some_states(320);
  for (const auto core : {nethack::core_kind::gru, nethack::core_kind::lstm}) {
    INFO(nethack::name(core));
    auto network = start_policy(core);
    nethack::retention_options options;
    options.ewc_states = 96;
    const auto walked = nethack::fisher_of(network, states, options, 5);
    CHECK(walked.states > 0);
    CHECK(walked.states <= 96);
    const auto stretches = nethack::detail::draw_states(network, states, options.ewc_states, 5);
    CHECK(stretches.sizes() == at::IntArrayRef({3, 32, sizeof(nethack::features)}));
    const auto looped = retain::estimate_fisher(
        *network, std::vector{stretches},
        [&](const at::Tensor& batch) { return nethack::answer(network, batch); },
        retain::sampled_actions{.per_state = 1, .seed = 5},
        {.exclude = nethack::free_parameters, .sample_dimension = 0, .batched = false});
    for (std::size_t i = 0; i < looped.values.size(); ++i) {
      INFO(looped.values[i].name);
      CHECK(walked.values[i].name == looped.values[i].name);
      CHECK(at::allclose(walked.values[i].tensor, looped.values[i].tensor, 1e-3, 1e-9));
    }
    CHECK(walked.paths.at("core.hidden.weight") == retain::fisher_path::batched);
  }
}

TEST_CASE("what is frozen stays, and while the critic warms up the policy does") {
  auto options = small_options("none");
  options.freeze = {"encoder.*", "trunk.*"};
  arrow_games games;
  finetuner run(start_policy(), games, {}, options);
  run.run();
  const auto before = start_policy();
  for (const auto& parameter : run.network()->named_parameters()) {
    const bool frozen =
        parameter.key().rfind("encoder", 0) == 0 || parameter.key().rfind("trunk", 0) == 0;
    if (frozen) CHECK(at::equal(parameter.value(), before->named_parameters()[parameter.key()]));
    if (parameter.key() == "policy_head.weight")
      CHECK_FALSE(at::equal(parameter.value(), before->named_parameters()[parameter.key()]));
  }

  auto warm = small_options("none");
  warm.critic_warmup = warm.steps;
  arrow_games others;
  finetuner warming(start_policy(), others, {}, warm);
  double first = -1, last = 0;
  warming.run({.updated = [&](const nethack::update_report& report) {
    last = report.value_loss;
    if (first < 0) first = last;
  }});
  CHECK(last < first);
  CHECK(at::equal(warming.network()->logits(some_states()), start_policy()->logits(some_states())));
}

TEST_CASE("the first share of the steps is played and not learned from") {
  auto options = small_options("none");  // four updates
  options.collect_first = 0.5;
  options.fresh_critic = false;
  arrow_games games;
  finetuner run(start_policy(), games, {}, options);
  int updates = 0;
  run.run({.updated = [&](const nethack::update_report& report) {
    ++updates;
    CHECK(equal(run.network(), start_policy()) == (updates <= 2));
    CHECK((report.value_loss > 0) == (updates > 2));
  }});
  CHECK(updates == 4);
  CHECK(nethack::recipe("paper", {}).collect_first == 0.05);
  CHECK(nethack::recipe("quick", {}).collect_first == 0);
}

TEST_CASE("options that cannot work say so") {
  arrow_games games;
  auto options = small_options("none");
  options.minibatch = 48;
  CHECK_THROWS_AS(finetuner(start_policy(), games, {}, options), retain::config_error);
  options.minibatch = 8;
  finetuner(start_policy(), games, {}, options);
  // half a rollout
  CHECK_THROWS_AS(finetuner(start_policy(nethack::core_kind::gru), games, {}, options),
                  retain::config_error);
  options = small_options("ewc");
  CHECK_THROWS_AS(finetuner(start_policy(), games, {}, options), retain::config_error);
  options = small_options("none");
  options.games = 5;
  CHECK_THROWS_AS(finetuner(start_policy(), games, {}, options), retain::config_error);
  nethack::retention_options terms;
  CHECK_THROWS_WITH(terms.choose("bc+kz"), ContainsSubstring("kz"));
  CHECK_THROWS(terms.choose("bc+"));
  CHECK_THROWS(terms.choose(""));
  terms.choose("bc+ks");
  CHECK((terms.behavioral_cloning && terms.kickstarting && !terms.l2 && !terms.ewc));
  CHECK_THROWS_AS(nethack::recipe("slow", terms), retain::config_error);
  for (const char* name : {"quick", "careful", "paper"}) {
    const auto chosen = nethack::recipe(name, terms);
    CHECK(chosen.games * chosen.horizon % chosen.minibatch == 0);
    CHECK(chosen.retention.kickstarting);
  }
}

}  // namespace nethack_finetune_test
