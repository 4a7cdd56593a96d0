// SPDX-License-Identifier: MIT
// The agent of the robotic sequence: its loop, what it retains, its temperatures.
#include "../support.hpp"

#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <unistd.h>

#include <retain/state.hpp>

#include "../../examples/robotic_sequence/controller.hpp"
#include "../../examples/robotic_sequence/evaluate.hpp"
#include "../../examples/robotic_sequence/learner.hpp"
#include "../../examples/robotic_sequence/teacher.hpp"

namespace robotic_sequence_agent_test {

using namespace robotic_sequence;

namespace {

training_settings small_settings() {
  training_settings settings;
  settings.agent.width = 16;
  settings.agent.batch = 32;
  settings.steps = 160;
  settings.random_steps = 40;
  settings.learn_after = 60;
  settings.capacity = 500;
  return settings;
}

/// Random states of every kind of stage from the first that is given.
at::Tensor some_states(std::int64_t count, std::int64_t first = 0) {
  auto states = at::zeros({count, observation_width});
  states.narrow(1, 0, sequence::observation_size).normal_();
  for (std::int64_t i = 0; i < count; ++i)
    states[i][sequence::observation_size + first + i % (kinds - first)].fill_(1);
  return states;
}

retain::transitions some_transitions(std::int64_t count) {
  return {{"observation", some_states(count)},
          {"action", at::rand({count, sequence::action_size}) * 2 - 1},
          {"reward", at::rand({count})},
          {"next", some_states(count)},
          {"ended", at::zeros({count})}};
}

bool same_weights(const actor_network& a, const actor_network& b) {
  const auto ours = a->named_parameters(), theirs = b->named_parameters();
  for (const auto& each : ours)
    if (!at::equal(each.value(), theirs[each.key()])) return false;
  return true;
}

}  // namespace

TEST_CASE("equal settings make equal runs, and a run that is saved goes on bit for bit",
          "[robotic_sequence]") {
  const auto settings = small_settings();
  retention_settings kept;
  kept.choose("l2+ewc+bc+ks+em");
  at::manual_seed(5);
  const auto memory = some_transitions(100);
  const auto begin = [&](sac_agent& agent) {
    auto actor = agent.actor();
    return learner(agent, tail(4), settings, episode_kind::whole, memory,
                   make_retention(actor, memory["observation"], kept, settings.seed), kept);
  };
  sac_agent first_agent(settings.agent, known_kinds(), settings.seed),
      second_agent(settings.agent, known_kinds(), settings.seed);
  auto first = begin(first_agent), second = begin(second_agent);
  while (!first.finished()) first.step();
  const auto file = (std::filesystem::temp_directory_path() /
                     ("retain_robotic_" + std::to_string(getpid()) + ".state"))
                        .string();
  while (!second.finished()) {
    if (second.steps() == 97) {
      retain::state out;
      second.save_state(out, "learner.");
      out.write(file);  // a state shares the tensors that training goes on with
    }
    second.step();
  }
  const auto saved = retain::state::read(file);
  std::filesystem::remove(file);
  CHECK(same_weights(first_agent.actor(), second_agent.actor()));

  sac_agent third_agent(settings.agent, known_kinds(), settings.seed);
  CHECK_FALSE(same_weights(first_agent.actor(), third_agent.actor()));
  auto third = begin(third_agent);
  auto broken = saved;
  broken.set("learner.visits", at::zeros({1}, at::kLong));
  CHECK_THROWS_AS(third.load_state(broken, "learner."), retain::shape_error);
  third.load_state(saved, "learner.");
  CHECK(third.steps() == 97);
  while (!third.finished()) third.step();
  CHECK(same_weights(first_agent.actor(), third_agent.actor()));
}

TEST_CASE("protected transitions stay in the buffer, and are drawn in their share",
          "[robotic_sequence]") {
  auto settings = small_settings();
  settings.steps = 600;
  settings.random_steps = 600;
  settings.learn_after = 600;
  settings.capacity = 400;
  const auto memory = some_transitions(100);
  sac_agent agent(settings.agent, known_kinds(), 1);
  learner learning(agent, tail(4), settings, episode_kind::whole, memory);
  CHECK(learning.buffer().protected_share() == 1.0);
  while (!learning.finished()) learning.step();
  CHECK(learning.buffer().size() == 400);
  CHECK(learning.buffer().protected_share() == 0.25);
  CHECK(at::equal(learning.buffer().gather(at::arange(100))["observation"], memory["observation"]));

  // Drawn uniformly: a binomial number of them over many batches, within 4.5 of its deviations.
  auto buffer = learning.buffer();
  constexpr std::int64_t batches = 400, batch = 128, draws = batches * batch;
  std::int64_t protected_draws = 0;
  for (std::int64_t i = 0; i < batches; ++i)
    protected_draws += buffer.sample_indices(batch).lt(100).sum().item<std::int64_t>();
  CHECK(std::abs(static_cast<double>(protected_draws) - 0.25 * draws) <
        4.5 * std::sqrt(draws * 0.25 * 0.75));

  // With a share of their own they are that share of every batch, to the row.
  retain::episodic_memory exact(memory, {.capacity = 400, .share = 0.5});
  exact.push(some_transitions(300));
  for (int i = 0; i < 10; ++i)
    CHECK(exact.sample_indices(batch).lt(100).sum().item<std::int64_t>() == batch / 2);
}

TEST_CASE("what cloning asks of the actor's weights is the slope of the KL, by finite differences",
          "[robotic_sequence]") {
  at::manual_seed(13);
  auto settings = small_settings().agent;
  settings.width = 6;
  auto actor = make_actor(settings), taught = make_actor(settings);
  actor->to(at::kDouble);
  taught->to(at::kDouble);
  const auto states = some_states(4).to(at::kDouble);
  for (std::int64_t i = 0; i < states.size(0); ++i) {
    // Of a memory of one state every draw is that state.
    const auto state = states.narrow(0, i, 1);
    const auto target = answers_of(taught, state);
    retain::behavioral_cloning<at::Tensor, stored_gaussians> term(
        state, target,
        retain::behavioral_cloning_options{.strength = 2, .batch_size = 3, .seed = 1});
    for (auto& parameter : actor->parameters()) parameter.mutable_grad() = at::Tensor();
    term.loss([&](const at::Tensor& seen) { return actor->forward(seen); }).backward();
    const auto divergence = [&] {
      const auto p = target.gather(at::zeros({1}, at::kLong)).unsquashed(),
                 q = actor->forward(state).unsquashed();
      double sum = 0;
      for (std::int64_t d = 0; d < sequence::action_size; ++d) {
        const double gap = (p.mean() - q.mean())[0][d].item<double>(),
                     log_p = p.log_std()[0][d].item<double>(),
                     log_q = q.log_std()[0][d].item<double>();
        sum += log_q - log_p + (std::exp(2 * log_p) + gap * gap) / (2 * std::exp(2 * log_q)) - 0.5;
      }
      return 2 * sum;
    };
    for (const auto& parameter : actor->named_parameters()) {
      INFO(parameter.key());
      REQUIRE(parameter.value().grad().defined());
      CHECK(support::relative_error(
                parameter.value().grad(),
                support::finite_differences(parameter.value(), divergence, 1e-6)) < 1e-5);
    }
  }
}

TEST_CASE("the actor's Fisher information is that of one state at a time, and 0 in the heads of "
          "stages without states",
          "[robotic_sequence]") {
  at::manual_seed(3);
  auto actor = make_actor(small_settings().agent);
  const auto unplug = static_cast<std::int64_t>(stage_kind::unplug);
  const auto states = some_states(48, unplug);
  std::vector<std::string> names;
  std::vector<at::Tensor> weights;
  for (const auto& parameter : actor->named_parameters()) {
    names.push_back(parameter.key());
    weights.push_back(parameter.value());
  }
  for (const auto kind : {fisher_kind::gaussian, fisher_kind::continual_world}) {
    const bool squashed = kind == fisher_kind::continual_world;
    CAPTURE(squashed);
    std::vector<at::Tensor> expected;
    for (const auto& weight : weights) expected.push_back(at::zeros_like(weight));
    const auto add = [&](const at::Tensor& output, double factor) {
      const auto slopes = torch::autograd::grad({output}, weights, {}, true, false, true);
      for (std::size_t i = 0; i < weights.size(); ++i)
        if (slopes[i].defined())
          expected[i] += factor * slopes[i].square() / static_cast<double>(states.size(0));
    };
    for (std::int64_t i = 0; i < states.size(0); ++i) {
      const auto said = actor->forward(states.narrow(0, i, 1)).unsquashed();
      const auto mean = squashed ? said.mean().tanh() : said.mean();
      for (std::int64_t d = 0; d < sequence::action_size; ++d) {
        // of a Gaussian: 1/σ² (∂μ)² + 2 (∂ log σ)²
        add(mean[0][d], 1 / said.std()[0][d].square().item<double>());
        add(said.log_std()[0][d], 2);
      }
    }
    const auto fisher = fisher_of(actor, states, kind);
    std::size_t compared = 0;
    for (const auto& [name, found] : fisher.values) {
      CAPTURE(name);
      const auto at = std::find(names.begin(), names.end(), name);
      REQUIRE(at != names.end());
      CHECK(
          at::allclose(found, expected[static_cast<std::size_t>(at - names.begin())], 1e-4, 1e-8));
      ++compared;
      if (!name.starts_with("policy_head.")) continue;
      CHECK_FALSE(squashed);  // the heads are left out
      const auto heads = found.view({kinds, -1});
      CHECK(at::count_nonzero(heads.narrow(0, 0, unplug)).item<std::int64_t>() == 0);
      CHECK(heads.narrow(0, unplug, kinds - unplug).sum().item<double>() > 0);
    }
    CHECK(compared == (squashed ? 4u : names.size()));
  }
}

TEST_CASE("what is learned from ends with each stage, solved or out of time, and its successor is "
          "of the same stage",
          "[robotic_sequence]") {
  auto settings = small_settings();
  settings.steps = settings.random_steps = settings.learn_after = settings.capacity = 40'000;
  sac_agent agent(settings.agent, {}, 1);
  // the faucet comes first, which is solved by chance at times
  learner learning(agent, tail(5), settings, episode_kind::whole);
  while (!learning.finished()) learning.step();
  const auto rows = learning.buffer().gather(at::arange(settings.steps));
  const auto& observation = rows["observation"];
  const auto& next = rows["next"];
  const auto kind = sac_agent::stage_of(observation);
  CHECK(at::equal(sac_agent::stage_of(next), kind));
  const auto* kinds_seen = kind.data_ptr<std::int64_t>();
  const auto* ended = rows["ended"].data_ptr<float>();
  const auto* reward = rows["reward"].data_ptr<float>();
  const auto goes_on =
      (next.narrow(0, 0, settings.steps - 1) == observation.narrow(0, 1, settings.steps - 1))
          .all(1);
  const auto* is_successor = goes_on.data_ptr<bool>();
  const auto faucet = static_cast<std::int64_t>(stage_kind::faucet);
  std::int64_t began = 0, solved = 0, wrong_ends = 0, wrong_lengths = 0, wrong_kinds = 0;
  double least_solved = 1e9, greatest_other = -1e9;
  for (std::int64_t i = 0; i + 1 < settings.steps; ++i) {
    const bool end = ended[i] == 1;
    wrong_ends += end == is_successor[i] || (!end && ended[i] != 0);
    if (!end) {
      wrong_kinds += kinds_seen[i + 1] != kinds_seen[i];
      greatest_other = std::max<double>(greatest_other, reward[i]);
      continue;
    }
    const auto decisions = i + 1 - began;
    began = i + 1;
    if (kinds_seen[i + 1] == kinds_seen[i] + 1) {
      ++solved;
      least_solved = std::min<double>(least_solved, reward[i]);
      wrong_lengths += decisions > 50;
    } else {
      wrong_kinds += kinds_seen[i + 1] != faucet;
      wrong_lengths += decisions != 50;
    }
  }
  CHECK(wrong_ends == 0);
  CHECK(wrong_kinds == 0);
  CHECK(wrong_lengths == 0);
  CHECK(solved >= 1);
  CHECK(least_solved > greatest_other);
}

TEST_CASE("a policy that is held below the entropy target drives its temperature up, unless a cap "
          "stops it",
          "[robotic_sequence]") {
  auto settings = small_settings().agent;
  settings.learning_rate = 0.01;
  const auto run = [&](const std::vector<bool>& known, double strength) {
    sac_agent agent(settings, known, 1);
    {
      // Narrow: the log of the standard deviation is the second half of every head.
      const at::NoGradGuard no_grad;
      agent.actor()
          ->named_parameters()["policy_head.out.bias"]
          .view({kinds, 2, sequence::action_size})
          .select(1, 1)
          .fill_(-4);
    }
    at::manual_seed(9);
    const auto memory = some_transitions(64);
    retention_settings kept;
    kept.choose("bc");
    kept.bc_strength = strength;
    auto actor = agent.actor();
    auto terms = make_retention(actor, memory["observation"], kept, 1);
    for (int i = 0; i < 200; ++i)
      agent.update(memory, [&](const at::Tensor&) {
        return terms.distillation([&](const at::Tensor& s) { return actor->forward(s); },
                                  visited_steps{});
      });
    return agent.temperature().alpha();
  };
  const auto free = run({}, 100), capped = run(known_kinds(), 100), not_held = run({}, 0);
  const auto push = static_cast<int>(stage_kind::push),
             wall = static_cast<int>(stage_kind::push_wall);
  CHECK(free[wall].item<double>() > 3 * settings.initial_alpha);
  // it has the entropy that is asked for
  CHECK(not_held[wall].item<double>() < settings.initial_alpha);
  CHECK(capped[push].item<double>() > 3 * settings.initial_alpha);
  CHECK(std::abs(capped[wall].item<double>() - settings.known_alpha_cap) < 1e-6);
}

TEST_CASE("random weights solve no whole sequence, and equal seeds measure equally",
          "[robotic_sequence]") {
  at::manual_seed(2);
  const auto actor = make_actor(small_settings().agent);
  const auto once = measure_success(actor, tail(4), 10, 3);
  CHECK(once.at("all") == 0);
  CHECK(once.size() == 5);
  CHECK(once == measure_success(actor, tail(4), 10, 3));
}

TEST_CASE("success is measured from the stage that is asked for, and onward to the end",
          "[robotic_sequence]") {
  // The scripted controller knows all stages but the last two; in those nobody moves.
  std::vector<float> seen_first;
  const auto play = [&](const at::Tensor& observations) {
    if (seen_first.empty())
      seen_first.assign(observations.data_ptr<float>(),
                        observations.data_ptr<float>() + observations.numel());
    auto actions = at::zeros({observations.size(0), sequence::action_size});
    const auto stage = sac_agent::stage_of(observations);
    for (std::int64_t i = 0; i < observations.size(0); ++i) {
      const auto kind = static_cast<stage_kind>(stage[i].item<std::int64_t>());
      if (kind != stage_kind::unplug && kind != stage_kind::push_wall)
        control(kind, observations.data_ptr<float>() + i * observation_width,
                actions.data_ptr<float>() + i * sequence::action_size);
    }
    return actions;
  };
  const std::vector<stage_kind> known{stage_kind::window, stage_kind::press, stage_kind::push};
  for (int stage = 0; stage < 3; ++stage)
    CHECK(success_from(play, known, stage, false, 20, 3) >= 0.9);
  const double both = success_from(play, known, 0, true, 20, 3);
  CHECK(both >= 0.8);
  CHECK(success_from(play, tail(4), 1, false, 20, 3) >= 0.9);  // push
  CHECK(success_from(play, tail(4), 1, true, 20, 3) == 0);     // and unplug behind it
  CHECK(success_from(play, tail(4), 2, false, 20, 3) == 0);    // unplug
  const auto starts = [&](std::uint64_t seed) {
    seen_first.clear();
    success_from(play, known, 2, false, 5, seed);
    return seen_first;
  };
  CHECK(starts(3) == starts(3));
  CHECK(starts(3) != starts(4));
}

TEST_CASE("sac_agent: an update is the same with its operations joined and one by one",
          "[robotic_sequence][agent]") {
  robotic_sequence::sac_agent joined({}, {false, false, false, false, true, true}, 2),
      apart({}, {false, false, false, false, true, true}, 2);
  at::manual_seed(6);
  const auto rows = [](const at::Tensor& kind) {
    return at::cat({at::randn({128, robotic_sequence::sequence::observation_size}),
                    at::one_hot(kind, robotic_sequence::kinds).to(at::kFloat)},
                   1);
  };
  for (int i = 0; i < 20; ++i) {
    const auto kind = at::randint(robotic_sequence::kinds, {128});
    const retain::transitions batch{{"observation", rows(kind)},
                                    {"action", at::rand({128, 2}) * 2 - 1},
                                    {"reward", at::rand({128})},
                                    {"next", rows(kind)},
                                    {"ended", (at::rand({128}) < 0.05).to(at::kFloat)}};
    const auto one = joined.update(batch);
    const retain::detail::separate_nodes scope;
    const auto other = apart.update(batch);
    CHECK(one.critics.item<double>() == Approx(other.critics.item<double>()).epsilon(1e-3));
    CHECK(one.actor.item<double>() == Approx(other.actor.item<double>()).epsilon(1e-3));
    CHECK(at::allclose(one.log_probs, other.log_probs, 1e-2, 1e-3));
  }
}

TEST_CASE("no value beyond the bound is taught: stored transitions that lead on to themselves do "
          "not drive the critics up",
          "[robotic_sequence]") {
  const auto greatest_value = [](double bound) {
    auto settings = small_settings().agent;
    settings.learning_rate = 0.01;
    settings.tau = 0.5;
    settings.initial_alpha = settings.alpha_floor;  // entropy adds next to nothing
    settings.value_bound = bound;
    sac_agent agent(settings, {}, 1);
    at::manual_seed(9);
    const auto states = some_states(64);
    const retain::transitions memory{{"observation", states},
                                     {"action", at::rand({64, sequence::action_size}) * 2 - 1},
                                     {"reward", at::ones({64})},
                                     {"next", states},
                                     {"ended", at::zeros({64})}};
    for (int i = 0; i < 300; ++i) agent.update(memory);
    return agent.critics()->forward(states, memory["action"]).max().item<double>();
  };
  CHECK(greatest_value(2) < 2.5);
  CHECK(greatest_value(1e9) > 5);  // on its way to 1 / (1 - .99)
}

}  // namespace robotic_sequence_agent_test
