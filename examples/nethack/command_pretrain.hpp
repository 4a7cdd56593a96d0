// SPDX-License-Identifier: MIT
// `nethack pretrain`: trains a policy, the clone, on demonstrations.
#pragma once

#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/interrupt.hpp"
#include "../common/option_checks.hpp"
#include "../common/progress.hpp"
#include "command_evaluate.hpp"
#include "demonstration_states.hpp"
#include "pretrain.hpp"
#include "source_options.hpp"

namespace nethack {

struct pretrain_command {
  std::string demonstrations = "demonstrations.bin", held_out, out = "clone.pt", core = "none";
  pretrain_options learning;
  double max_minutes = 0;
  bool no_compass = false, overwrite = false;
  int games = 100, turns = 2000;
  game_source source;
};

inline int run_pretrain(pretrain_command options) {
  const std::filesystem::path out = options.out;
  if (std::filesystem::exists(out) && !options.overwrite)
    throw std::runtime_error(
        options.out +
        " exists already, and runs may have started from it: --overwrite replaces it");
  if (out.has_parent_path()) std::filesystem::create_directories(out.parent_path());
  options.learning.seconds = 60 * options.max_minutes;
  options.learning.network.compass = !options.no_compass;
  options.learning.network.core = core_of_name(options.core);
  const auto training = load_states(options.demonstrations, options.learning.network.features());
  const auto held_out = options.held_out.empty()
                            ? training_states{}
                            : load_states(options.held_out, options.learning.network.features());
  std::fprintf(stderr,
               "%lld states of %lld games for training, %lld of %lld games for validation\n",
               static_cast<long long>(training.size()), static_cast<long long>(training.games),
               static_cast<long long>(held_out.size()), static_cast<long long>(held_out.games));

  progress shown("clone", 100, "%");
  std::string validation;
  nlohmann::json curve = nlohmann::json::array();
  pretrain_progress last;
  const auto network =
      pretrain(training, held_out, options.learning, [&](const pretrain_progress& now) {
        last = now;
        if (now.validated) {
          validation = ", held out: loss " + decimals(now.held_out.loss, 3) + " accuracy " +
                       decimals(100 * now.held_out.accuracy, 1) + " %";
          curve.push_back({{"samples", now.samples},
                           {"seconds", now.seconds},
                           {"loss", now.training.loss},
                           {"accuracy", now.training.accuracy},
                           {"held_out_loss", now.held_out.loss},
                           {"held_out_accuracy", now.held_out.accuracy}});
        }
        shown.update(100 * now.done, short_number(now.samples_per_second) + " samples/s, loss " +
                                         decimals(now.training.loss, 3) + validation);
        return !interrupt::requested();
      });
  if (interrupt::requested())
    throw std::runtime_error("stopped before the clone was trained; nothing was written");
  shown.finish(100, short_number(last.samples_per_second) + " samples/s" + validation);

  save_policy(options.out, network);
  nlohmann::json record{{"demonstrations", options.demonstrations},
                        {"seed", options.learning.seed},
                        {"core", options.core},
                        {"parameters", parameter_count(network)},
                        {"states", training.size()},
                        {"samples", last.samples},
                        {"curve", curve}};
  std::cout << options.out << ": " << parameter_count(network) << " parameters, held-out accuracy "
            << decimals(100 * last.held_out.accuracy, 1)
            << " % (this does not show how well it plays)\n";
  if (options.games > 0) {
    evaluation_plan plan;
    plan.games = options.games;
    plan.turns = options.turns;
    plan.source = options.source;
    const auto results = run_evaluation(
        plan, [&](std::size_t places) { return std::make_unique<policy_player>(network, places); });
    record["starts"] = to_json(results);
    std::cout << summary_table("clone", results);
  }
  write_json(options.out + ".json", record);
  return 0;
}

inline void add_pretrain(CLI::App& app, std::function<int()>& chosen) {
  auto options = std::make_shared<pretrain_command>();
  auto& learning = options->learning;
  auto* command = app.add_subcommand(
      "pretrain",
      "Clones the player of the demonstrations into a small network, then lets it play");
  command->add_option("--demonstrations", options->demonstrations, "File from `nethack record`")
      ->check(CLI::ExistingFile)
      ->capture_default_str();
  command
      ->add_option("--held-out", options->held_out,
                   "Another recording, to validate on (record it with another --seed)")
      ->check(CLI::ExistingFile);
  command
      ->add_option("--out", options->out,
                   "File for the clone; the results are written to a .json file with the same name")
      ->capture_default_str();
  command->add_flag("--overwrite", options->overwrite, "Replace the clone in --out");
  command->add_option("--seed", learning.seed, "Seed of weights and batches")
      ->capture_default_str();
  command->add_option("--epochs", learning.epochs, "Passes over all states")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--max-minutes", options->max_minutes,
                   "Time limit, even if not all epochs are done; 0: no limit")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--batch-size", learning.batch_size, "States per optimizer step")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--learning-rate", learning.learning_rate,
                   "Initial learning rate of Adam; falls linearly to a fiftieth")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--rare-repeats", learning.rare_repeats,
                   "Number of extra repetitions of states with rare, important keys")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--encoder-width", learning.network.encoder_width, "Width of the first layer")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--trunk-width", learning.network.trunk_width, "Width of the second layer")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option(
          "--core", options->core,
          "none: feed-forward; gru, lstm: a recurrent layer after the second layer, also in "
          "fine-tuning")
      ->check(CLI::IsMember({"none", "gru", "lstm"}))
      ->capture_default_str();
  command
      ->add_option(
          "--stretch", learning.stretch,
          "With a core: steps of backpropagation through time; a batch has stretches of this "
          "length from as many games as fit")
      ->check(positive_number)
      ->capture_default_str();
  command->add_flag("--no-compass", options->no_compass,
                    "Do not show the network the way to stairs, unexplored places and gold");
  command
      ->add_option("--games", options->games, "New games that the clone plays at the end; 0: none")
      ->check(non_negative_number)
      ->capture_default_str();
  add_source_options(command, options->source);
  command->add_option("--turns", options->turns, "Cap of these games, in game turns")
      ->check(positive_number)
      ->capture_default_str();
  command->callback([&chosen, options] { chosen = [options] { return run_pretrain(*options); }; });
}

}  // namespace nethack
