// SPDX-License-Identifier: MIT
#include "../support.hpp"

#include "agent.hpp"
#include "policy.hpp"
#include "pretrain.hpp"

namespace {

nethack::features random_record(std::mt19937& dice) {
  nethack::features record;
  for (auto& token : record.tokens) token = static_cast<std::uint8_t>(dice() % nethack::token_count);
  record.row_count = static_cast<std::uint16_t>(dice() % nethack::max_rows);
  for (std::size_t i = 0; i < record.row_count; ++i) record.rows[i] = static_cast<std::uint16_t>(dice() % nethack::table::size);
  if (record.row_count > 2) record.rows[1] = record.rows[0];  // one row twice counts twice
  return record;
}
at::Tensor random_batch(std::size_t n, unsigned seed = 1) {
  std::mt19937 dice(seed);
  std::vector<nethack::features> records;
  for (std::size_t i = 0; i < n; ++i) records.push_back(random_record(dice));
  return nethack::to_tensor(records);
}
nethack::policy small_policy(bool separate_critic = false) {
  return nethack::policy{nethack::policy_config{.cell_width = 3, .encoder_width = 8, .trunk_width = 8, .separate_critic = separate_critic}};
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
    rows.insert(rows.end(), records[i].rows.begin(), records[i].rows.begin() + records[i].row_count);
  }
  const auto compare = [](at::Tensor table, const at::Tensor& ours, const at::Tensor& reference) {
    CHECK(at::allclose(ours, reference, 1e-5, 1e-5));
    const auto weight = at::randn_like(ours);
    const auto a = torch::autograd::grad({(ours * weight).sum()}, {table})[0], b = torch::autograd::grad({(reference * weight).sum()}, {table})[0];
    CHECK(at::allclose(a, b, 1e-5, 1e-5));
  };
  auto embedding = at::randn({nethack::token_count, 5}).set_requires_grad(true);
  compare(embedding, nethack::embed_crop(embedding, batch), at::embedding(embedding, at::tensor(cells, at::kLong)).reshape({20, -1}));
  auto table = at::randn({nethack::table::size, 7}).set_requires_grad(true);
  compare(table, nethack::sum_of_rows(table, batch),
          std::get<0>(at::embedding_bag(table, at::tensor(rows, at::kLong), at::tensor(offsets, at::kLong))));
}

TEST_CASE("a policy is of the size it should be, its parameters named for freezing and excluding") {
  const nethack::policy network{};
  const auto count = nethack::parameter_count(network);
  CHECK(count >= 300'000);
  CHECK(count <= 2'000'000);
  const auto prefixes = {"encoder.", "trunk.", "policy_head.", "value_head."};
  for (const auto& parameter : network->named_parameters())
    CHECK(std::any_of(prefixes.begin(), prefixes.end(), [&](const char* prefix) { return parameter.key().rfind(prefix, 0) == 0; }));
}

TEST_CASE("a separate critic's loss reaches nothing but its own layers") {
  for (const bool separate : {false, true}) {
    auto network = small_policy(separate);
    network->forward(random_batch(4)).value.sum().backward();
    for (const auto& parameter : network->named_parameters()) {
      const bool reached = parameter.value().grad().defined() && parameter.value().grad().abs().sum().item<double>() > 0;
      if (parameter.key().rfind("value_head", 0) != 0) CHECK(reached == (!separate && parameter.key().rfind("policy_head", 0) != 0));
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
}

TEST_CASE("actions are drawn by inversion of the softmax") {
  const std::vector<float> logits{0.0f, std::log(2.0f), std::log(1.0f)};
  CHECK(nethack::action_at_quantile(logits, 0.0) == 0);
  CHECK(nethack::action_at_quantile(logits, 0.24) == 0);
  CHECK(nethack::action_at_quantile(logits, 0.26) == 1);
  CHECK(nethack::action_at_quantile(logits, 0.74) == 1);
  CHECK(nethack::action_at_quantile(logits, 0.76) == 2);
  CHECK(nethack::action_at_quantile(logits, 0.999999) == 2);
  CHECK(nethack::action_at_quantile(logits, 0.19, 0.1) == 1);  // colder: the likeliest takes nearly all
}

TEST_CASE("cloning learns a rule that the states show, shows rare states more often, and stops when told") {
  std::mt19937 dice(9);
  nethack::training_states states;
  std::vector<nethack::features> records;
  std::vector<std::int64_t> actions;
  for (int i = 0; i < 2000; ++i) {
    nethack::features record;
    const int kind = static_cast<int>(dice() % 5);
    for (std::size_t cell = 40; cell < 80; ++cell) record.tokens[cell] = static_cast<std::uint8_t>(10 + kind);
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
  const auto network = nethack::pretrain(states, states, options, [&](const nethack::pretrain_progress& now) {
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
