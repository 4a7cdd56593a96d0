// SPDX-License-Identifier: MIT
// A policy learns an environment of Gymnasium, and is then fine-tuned in a changed one, without and
// with retention. How it does in both is printed. By default CartPole-v1, then with a shorter pole
// and a weaker push.
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include <retain/behavioral_cloning.hpp>
#include <retain/ewc.hpp>
#include <retain/fisher.hpp>

#include "../common/option_checks.hpp"
#include "../common/program.hpp"
#include "../common/progress.hpp"
#include "../common/statistics.hpp"
#include "../common/table.hpp"
#include "gymnasium.hpp"
#include "ppo.hpp"

namespace {

using namespace on_gymnasium;

struct command {
  std::string python, id = "CartPole-v1";
  std::vector<std::string> changes{"length=0.1", "force_mag=3"}, methods{"none", "ewc", "bc"};
  std::int64_t steps = 100'000, pretrain_steps = 150'000;
  int games = 30, memory_games = 10;
  double ewc_strength = 100, bc_strength = 1;
  std::uint32_t seed = 1;
};

/// NAME=VALUE
std::pair<std::string, double> change_of(const std::string& text) {
  const auto equals = text.find('=');
  std::size_t used = 0;
  try {
    if (equals != std::string::npos && equals > 0) {
      const auto number = text.substr(equals + 1);
      const double value = std::stod(number, &used);
      if (used == number.size()) return {text.substr(0, equals), value};
    }
  } catch (const std::logic_error&) {
  }
  throw std::runtime_error("'" + text + "' is no change: write NAME=NUMBER, as in length=2");
}

int run(const command& said) {
  std::vector<std::pair<std::string, double>> changes;
  for (const auto& each : said.changes) changes.push_back(change_of(each));
  python::start(said.python);
  const maker original = [&] { return python::environment(said.id); };
  const maker changed = [&] {
    auto where = original();
    for (const auto& [name, value] : changes) where.set(name, value);
    return where;
  };
  const auto where = changed();
  if (where.actions() == 0)
    throw std::runtime_error(said.id + " has actions of numbers; this program needs discrete ones");

  settings how;
  how.seed = said.seed;
  at::manual_seed(how.seed);
  const auto learn = [&](policy& network, const maker& make, std::int64_t steps, terms& keep,
                         const std::string& title) {
    how.steps = steps;
    progress shown(title, static_cast<double>(steps), "steps");
    train(network, make, how, keep,
          [&](std::int64_t done) { shown.update(static_cast<double>(done)); });
    shown.finish(static_cast<double>(steps));
  };
  text_table lines(
      {"policy", "in " + said.id, "95 % interval", "in the changed one", "95 % interval"});
  const auto measure = [&](const std::string& name, policy& network) {
    std::vector<std::string> row{name};
    for (const auto& make : {original, changed}) {
      const auto returns = play(network, make, said.games, 7'000'000 + how.seed * 1000);
      const auto interval = statistics::bootstrap_interval(returns);
      row.push_back(decimals(statistics::mean(returns)));
      row.push_back(range_text(interval.low, interval.high, 0));
    }
    lines.add(row);
  };

  auto teacher = make_policy(where);
  terms nothing;
  learn(teacher, original, said.pretrain_steps, nothing, "pretrain");
  measure("pre-trained", teacher);
  std::vector<at::Tensor> seen;
  play(teacher, original, said.memory_games, 8'000'000 + how.seed * 1000, &seen);
  const auto memory = at::cat(seen);

  for (const auto& method : said.methods) {
    auto network = copy_of(teacher, where);
    terms keep;
    if (method == "ewc")
      keep.add(retain::ewc{*network,
                           retain::estimate_fisher(
                               *network, memory.split(500),
                               [&](const at::Tensor& states) { return network->forward(states); },
                               retain::exact_actions{}, {.exclude = {"value_*"}}),
                           {.strength = said.ewc_strength}});
    if (method == "bc") {
      const at::NoGradGuard no_grad;
      keep.add(retain::behavioral_cloning{memory,
                                          teacher->forward(memory).logits,
                                          {.strength = said.bc_strength, .batch_size = 256}});
    }
    learn(network, changed, said.steps, keep, method);
    measure("fine-tuned, " + method, network);
  }
  std::cout << lines.markdown();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(
      argc, argv, "gymnasium",
      "Fine-tunes a policy in a changed environment of Gymnasium, without and with retention.",
      [](CLI::App& app, std::function<int()>& chosen) {
        auto o = std::make_shared<command>();
        auto* finetune = app.add_subcommand("finetune", "Pre-trains, fine-tunes and measures");
        finetune->add_option("--python", o->python,
                             "The Python, or its virtual environment, that has gymnasium; default: "
                             "VIRTUAL_ENV, or python3 on PATH");
        finetune->add_option("--env", o->id, "Name of the environment")->capture_default_str();
        finetune->add_option("--change", o->changes, "Attributes to change: NAME=NUMBER,...")
            ->delimiter(',')
            ->capture_default_str();
        finetune->add_option("--methods", o->methods, "none, ewc, bc; separated by commas")
            ->delimiter(',')
            ->check(CLI::IsMember({"none", "ewc", "bc"}))
            ->capture_default_str();
        finetune->add_option("--pretrain-steps", o->pretrain_steps, "Steps in the original")
            ->check(positive_number)
            ->capture_default_str();
        finetune->add_option("--steps", o->steps, "Steps in the changed one, for each method")
            ->check(positive_number)
            ->capture_default_str();
        finetune->add_option("--games", o->games, "Episodes that measure a policy")
            ->check(positive_number)
            ->capture_default_str();
        finetune->add_option("--ewc-strength", o->ewc_strength, "Strength of EWC")
            ->check(non_negative_number)
            ->capture_default_str();
        finetune->add_option("--bc-strength", o->bc_strength, "Strength of BC")
            ->check(non_negative_number)
            ->capture_default_str();
        finetune->add_option("--seed", o->seed, "Seed of everything")->capture_default_str();
        finetune->callback([&chosen, o] { chosen = [o] { return run(*o); }; });
      });
}
