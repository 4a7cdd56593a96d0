// SPDX-License-Identifier: MIT
// `montezuma pretrain`: trains a policy from room 7 only. It does not learn the way to room 7.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/files.hpp"
#include "../common/option_checks.hpp"
#include "../common/resume.hpp"
#include "backend.hpp"
#include "pyramid_choice.hpp"
#include "run.hpp"
#include "teacher.hpp"
#include "trainer.hpp"
#include "training_options.hpp"
#include "world.hpp"

namespace montezuma {

struct pretrain_command {
  std::string out = "runs/teacher", preset;
  backend_options backend;
  world_options where;
  training_options learning;
  std::uint64_t seed = 1;
  int room = 7, attempts = 3, final_games = 256;
  double accept = 0.7, accept_return = 0;
  std::int64_t memory = 4000, memory_every = 1, width = 0;
  bool resume_if_possible = false, overwrite = false;
};

/// The settings that may change when an attempt is resumed.
inline const std::vector<std::string> setting_may_change{
    "steps", "learning_rate",    "entropy",        "novelty_weight",  "epochs",
    "clip",  "longest_gradient", "evaluate_every", "evaluation_games"};

/// Trains policies, each attempt with another seed, until one is good enough. This policy becomes
/// the teacher.
template <training_world World>
int pretrain(const pretrain_command& command, const World& where) {
  auto settings = preset(command.preset.empty() ? World::pretrain_preset : command.preset);
  command.learning.apply(settings);
  settings.room = command.room;
  const std::filesystem::path out = command.out;
  const auto room = "room" + std::to_string(settings.room);
  if (std::filesystem::exists(out / "teacher.pt") && !command.overwrite)
    throw std::runtime_error(out.string() + " contains a teacher already: --overwrite replaces it");
  for (int attempt = 0; attempt < command.attempts; ++attempt) {
    settings.seed = command.seed + 1'000'000u * static_cast<std::uint64_t>(attempt);
    run_place place{out / ("attempt" + std::to_string(attempt + 1)), false,
                    command.resume_if_possible, command.overwrite};
    const bool resuming = place.decide();
    const nlohmann::json config{{"world", where.to_json()}, {"settings", to_json(settings)}};
    if (resuming) {
      const auto before = read_json(place.folder / "config.json");
      check_same_settings(place.folder, "an attempt", before.at("world"), config.at("world"),
                          {"saved_states"});
      check_same_settings(place.folder, "an attempt", before.at("settings"), config.at("settings"),
                          setting_may_change);
    }
    at::manual_seed(settings.seed);
    auto network = where.new_policy(command.width);
    trainer<typename World::game_type, typename World::policy_type> learner(
        network, games_of(where, settings.seed, settings.games), settings);
    if (resuming) learner.load_state(retain::state::read(place.checkpoint().string()), "trainer.");
    place.clear(resuming);
    for (const auto* old : {"teacher.pt", "teacher.json", "policy.pt"})
      std::filesystem::remove(out / old);
    write_json(place.folder / "config.json", config);
    run_watch watch;
    watch.columns = training_columns({});
    for (const auto* what : {"/success", "/return", "/rooms"}) watch.columns.push_back(room + what);
    watch.measure = [&](std::int64_t steps) {
      const auto from =
          summary_of(play_episodes(network, where, settings.room, settings.evaluation_games,
                                   settings.seed * 31 + static_cast<std::uint64_t>(steps)));
      return std::map<std::string, double>{{room + "/success", from.success},
                                           {room + "/return", from.reward},
                                           {room + "/rooms", from.rooms}};
    };
    watch.note = [&](const std::map<std::string, double>& row) {
      return "room " + std::to_string(settings.room) + ": success " +
             decimals(row.at(room + "/success"), 2) + ", return " +
             decimals(row.at(room + "/return"), 2);
    };
    if (!run_training(learner, place, watch, "pretrain")) {
      std::fprintf(stderr,
                   "stopped at step %lld and saved; to continue, repeat the command with "
                   "--resume-if-possible\n",
                   static_cast<long long>(learner.steps()));
      return interrupt::exit_code;
    }

    const auto found = summary_of(
        play_episodes(network, where, settings.room, command.final_games, settings.seed * 31 + 7));
    const bool good = found.success >= command.accept && found.reward >= command.accept_return;
    std::cout << "attempt " << attempt + 1 << ": from room " << settings.room << " success "
              << decimals(found.success, 2) << ", return " << decimals(found.reward, 2)
              << ", rooms " << decimals(found.rooms, 1)
              << (good ? ": accepted\n" : ": not accepted\n");
    if (!good) continue;
    const teacher_in<World> teacher{network,
                                    visited_states(network, where, settings.room, command.memory,
                                                   settings.seed + 4242, command.memory_every),
                                    where,
                                    settings.room,
                                    found.success,
                                    settings.seed,
                                    learner.steps()};
    write_json(out / "teacher.json", {{"world", where.to_json()},
                                      {"settings", to_json(settings)},
                                      {"attempt", attempt + 1},
                                      {"success", found.success},
                                      {"return", found.reward},
                                      {"rooms", found.rooms},
                                      {"memory", command.memory}});
    teacher.write((out / "teacher.pt").string());
    write_policy((out / "policy.pt").string(), network, where);  // without the states: to play
    std::cout << "saved in " << (out / "teacher.pt").string() << "\n";
    return 0;
  }
  throw std::runtime_error(
      "no attempt reached a success of " + decimals(command.accept, 2) + " in room " +
      std::to_string(settings.room) +
      (command.accept_return > 0
           ? " and a return of " + decimals(command.accept_return, 2) + " from there"
           : "") +
      ": give more --steps or --attempts, or a lower --accept" +
      (command.accept_return > 0 ? " or --accept-return" : ""));
}

inline void add_pretrain(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<pretrain_command>();
  auto* command = app.add_subcommand(
      "pretrain", "Trains a teacher: a policy from room 7, saved with states that "
                  "it visits; with --room 1 an expert to clone");
  command->add_option("--out", o->out, "Folder for teacher.pt and the log of each attempt")
      ->capture_default_str();
  command->add_option("--seed", o->seed, "Seed of weights, games and batches")
      ->capture_default_str();
  command->add_option("--room", o->room, "First room of the episodes")
      ->check(CLI::Range(0, 23))
      ->capture_default_str();
  command->add_option("--accept", o->accept, "Least success in --room, over --final-games")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option("--accept-return", o->accept_return,
                   "Least return from --room, for an expert on the whole task")
      ->check(non_negative_number)
      ->capture_default_str();
  command
      ->add_option("--attempts", o->attempts, "Maximum number of attempts, each with another seed")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--memory", o->memory, "States saved for BC and the Fisher information")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--memory-every", o->memory_every,
                   "Saves each N-th state that the teacher visits, for more different ones")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--width", o->width,
                   "Width of the two hidden layers; 0: 64 for the pyramid, 128 for --observation "
                   "ram")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--final-games", o->final_games, "Games that decide on acceptance")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option(
          "--preset", o->preset,
          "pretrain, for the pyramid; for the real game ram-pretrain, which sees the memory, and "
          "paper, as published; default: the preset of the backend")
      ->check(CLI::IsMember({"pretrain", "ram-pretrain", "paper"}));
  command->add_flag("--resume-if-possible", o->resume_if_possible,
                    "Continue an interrupted run if --out has one");
  command->add_flag("--overwrite", o->overwrite, "Replace the files in --out");
  declare_backend(command, o->backend);
  declare_observation(command, o->backend);
  declare_world(command, o->where);
  declare_training(command, o->learning);
  command->callback([&chosen, o] {
    chosen = [o] { return o->backend.is_ale() ? on_ale(*o) : pretrain(*o, o->where); };
  });
}

}  // namespace montezuma
