// SPDX-License-Identifier: MIT
// The agent that plays from pictures: its numbers as published, its networks, runs that are equal
// bit for bit, the search for states, and the commands in the real game's world on a console that
// plays a script.
#include "../support.hpp"

#include "../../examples/common/columns.hpp"
#include "ale_world.hpp"
#include "command_evaluate.hpp"
#include "command_finetune.hpp"
#include "command_make_states.hpp"
#include "command_pretrain.hpp"
#include "scripted_console.hpp"
#include "training_options.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace montezuma_pixel_agent_test {

namespace {

using namespace montezuma;
using console_world = ale_world<scripted::console>;
using game = console_world::game_type;
using learner_type = trainer<game, pixel_policy>;
static_assert(training_world<console_world>);

console_world script(int step_cap = 12) {
  auto states = std::make_shared<room_states>();
  states->game = "script";
  states->rooms[7] = {{scripted::console::at({.place = 3, .x = 40, .entered = 0}), 6}};
  console_world where;
  where.machine = [](std::uint64_t) { return scripted::console(); };
  where.states = states;
  where.game.step_cap = step_cap;
  return where;
}

training_settings tiny() {
  auto settings = preset("paper");
  settings.games = 2;
  settings.horizon = 4;
  settings.minibatches = 2;
  settings.epochs = 2;
  settings.rnd_warm_up = 1;
  settings.steps = 24;
  return settings;
}

pixel_policy new_policy(std::uint64_t seed = 3) {
  at::manual_seed(seed);
  return make_policy(pixel_shape{});
}

double distance(const pixel_policy& a, const pixel_policy& b) {
  double greatest = 0;
  auto other = b->named_parameters();
  for (const auto& parameter : a->named_parameters())
    greatest =
        std::max(greatest, (parameter.value() - other[parameter.key()]).abs().max().item<double>());
  return greatest;
}

/// Rows or columns, whichever are fewer, are orthogonal and of this length.
bool orthogonal_with(const at::Tensor& weight, double gain) {
  auto rows = weight.detach().flatten(1).to(at::kDouble);
  if (rows.size(0) > rows.size(1)) rows = rows.t();
  const auto product = rows.matmul(rows.t());
  return (product - gain * gain * at::eye(rows.size(0), at::kDouble)).abs().max().item<double>() <
         1e-4 * gain * gain;
}

}  // namespace

TEST_CASE("the preset paper is PPO and RND as published", "[montezuma][ale]") {
  const auto s = preset("paper");
  CHECK((s.games == 128 && s.horizon == 128 && s.epochs == 4 && s.minibatches == 4));
  CHECK((s.learning_rate == 1e-4 && s.rnd_learning_rate == 1e-4 && s.adam_epsilon == 1e-8));
  CHECK((s.clip == 0.1 && s.entropy == 0.001 && s.value_weight == 0.5 && s.longest_gradient == 0));
  CHECK((s.discount == 0.999 && s.novelty_discount == 0.99 && s.gae_decay == 0.95));
  CHECK(
      (s.reward_weight == 2 && s.novelty_weight == 1 && s.reward_signs && !s.normalize_advantages));
  CHECK((s.bonus == bonus_kind::rnd && s.rnd_warm_up == 50 && s.predictor_share() == 0.25 &&
         s.room == 1));
  auto fewer = s;
  training_options said;
  said.games = 64;
  said.warm_up = 2;
  said.apply(fewer);
  CHECK((fewer.predictor_share() == 0.5 && fewer.rnd_warm_up == 2));
  fewer.games = 8;
  CHECK(fewer.predictor_share() == 1);
  said.rnd_fraction = 0.125;
  said.apply(fewer);
  CHECK(fewer.predictor_share() == 0.125);
  CHECK((!preset("quick").reward_signs && preset("quick").normalize_advantages &&
         preset("quick").predictor_share() == 0.25));
}

TEST_CASE("the network for pictures is the published one", "[montezuma][ale]") {
  auto network = new_policy();
  auto p = network->named_parameters();
  CHECK(p["encoder.convolution0.weight"].sizes() == at::IntArrayRef({32, 4, 8, 8}));
  CHECK(p["encoder.convolution1.weight"].sizes() == at::IntArrayRef({64, 32, 4, 4}));
  CHECK(p["encoder.convolution2.weight"].sizes() == at::IntArrayRef({64, 64, 4, 4}));
  CHECK(p["encoder.linear.weight"].sizes() == at::IntArrayRef({256, 64 * 6 * 6}));
  CHECK(p["hidden.weight"].sizes() == at::IntArrayRef({448, 256}));
  CHECK(p["policy_head.weight"].sizes() == at::IntArrayRef({18, 448}));
  CHECK(p["value_head.weight"].sizes() == at::IntArrayRef({2, 448}));
  for (const auto* name :
       {"encoder.convolution0", "encoder.convolution2", "encoder.linear", "hidden"})
    CHECK(orthogonal_with(p[std::string(name) + ".weight"], std::sqrt(2.0)));
  for (const auto* name : {"policy_residual", "value_residual"})
    CHECK(orthogonal_with(p[std::string(name) + ".weight"], 0.1));
  for (const auto* name : {"policy_head", "value_head"})
    CHECK(orthogonal_with(p[std::string(name) + ".weight"], 0.01));

  const auto frames = at::randint(0, 256, {3, 4, 84, 84}, at::TensorOptions().dtype(at::kByte));
  const at::NoGradGuard no_grad;
  // The formula, by hand: pixels / 255, and what is read off x + relu(A x).
  auto x = frames.to(at::kFloat) / 255;
  const std::vector<std::int64_t> strides{4, 2, 1};
  for (std::size_t i = 0; i < 3; ++i) {
    const auto layer = "encoder.convolution" + std::to_string(i);
    x = at::relu(at::conv2d(x, p[layer + ".weight"], p[layer + ".bias"], strides[i]));
  }
  const auto linear = [&](const at::Tensor& in, const std::string& layer) {
    return at::linear(in, p[layer + ".weight"], p[layer + ".bias"]);
  };
  x = at::relu(linear(at::relu(linear(x.flatten(1), "encoder.linear")), "hidden"));
  const auto said = network->evaluate(frames);
  CHECK(support::relative_error(said.distribution.logits,
                                linear(x + at::relu(linear(x, "policy_residual")), "policy_head")) <
        1e-5);
  CHECK(support::relative_error(
            said.values, linear(x + at::relu(linear(x, "value_residual")), "value_head")) < 1e-5);
  CHECK(network->forward(frames).logits.equal(said.distribution.logits));

  const auto copy = copy_of(network);
  CHECK(distance(copy, network) == 0);
  retain::state saved;
  save_network(saved, network, "p.");
  CHECK(distance(load_network<pixel_policy>(saved, "p."), network) == 0);
  CHECK_THROWS_WITH(load_network<policy>(saved, "p."),
                    ContainsSubstring("pixel policy 1") && ContainsSubstring("--backend"));
}

TEST_CASE("distillation of pictures has the published networks, and sees the newest frame",
          "[montezuma][ale]") {
  at::manual_seed(1);
  auto target = pixel_target({1, 84, 84}), predictor = pixel_predictor({1, 84, 84});
  const auto shapes = [](torch::nn::Sequential& net) {
    std::vector<std::vector<std::int64_t>> all;
    for (const auto& parameter : net->parameters())
      if (parameter.dim() > 1) all.push_back(parameter.sizes().vec());
    return all;
  };
  const std::vector<std::vector<std::int64_t>> convolutions{
      {32, 1, 8, 8}, {64, 32, 4, 4}, {64, 64, 3, 3}, {512, 3136}};
  CHECK(shapes(target) == convolutions);
  auto longer = convolutions;
  longer.push_back({512, 512});
  longer.push_back({512, 512});
  CHECK(shapes(predictor) == longer);
  for (const auto& parameter : predictor->parameters())
    if (parameter.dim() > 1) CHECK(orthogonal_with(parameter, std::sqrt(2.0)));
  const auto seen = at::randn({2, 1, 84, 84});
  CHECK(target->forward(seen).lt(0).any().item<bool>());  // its last layer is linear

  CHECK(newest_shape<game>() == std::vector<std::int64_t>{1, 84, 84});
  const auto stacks = at::arange(4).view({1, 1, 4, 1, 1}).expand({5, 2, 4, 84, 84});
  const auto newest = newest_of<game>(stacks);
  CHECK(newest.sizes() == at::IntArrayRef({5, 2, 1, 84, 84}));
  CHECK((newest == 3).all().item<bool>());
  CHECK(newest_of<pyramid>(at::zeros({5, 2, 157})).sizes() == at::IntArrayRef({5, 2, 157}));
}

TEST_CASE("runs on pictures are equal bit for bit, and so is one that was resumed",
          "[montezuma][ale]") {
  const auto where = script();
  const auto start = new_policy();
  auto network = copy_of(start);
  const auto memory = visited_states(network, where, 7, 12, 1);
  CHECK(memory.sizes() == at::IntArrayRef({12, 4, 84, 84}));
  CHECK(memory.scalar_type() == at::kByte);
  for (const auto* retain : {"none", "l2+ewc+bc+ks"}) {
    CAPTURE(retain);
    const auto settings = tiny();
    const auto make = [&] {
      auto own = copy_of(start);
      retention_settings kept;
      kept.bc_batch = 4;
      kept.choose(retain);
      auto terms = make_retention(own, memory, kept, 5);
      return learner_type(own, games_of(where, settings.seed, settings.games), settings,
                          std::move(terms), kept);
    };
    auto one = make(), two = make();
    one.update();
    one.update();
    two.update();
    retain::state saved;
    two.save_state(saved, "");
    auto three = make();
    three.load_state(saved, "");
    CHECK(saved.unread().empty());
    two.update();
    three.update();
    CHECK(distance(one.network(), start) > 1e-5);
    CHECK(distance(one.network(), two.network()) == 0);
    CHECK(distance(one.network(), three.network()) == 0);
  }
}

TEST_CASE("statistics of pictures begin with random steps, are of the newest frame, and grow by a "
          "rollout",
          "[montezuma][ale]") {
  auto settings = tiny();
  settings.rnd_warm_up = 3;
  auto network = new_policy();
  const auto where = script();
  learner_type learner(network, games_of(where, 1, settings.games), settings);
  learner.update();
  retain::state saved;
  learner.save_state(saved, "");
  CHECK(saved.number("novelty.rnd.observations.count") == 3 * 8 + 8);
  const auto mean = saved.tensor("novelty.rnd.observations.mean");
  CHECK(mean.sizes() == at::IntArrayRef({1, 84, 84}));
  CHECK(mean[0][20][2].item<double>() == Approx(10));  // room 1 in grey, where the beam never is
  CHECK(mean[0].max().item<double>() <= 250);
}

TEST_CASE("a policy from pictures learns what pays", "[montezuma][ale]") {
  auto where = script(8);
  where.game.sticky = 0;
  auto settings = tiny();
  settings.games = 8;
  settings.horizon = 8;
  settings.learning_rate = 1e-3;
  settings.novelty_weight = 0;
  settings.normalize_advantages = true;
  settings.discount = 0.5;
  auto network = new_policy();
  learner_type learner(network, games_of(where, 1, settings.games), settings);
  const auto chance = [&] {
    const auto seen = visited_states(network, where, 1, 8, 5);
    return retain::categorical{logits_of(network, seen)}
        .log_probs()
        .exp()
        .select(1, scripted::up)
        .mean()
        .item<double>();
  };
  const double before = chance();
  for (int i = 0; i < 12; ++i) learner.update();
  const double after = chance();
  CAPTURE(before, after);
  CHECK(before < 0.1);
  CHECK(after > 0.3);
}

TEST_CASE("the sign of a reward is learned from, its size is reported", "[montezuma][ale]") {
  // UP pays 1200 a decision. With signs and without a bonus the values' target is of the order of
  // one.
  auto settings = tiny();
  settings.bonus = bonus_kind::none;
  const auto loss_of = [&](bool signs) {
    auto now = settings;
    now.reward_signs = signs;
    auto network = new_policy();
    {
      const at::NoGradGuard no_grad;
      network->named_parameters()["policy_head.bias"][scripted::up].fill_(50);
    }
    learner_type learner(network, games_of(script(3), 1, now.games), now);
    const auto report = learner.update();
    REQUIRE_FALSE(report.episodes.empty());
    CHECK(report.episodes.front().reward >= 2000);
    return report.value_loss;
  };
  CHECK(loss_of(true) < 10);
  CHECK(loss_of(false) > 1e4);
}

TEST_CASE("exploring finds the rooms, and keeps no state that is doomed", "[montezuma][ale]") {
  explorer<scripted::console> search(scripted::console(), {.seed = 2, .per_room = 3});
  CHECK(search.cells() == 1);
  CHECK(search.rooms_seen() == std::set<int>{1});
  int walks = 0;
  while (!(search.has({2, 6, 7}) && search.rooms_seen().count(13)) && walks < 5000)
    search.walk(), ++walks;
  CAPTURE(walks);
  CHECK(search.has({2, 6, 7}));
  CHECK_FALSE(search.has({7, 13}));
  CHECK(search.count(13) == 0);  // who comes in there falls
  CHECK(search.rooms_seen() == std::set<int>{1, 2, 6, 7, 13});
  CHECK(search.found().game == "script");
  scripted::console machine;
  for (const auto& [room, states] : search.found().rooms) {
    CHECK(states.size() <= 3);
    for (const auto& one : states) {
      CHECK(survives(machine, one.bytes));
      CHECK(machine.ram()[3] == room);
      CHECK(one.came_from != room);
      CHECK(one.came_from >= 1);
    }
  }
  explorer<scripted::console> same(scripted::console(), {.seed = 2, .per_room = 3}),
      other(scripted::console(), {.seed = 3, .per_room = 3});
  for (int i = 0; i < walks; ++i) same.walk(), other.walk();
  CHECK((same.found().rooms == search.found().rooms));
  CHECK(same.frames() == search.frames());
  CHECK((other.found().rooms != search.found().rooms));
}

TEST_CASE("make-states writes what it found, when it has all, when the time is over, and at Ctrl-C",
          "[montezuma][ale]") {
  const support::temporary_folder folder;
  make_states_command command;
  command.out = folder.file("some/rooms.states");
  command.rooms = {7};
  command.explore.per_room = 2;
  const auto begin = std::chrono::steady_clock::now();
  CHECK(make_states(command, scripted::console()) == 0);
  CHECK(room_states::read(command.out).rooms.at(7).size() == 2);
  // places too, each of its room and none that is doomed
  const auto places = room_states::read(command.out).places;
  CHECK(places.count(1) == 1);
  CHECK(places.count(13) == 0);
  scripted::console machine;
  for (const auto& [room, some] : places)
    for (const auto& one : some) {
      CHECK(survives(machine, one.bytes));
      CHECK(machine.ram()[3] == room);
    }
  // Time enough to find that room again, on this machine.
  const double seconds = std::max(
      0.3, 5 * std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  command.rooms = {7, 13};
  command.minutes = seconds / 60;
  CHECK(make_states(command, scripted::console()) == 1);
  CHECK(room_states::read(command.out).rooms.count(7) == 1);
  command.minutes = 1e-9;
  CHECK_THROWS_WITH(make_states(command, scripted::console()), ContainsSubstring("--minutes"));
  command.minutes = 10;
  interrupt::install();
  struct sigaction pressed{};
  pressed.sa_handler = [](int) { ::raise(SIGINT); };
  sigaction(SIGALRM, &pressed, nullptr);
  ::alarm(static_cast<unsigned>(std::ceil(seconds)));
  CHECK(make_states(command, scripted::console()) == interrupt::exit_code);
  interrupt::flag = 0;
  std::signal(SIGINT, SIG_DFL);
  CHECK(room_states::read(command.out).rooms.count(7) == 1);
}

TEST_CASE("the commands go the whole way on pictures", "[montezuma][ale]") {
  const support::temporary_folder folder;
  const auto where = script();
  pretrain_command first;
  first.out = folder.file("teacher");
  first.accept = 0;
  first.memory = 8;
  first.final_games = 2;
  first.learning.games = 2;
  first.learning.horizon = 4;
  first.learning.minibatches = 2;
  first.learning.warm_up = 1;
  first.learning.steps = 16;
  first.learning.evaluation_games = 2;
  CHECK(pretrain(first, where) == 0);
  const auto config = read_json(folder.file("teacher/attempt1/config.json"));
  CHECK(config.at("settings").at("clip") == 0.1);
  CHECK(config.at("settings").at("room") == 7);
  CHECK(config.at("world").at("map") == "ale");
  const auto teacher = folder.file("teacher/teacher.pt");

  finetune_command second;
  second.teacher = teacher;
  second.out = folder.file("run");
  second.retain = "bc";
  second.learning = first.learning;
  second.final_games = 2;
  second.strengths.bc_batch = 4;
  second.quiet = true;
  CHECK(finetune(second, where) == 0);
  const auto found = read_json(folder.file("run/evaluation.json"));
  CHECK(found.at("preset") == "paper");
  CHECK(found.at("world").at("step_cap") == 12);

  // Where no episode can begin in the teacher's room, the run that is there is not lost to one that
  // cannot begin.
  auto without_states = where;
  without_states.states = nullptr;
  second.overwrite = true;
  CHECK_THROWS_WITH(finetune(second, without_states), ContainsSubstring("room 7"));
  CHECK(read_json(folder.file("run/evaluation.json")) == found);
  CHECK(std::filesystem::exists(folder.file("run/policy.pt")));

  evaluate_command third;
  third.policy = folder.file("run/policy.pt");
  third.games = 2;
  third.out = folder.file("rooms.json");
  CHECK(evaluate(third, where) == 0);
  const auto rooms = read_json(third.out).at("rooms");
  CHECK((rooms.size() == 2 && rooms.contains("1") && rooms.contains("7")));
  third.rooms = {13};
  CHECK_THROWS_WITH(evaluate(third, where), ContainsSubstring("room 13"));
  CHECK_THROWS_WITH(evaluate(third, world_options{}),
                    ContainsSubstring("pixel policy") && ContainsSubstring("--backend"));
}

TEST_CASE("the commands go the whole way on the memory, from places all over the teacher's rooms",
          "[montezuma][ale]") {
  using memory_world = ale_world<scripted::console, sight_of_memory>;
  static_assert(training_world<memory_world>);
  const support::temporary_folder folder;
  auto states = std::make_shared<room_states>();
  states->game = "script";
  states->rooms[7] = {{scripted::console::at({.place = 3, .x = 40, .entered = 0}), 6}};
  states->places[7] = {{scripted::console::at({.place = 3, .x = 100, .entered = 0}), 6}};
  states->places[2] = {{scripted::console::at({.place = 1, .x = 100, .entered = 0}), 1}};
  memory_world base;
  base.machine = [](std::uint64_t) { return scripted::console(); };
  base.states = states;
  base.game.step_cap = 12;
  auto there = base;
  there.game.practice_rooms = {7};
  there.game.stay_rooms = {7};
  there.game.entry_share = 0;
  pretrain_command first;
  first.out = folder.file("teacher");
  first.accept = 0;
  first.memory = 8;
  first.memory_every = 3;
  first.final_games = 2;
  first.learning.games = 2;
  first.learning.horizon = 4;
  first.learning.minibatches = 2;
  first.learning.steps = 16;
  first.learning.evaluation_games = 2;
  CHECK(pretrain(first, there) == 0);
  const auto config = read_json(folder.file("teacher/attempt1/config.json"));
  CHECK(config.at("settings").at("reward_signs") == true);
  CHECK(config.at("world").at("observation") == "ram");
  CHECK(config.at("world").at("practice_rooms") == std::vector<int>{7});
  CHECK(config.at("world").at("stay_rooms") == std::vector<int>{7});
  const auto teacher = teacher_in<memory_world>::read(folder.file("teacher/teacher.pt"), base);
  // the same policy alone, to play
  const auto alone = read_policy(folder.file("teacher/policy.pt"), base).first;
  CHECK(alone->named_parameters()["policy_head.out.weight"].equal(
      teacher.network->named_parameters()["policy_head.out.weight"]));
  CHECK(shape_of(teacher.network) == policy_shape{1108, 18, 128});
  CHECK(teacher.memory.sizes() == at::IntArrayRef({8, 1108}));
  // every state of the memory is in room 7: the 1032nd number is one
  CHECK(teacher.memory.select(1, 1024 + 7).eq(1).all().item<bool>());
  CHECK(teacher.where.game.practice_rooms.empty());  // those of the run, not of the teacher
  REQUIRE(teacher.where.of_training());
  CHECK(teacher.where.of_training()->game.practice_rooms == std::vector<int>{7});
  CHECK(teacher.where.of_training()->game.stay_rooms == std::vector<int>{7});
  CHECK_FALSE(base.of_training());

  finetune_command second;
  second.teacher = folder.file("teacher/teacher.pt");
  second.out = folder.file("run");
  second.retain = "ewc+bc";
  second.learning = first.learning;
  second.learning.rewards = "paid";
  second.final_games = 2;
  second.strengths.bc_batch = 4;
  second.quiet = true;
  auto on_the_way = base;
  on_the_way.game.practice_rooms = {2};
  CHECK(finetune(second, on_the_way) == 0);
  CHECK(read_json(folder.file("run/evaluation.json")).at("preset") == "ram");
  CHECK(read_json(folder.file("run/config.json")).at("settings").at("reward_signs") == false);
  CHECK(read_json(folder.file("run/config.json")).at("world").at("practice_rooms") ==
        std::vector<int>{2});
  const auto curves = read_columns(folder.file("run/metrics.csv"));
  for (const double value : curves.at("places/return")) CHECK(std::isfinite(value));

  evaluate_command third;
  third.policy = folder.file("run/policy.pt");
  third.games = 2;
  CHECK(evaluate(third, base) == 0);
  CHECK_THROWS_WITH(evaluate(third, script()),
                    ContainsSubstring("montezuma policy") && ContainsSubstring("--backend"));
}

}  // namespace montezuma_pixel_agent_test
