// SPDX-License-Identifier: MIT
#include "../support.hpp"

#include "agent.hpp"
#include "policy.hpp"
#include "pretrain.hpp"

#include <array>
#include <functional>
#include <set>
#include <tuple>

namespace nethack_policy_test {

namespace {

nethack::features random_record(std::mt19937& dice) {
  nethack::features record;
  for (auto& token : record.tokens)
    token = static_cast<std::uint8_t>(dice() % nethack::token_count);
  record.row_count = static_cast<std::uint8_t>(dice() % nethack::max_rows);
  for (std::size_t i = 0; i < record.row_count; ++i)
    record.rows[i] = static_cast<std::uint16_t>(dice() % nethack::table::size);
  if (record.row_count > 2) record.rows[1] = record.rows[0];  // one row twice counts twice
  return record;
}
at::Tensor random_batch(std::size_t n, unsigned seed = 1) {
  std::mt19937 dice(seed);
  std::vector<nethack::features> records;
  for (std::size_t i = 0; i < n; ++i) records.push_back(random_record(dice));
  return nethack::to_tensor(records);
}
nethack::policy small_policy(bool separate_critic = false,
                             nethack::core_kind core = nethack::core_kind::none) {
  return nethack::policy{nethack::policy_config{.cell_width = 3,
                                                .encoder_width = 8,
                                                .trunk_width = 8,
                                                .core = core,
                                                .separate_critic = separate_critic}};
}
constexpr std::array every_core{nethack::core_kind::none, nethack::core_kind::gru,
                                nethack::core_kind::lstm};
/// [steps, games] of them, the first of a game where `first` says so.
at::Tensor random_stretches(std::int64_t steps, std::int64_t games,
                            const std::function<bool(std::int64_t, std::int64_t)>& first) {
  auto batch = random_batch(static_cast<std::size_t>(steps * games)).view({steps, games, -1});
  for (std::int64_t t = 0; t < steps; ++t)
    for (std::int64_t game = 0; game < games; ++game)
      nethack::first_steps(batch).index_put_({at::tensor(t), at::tensor(game)},
                                             first(t, game) ? 1 : 0);
  return batch;
}

}  // namespace

TEST_CASE("the input layers are an embedding and an embedding bag, forward and backward") {
  torch::manual_seed(1);
  const auto batch = random_batch(20);
  const auto* records = nethack::as_features(batch);
  std::vector<std::int64_t> cells, rows, offsets;
  for (std::size_t i = 0; i < 20; ++i) {
    cells.insert(cells.end(), records[i].tokens.begin(), records[i].tokens.end());
    offsets.push_back(static_cast<std::int64_t>(rows.size()));
    rows.insert(rows.end(), records[i].rows.begin(),
                records[i].rows.begin() + records[i].row_count);
  }
  const auto compare = [](at::Tensor table, const at::Tensor& ours, const at::Tensor& reference) {
    CHECK(at::allclose(ours, reference, 1e-5, 1e-5));
    const auto weight = at::randn_like(ours);
    const auto a = torch::autograd::grad({(ours * weight).sum()}, {table})[0],
               b = torch::autograd::grad({(reference * weight).sum()}, {table})[0];
    CHECK(at::allclose(a, b, 1e-5, 1e-5));
  };
  auto embedding = at::randn({nethack::token_count, 5}).set_requires_grad(true);
  compare(embedding, nethack::embed_crop(embedding, batch),
          at::embedding(embedding, at::tensor(cells, at::kLong)).reshape({20, -1}));
  auto table = at::randn({nethack::table::size, 7}).set_requires_grad(true);
  compare(table, nethack::sum_of_rows(table, batch),
          std::get<0>(at::embedding_bag(table, at::tensor(rows, at::kLong),
                                        at::tensor(offsets, at::kLong))));
}

TEST_CASE("a policy is of the size it should be, its parameters named for freezing and excluding") {
  const nethack::policy network{};
  const auto count = nethack::parameter_count(network);
  CHECK(count >= 300'000);
  CHECK(count <= 2'000'000);
  const auto prefixes = {"encoder.", "trunk.", "policy_head.", "value_head."};
  for (const auto& parameter : network->named_parameters())
    CHECK(std::any_of(prefixes.begin(), prefixes.end(),
                      [&](const char* prefix) { return parameter.key().rfind(prefix, 0) == 0; }));
}

TEST_CASE("a separate critic's loss reaches nothing but its own layers") {
  for (const bool separate : {false, true}) {
    auto network = small_policy(separate);
    network->forward(random_batch(4)).value.sum().backward();
    for (const auto& parameter : network->named_parameters()) {
      const bool reached = parameter.value().grad().defined() &&
                           parameter.value().grad().abs().sum().item<double>() > 0;
      if (parameter.key().rfind("value_head", 0) != 0)
        CHECK(reached == (!separate && parameter.key().rfind("policy_head", 0) != 0));
    }
  }
}

TEST_CASE("a policy comes back from its file, and a clone shares nothing with it") {
  support::temporary_folder folder;
  auto network = small_policy(true);
  const auto batch = random_batch(5);
  nethack::save_policy(folder.file("p.pt"), network);
  auto loaded = nethack::load_policy(folder.file("p.pt"));
  CHECK(loaded->config() == network->config());
  CHECK(at::equal(loaded->forward(batch).logits, network->forward(batch).logits));
  CHECK(at::equal(loaded->forward(batch).value, network->forward(batch).value));

  auto copy = nethack::policy(std::dynamic_pointer_cast<nethack::policy_net>(network->clone()));
  {
    const at::NoGradGuard no_grad;
    for (auto& parameter : network->parameters()) parameter.add_(1);
  }
  CHECK(at::equal(copy->logits(batch), loaded->logits(batch)));

  retain::state other;
  other.set("kind", "something else");
  other.write(folder.file("other.pt"));
  CHECK_THROWS_AS(nethack::load_policy(folder.file("other.pt")), retain::state_error);
  CHECK_THROWS_AS(nethack::load_policy(folder.file("missing.pt")), retain::error);
  // Sizes that are not those of its numbers, before a network of them is made.
  const auto saved = retain::state::read(folder.file("p.pt"));
  for (const auto* size : {"cell_width", "encoder_width", "trunk_width"})
    for (const int value : {2'000'000'000, -1}) {
      auto bad = saved;
      bad.set(size, value);
      bad.write(folder.file("other.pt"));
      CHECK_THROWS_AS(nethack::load_policy(folder.file("other.pt")), retain::shape_error);
    }
}

TEST_CASE("a stretch at once is the same as step by step, and a game's first step forgets what was "
          "before") {
  torch::manual_seed(5);
  constexpr std::int64_t steps = 6, games = 3;
  const auto stretch =
      random_stretches(steps, games, [](auto t, auto game) { return t == 4 && game == 1; });
  for (const auto core : every_core) {
    INFO(nethack::name(core));
    auto network = small_policy(false, core);
    CHECK(network->recurrent() == (core != nethack::core_kind::none));
    const at::NoGradGuard no_grad;
    const auto begin = at::randn_like(network->initial_state(games));
    const auto at_once = network->forward(stretch, begin);
    CHECK(at_once.logits.sizes() == at::IntArrayRef({steps, games, network->config().actions}));
    CHECK(at_once.value.sizes() == at::IntArrayRef({steps, games}));
    CHECK(at::equal(network->value_with_fixed_trunk(stretch, begin), at_once.value));
    auto state = begin;
    for (std::int64_t t = 0; t < steps; ++t) {
      const auto said = network->forward(stretch[t], state);
      CHECK(at::allclose(said.logits, at_once.logits[t], 1e-5, 1e-6));
      CHECK(at::allclose(said.value, at_once.value[t], 1e-5, 1e-6));
      state = said.state;
    }
    CHECK(at::allclose(state, at_once.state, 1e-5, 1e-6));

    // From the marked step on, game 1 is as if it began there; the others are not.
    const auto anew = network->forward(stretch.narrow(0, 4, 2), {});
    const auto same = [&](std::int64_t game) {
      return at::allclose(anew.logits.select(1, game),
                          at_once.logits.narrow(0, 4, 2).select(1, game), 1e-5, 1e-6);
    };
    CHECK(same(1));
    CHECK(same(0) == !network->recurrent());
    CHECK(at::allclose(anew.logits,
                       network->logits(stretch.narrow(0, 4, 2), network->initial_state(games))));
  }
}

TEST_CASE("the recurrent cores are torch's GRU and LSTM") {
  torch::manual_seed(6);
  constexpr std::int64_t steps = 5, games = 4, width = 7;
  const auto inputs = at::randn({steps, games, width});
  const at::NoGradGuard no_grad;
  for (const auto kind : {nethack::core_kind::gru, nethack::core_kind::lstm}) {
    INFO(nethack::name(kind));
    nethack::recurrent_core core(kind, width);
    const auto of = [&](const char* parameter) { return core.named_parameters()[parameter]; };
    const std::vector<at::Tensor> parameters{of("input.weight"), of("hidden.weight"),
                                             of("input.bias"), of("hidden.bias")};
    const auto state = at::randn({games, core.state_width()});
    const auto [outputs, after] =
        core.forward(inputs.flatten(0, 1), at::zeros({steps, games}, at::kByte), state);
    at::Tensor expected, last;
    if (kind == nethack::core_kind::gru) {
      at::Tensor h;
      std::tie(expected, h) =
          at::gru(inputs, state.unsqueeze(0), parameters, true, 1, 0.0, false, false, false);
      last = h[0];
    } else {
      const auto parts = state.unsqueeze(0).chunk(2, 2);
      at::Tensor h, c;
      std::tie(expected, h, c) = at::lstm(inputs, {parts[0].contiguous(), parts[1].contiguous()},
                                          parameters, true, 1, 0.0, false, false, false);
      last = at::cat({h[0], c[0]}, 1);
    }
    CHECK(at::allclose(outputs.view({steps, games, width}), inputs + expected, 1e-5, 1e-6));
    CHECK(at::allclose(after, last, 1e-5, 1e-6));
  }
}

TEST_CASE("a recurrent policy comes back from its file, a core that nobody knows is refused") {
  support::temporary_folder folder;
  const auto stretch = random_stretches(3, 2, [](auto, auto) { return false; });
  for (const auto core : every_core) {
    auto network = small_policy(false, core);
    nethack::save_policy(folder.file("p.pt"), network);
    auto loaded = nethack::load_policy(folder.file("p.pt"));
    CHECK(loaded->config() == network->config());
    CHECK(at::equal(loaded->logits(stretch), network->logits(stretch)));
    auto copy = nethack::policy(std::dynamic_pointer_cast<nethack::policy_net>(network->clone()));
    CHECK(at::equal(copy->logits(stretch), network->logits(stretch)));
    std::size_t of_core = 0;
    for (const auto& parameter : network->named_parameters())
      of_core += parameter.key().rfind("core.", 0) == 0;
    CHECK(of_core == (network->recurrent() ? 4u : 0u));
  }
  CHECK_THROWS_AS(nethack::core_of_name("elman"), retain::config_error);
}

TEST_CASE("an agent's games do not mix: each keeps its state, and a new one begins without") {
  const auto screen = [](int step) {
    nethack::observation seen;
    seen.chars.fill(' ');
    seen.hero_row = 10;
    seen.hero_column = 40;
    seen.chars[10 * 80 + 41 + static_cast<std::size_t>(step % 3)] = '#';
    seen.stats.depth = 1;
    seen.stats.turn = step + 1;
    return seen;
  };
  for (const auto core : every_core) {
    INFO(nethack::name(core));
    torch::manual_seed(8);
    auto network = small_policy(false, core);
    const auto logits_of_game = [&](nethack::agent& who, std::size_t place, bool beside_another) {
      std::vector<at::Tensor> logits;
      who.begin(place, screen(0), 3);
      for (int step = 0; step < 5; ++step) {
        const auto seen = screen(step), other = screen(7 * step + 1);
        const std::vector<std::size_t> places =
            beside_another ? std::vector<std::size_t>{0, place} : std::vector<std::size_t>{place};
        const std::vector<const nethack::observation*> views =
            beside_another ? std::vector{&other, &seen} : std::vector{&seen};
        who.act(places, views);
        logits.push_back(who.logits()[beside_another ? 1 : 0].clone());
      }
      return at::stack(logits);
    };
    nethack::agent alone(network, 3), together(network, 3);
    together.begin(0, screen(0), 4);
    const auto first = logits_of_game(alone, 1, false);
    CHECK(at::allclose(first, logits_of_game(together, 2, true), 1e-5, 1e-6));
    // the same game again, in the same place
    CHECK(at::equal(first, logits_of_game(alone, 1, false)));
  }
}

TEST_CASE("lanes follow every game from its first state to its last") {
  std::vector<nethack::features> records(23);
  for (const std::size_t first : {0u, 5u, 6u, 15u}) records[first].first = 1;
  const nethack::training_states states{nethack::to_tensor(records), at::zeros({23}, at::kLong), 4};
  const auto games = nethack::games_of(states);
  REQUIRE(games.size() == 4);
  CHECK(games[1].begin == 5);
  CHECK(games[1].end == 6);
  nethack::game_lanes walk(games, 2);
  std::vector<std::vector<std::int64_t>> lanes(2);
  while (!walk.exhausted()) {
    const auto indices = walk.next(4);
    for (std::int64_t t = 0; t < 4; ++t)
      for (std::int64_t lane = 0; lane < 2; ++lane)
        lanes[static_cast<std::size_t>(lane)].push_back(indices[t][lane].item<std::int64_t>());
  }
  std::set<std::int64_t> seen;
  for (const auto& lane : lanes)
    for (std::size_t i = 0; i < lane.size(); ++i) {
      if (lane[i] < 0) continue;
      CHECK(seen.insert(lane[i]).second);
      if (!states.at(lane[i]).first) CHECK((i > 0 && lane[i - 1] == lane[i] - 1));
    }
  CHECK(seen.size() == 23);

  nethack::game_lanes endless(games, 2, 1);
  const auto indices = endless.next(100);
  CHECK(indices.min().item<std::int64_t>() == 0);
  CHECK(indices.max().item<std::int64_t>() == 22);
  for (std::int64_t t = 1; t < 100; ++t)
    for (std::int64_t lane = 0; lane < 2; ++lane) {
      const auto now = indices[t][lane].item<std::int64_t>(),
                 before = indices[t - 1][lane].item<std::int64_t>();
      CHECK((now == before + 1 || states.at(now).first == 1));
    }
}

TEST_CASE("a recurrent clone learns what only the past shows, a feed-forward one cannot") {
  // The first state of a game shows which action is right for the rest of it.
  std::mt19937 dice(12);
  std::vector<nethack::features> records;
  std::vector<std::int64_t> actions;
  for (int game = 0; game < 150; ++game) {
    const auto kind = static_cast<std::int64_t>(dice() % 4);
    for (int t = 0; t < 9; ++t) {
      nethack::features record;
      record.first = t == 0;
      for (std::size_t cell = 40; cell < 80; ++cell)
        record.tokens[cell] = static_cast<std::uint8_t>(t == 0 ? 10 + kind : 50);
      records.push_back(record);
      actions.push_back(kind);
    }
  }
  const nethack::training_states states{nethack::to_tensor(records), at::tensor(actions, at::kLong),
                                        150};
  for (const auto core : every_core) {
    INFO(nethack::name(core));
    nethack::pretrain_options options;
    options.network = {.cell_width = 3, .encoder_width = 16, .trunk_width = 16, .core = core};
    options.batch_size = 96;
    options.stretch = 12;
    options.epochs = 60;
    options.learning_rate = 1e-2;
    const auto clone = nethack::pretrain(states, states, options);
    const auto accuracy = nethack::measure_fit(clone, states).accuracy;
    if (core == nethack::core_kind::none)
      CHECK(accuracy < 0.6);
    else
      CHECK(accuracy > 0.95);
    // Of all states at once, by lanes, the answer is that of each game by itself.
    const auto game = states.observations.narrow(0, 9, 9).unsqueeze(1);
    const at::NoGradGuard no_grad;
    auto network = clone;
    CHECK(at::allclose(nethack::logits_of(clone, states).narrow(0, 9, 9),
                       network->logits(game).squeeze(1), 1e-4, 1e-5));
    options.stretch = 7;
    if (core != nethack::core_kind::none)
      CHECK_THROWS_AS(nethack::pretrain(states, states, options), retain::config_error);
  }
}

TEST_CASE("actions are drawn by inversion of the softmax") {
  const std::vector<float> logits{0.0f, std::log(2.0f), std::log(1.0f)};
  CHECK(nethack::action_at_quantile(logits, 0.0) == 0);
  CHECK(nethack::action_at_quantile(logits, 0.24) == 0);
  CHECK(nethack::action_at_quantile(logits, 0.26) == 1);
  CHECK(nethack::action_at_quantile(logits, 0.74) == 1);
  CHECK(nethack::action_at_quantile(logits, 0.76) == 2);
  CHECK(nethack::action_at_quantile(logits, 0.999999) == 2);
  // colder: the likeliest takes nearly all
  CHECK(nethack::action_at_quantile(logits, 0.19, 0.1) == 1);
}

TEST_CASE("cloning learns a rule that the states show, shows rare states more often, and stops "
          "when told") {
  std::mt19937 dice(9);
  nethack::training_states states;
  std::vector<nethack::features> records;
  std::vector<std::int64_t> actions;
  for (int i = 0; i < 2000; ++i) {
    nethack::features record;
    const int kind = static_cast<int>(dice() % 5);
    for (std::size_t cell = 40; cell < 80; ++cell)
      record.tokens[cell] = static_cast<std::uint8_t>(10 + kind);
    records.push_back(record);
    actions.push_back(kind);
  }
  states.observations = nethack::to_tensor(records);
  states.actions = at::tensor(actions, at::kLong);
  nethack::pretrain_options options;
  options.network = {.cell_width = 3, .encoder_width = 16, .trunk_width = 16};
  options.batch_size = 100;
  options.epochs = 10;
  options.learning_rate = 5e-3;
  int validations = 0;
  const auto network =
      nethack::pretrain(states, states, options, [&](const nethack::pretrain_progress& now) {
        validations += now.validated;
        return true;
      });
  CHECK(validations == 8);
  CHECK(nethack::measure_fit(network, states).accuracy > 0.99);

  long samples = 0;
  nethack::pretrain(states, states, options, [&](const nethack::pretrain_progress& now) {
    samples = now.samples;
    return false;
  });
  CHECK(samples < 10 * 2000);
  options.batch_size = 100'000;
  CHECK_THROWS_AS(nethack::pretrain(states, states, options), retain::config_error);
}

}  // namespace nethack_policy_test
