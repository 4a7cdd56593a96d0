// SPDX-License-Identifier: MIT
// `nethack evaluate` and `nethack save-states`.
#pragma once

#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/interrupt.hpp"
#include "../common/option_checks.hpp"
#include "../common/progress.hpp"
#include "demonstration_states.hpp"
#include "evaluate.hpp"
#include "evaluation_plan.hpp"
#include "monitor.hpp"
#include "policy_player.hpp"
#include "results.hpp"
#include "save_states.hpp"
#include "source_options.hpp"

namespace nethack {

/// Throws for a folder without saved games, and for two folders whose games would have one name.
inline void check_starts(const evaluation_plan& plan) {
  if (plan.source.backend == backend::nle && !plan.from.empty())
    throw std::runtime_error(
        "the NetHack Learning Environment cannot start from the saved games in " +
        plan.from.front() + ": use --backend debian");
  std::set<std::string> names{"new"};
  for (const auto& folder : plan.from) {
    const auto name = saved_games(folder).front().group();
    if (!names.insert(name).second)
      throw std::runtime_error("the games of " + folder + " would get the name " + name +
                               ", which other games have: rename the folder, or evaluate it alone");
  }
}

/// Plays the plan, with progress on stderr. Throws if the user stops it, because a part of an
/// evaluation is not comparable.
inline results_by_start run_evaluation(
    const evaluation_plan& plan,
    const std::function<std::unique_ptr<game_player>(std::size_t)>& make) {
  const auto play = [&](const std::vector<game_start>& starts, int turns, const std::string& what) {
    environment_options options;
    options.turn_cap = turns;
    options.source = plan.source;
    const auto who = make(places_for(starts.size()));
    progress shown(what, static_cast<double>(starts.size()), "games");
    long pressed = 0;
    auto results = play_games(starts, *who, options, [&](std::size_t ended, long steps) {
      pressed = steps;
      shown.update(static_cast<double>(ended),
                   short_number(static_cast<double>(steps) / shown.seconds()) + " steps/s");
    });
    if (interrupt::requested())
      throw std::runtime_error("stopped before the evaluation was complete; nothing was written");
    shown.finish(static_cast<double>(starts.size()),
                 short_number(static_cast<double>(pressed) / shown.seconds()) + " steps/s");
    return results;
  };
  check_starts(plan);
  results_by_start all;
  if (plan.games > 0) all.merge(play(new_games(plan.games), plan.turns, "new games"));
  for (const auto& folder : plan.from)
    all.merge(play(saved_games(folder, plan.repeats), plan.saved_turns, folder));
  return all;
}

struct evaluate_options {
  std::string policy, teacher, held_out, out, name;
  bool random = false, player = false, quiet = false;
  evaluation_plan plan;
  long monitor_states = 3000;
};

inline int evaluate(const evaluate_options& options) {
  if (static_cast<int>(options.random) + static_cast<int>(options.player) +
          static_cast<int>(!options.policy.empty()) !=
      1)
    throw std::runtime_error(
        "evaluate: name the player with one of --policy FILE, --player and --random");
  if (options.held_out.empty() != options.teacher.empty())
    throw std::runtime_error(
        "evaluate: KL and agreement need both --teacher, the clone at the start "
        "of fine-tuning, and --held-out, the demonstrations to measure on");
  const std::filesystem::path out = options.out;
  if (!options.out.empty() && std::filesystem::exists(out / "config.json"))
    throw std::runtime_error(
        "evaluate: " + options.out +
        " is the folder of a training run, which has its own evaluation: give another --out");
  std::function<std::unique_ptr<game_player>(std::size_t)> make;
  nlohmann::json file{{"who", options.random ? "random" : options.player ? "player" : "policy"}};
  if (options.random) {
    make = [](std::size_t places) { return std::make_unique<random_player>(places); };
  } else if (options.player) {
    make = [](std::size_t places) { return std::make_unique<scripted_player>(places); };
  } else {
    const auto network = load_policy(options.policy);
    make = [network](std::size_t places) {
      return std::make_unique<policy_player>(network, places);
    };
    file["policy"] = options.policy;
    if (!options.held_out.empty()) {
      const auto teacher = load_policy(options.teacher);
      if (teacher->config().compass != network->config().compass)
        throw std::runtime_error("evaluate: either " + options.policy + " or " + options.teacher +
                                 " was made with --no-compass, so their observations differ: "
                                 "use policies with the same observations");
      forgetting_monitor monitor(load_states(options.held_out, network->config().features()),
                                 teacher, options.monitor_states);
      file["monitor"] = monitor.measure(network).named();
    }
  }
  const auto results = run_evaluation(options.plan, make);
  const std::string name = !options.name.empty() ? options.name : file.at("who").get<std::string>();
  file["name"] = name;
  file["turns"] = options.plan.turns;
  file["backend"] = nethack::name(options.plan.source.backend);
  file["starts"] = to_json(results);
  if (!options.out.empty()) {
    write_file(out / "games.csv", games_csv(results));
    write_json(out / "evaluation.json", file);
  }
  if (!options.quiet) {
    std::cout << summary_table(name, results);
    if (file.contains("monitor"))
      for (const auto& [what, value] : file.at("monitor").items())
        std::cout << what << " " << decimals(value.get<double>(), 3) << "\n";
  }
  return 0;
}

inline void add_evaluate(CLI::App& app, std::function<int()>& chosen) {
  auto options = std::make_shared<evaluate_options>();
  auto* command = app.add_subcommand(
      "evaluate", "Plays games on held-out seeds, the same for every player, and reports scores");
  command
      ->add_option("--policy", options->policy,
                   "Policy that plays: a clone or a fine-tuned policy (policy.pt)")
      ->check(CLI::ExistingFile);
  command->add_flag("--player", options->player, "The scripted player plays");
  command->add_flag("--random", options->random, "Random keys play");
  command->add_option("--games", options->plan.games, "New games; 0: none")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--turns", options->plan.turns, "Cap of a new game, in game turns")
      ->check(positive_number)
      ->capture_default_str();
  add_source_options(command, options->plan.source);
  command->add_option("--from", options->plan.from,
                      "Folders of saved games: saves/depth3 saves/depth4 (see save-states)");
  command
      ->add_option("--repeats", options->plan.repeats,
                   "Number of games from each saved game, with different random seeds")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--saved-turns", options->plan.saved_turns,
                   "Cap of a game from a save, in game turns")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--held-out", options->held_out,
                   "Demonstrations on which KL and agreement with --teacher are measured")
      ->check(CLI::ExistingFile);
  command
      ->add_option("--teacher", options->teacher,
                   "The clone at the start of fine-tuning, to compare the policy with")
      ->check(CLI::ExistingFile);
  command
      ->add_option("--monitor-states", options->monitor_states,
                   "Held-out states in each of CLOSE and FAR")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--out", options->out, "Folder for evaluation.json and games.csv");
  command->add_option("--name", options->name, "Name in tables");
  command->add_flag("--quiet", options->quiet, "No table on stdout");
  command->callback([&chosen, options] { chosen = [options] { return evaluate(*options); }; });
}

struct save_states_options {
  std::string out = "saves";
  std::vector<int> depths{3, 4};
  int count = 40;
  std::uint64_t seed = 1;
  bool overwrite = false;
};

inline int save_states(const save_states_options& options) {
  const std::filesystem::path out = options.out;
  if (std::filesystem::exists(out / "saves.json") && !options.overwrite)
    throw std::runtime_error(options.out + " has saved games already: --overwrite replaces them");
  std::filesystem::remove(out / "saves.json");  // which says that all are there
  nlohmann::json all{{"seed", options.seed}};
  for (const int depth : options.depths) {
    const std::string name = "depth" + std::to_string(depth);
    progress shown(name, options.count, "saved games");
    const auto made = make_saved_games(
        out / name, depth, options.count, options.seed, [&](long saved, long games) {
          shown.update(static_cast<double>(saved), "of " + std::to_string(games) + " games");
        });
    if (interrupt::requested())
      throw std::runtime_error(
          "stopped before all games were saved; run the command again to make them all");
    shown.finish(options.count, "of " + std::to_string(made.games) + " games");
    for (const auto& game : made.saved)
      all[name].push_back({{"file", game.file.filename().string()},
                           {"turn", game.turn},
                           {"hp", game.hp},
                           {"hp_max", game.hp_max},
                           {"level", game.level}});
  }
  write_json(out / "saves.json", all);
  std::cout << "saved games in " << options.out
            << "; play from them with: nethack evaluate --player --games 0 --from " << options.out
            << "/depth" << options.depths.front() << "\n";
  return 0;
}

inline void add_save_states(CLI::App& app, std::function<int()>& chosen) {
  auto options = std::make_shared<save_states_options>();
  auto* command = app.add_subcommand(
      "save-states",
      "Saves games when the scripted player first arrives on a level, for evaluation");
  command->add_option("--out", options->out, "Folder in which depth3/ and so on are created")
      ->capture_default_str();
  command->add_option("--depths", options->depths, "Dungeon levels")
      ->delimiter(',')
      ->check(CLI::Range(2, 10))
      ->capture_default_str();
  command->add_option("--count", options->count, "Saved games per level")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of the games")->capture_default_str();
  command->add_flag("--overwrite", options->overwrite, "Replace the saved games in --out");
  command->callback([&chosen, options] { chosen = [options] { return save_states(*options); }; });
}

}  // namespace nethack
