// SPDX-License-Identifier: MIT
// `montezuma clone`: makes an imperfect copy of an expert on the whole task. Fine-tuning it shows
// what the paper calls an imperfect cloning gap.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/files.hpp"
#include "../common/option_checks.hpp"
#include "../common/table.hpp"
#include "clone.hpp"
#include "evaluate.hpp"
#include "teacher.hpp"
#include "world.hpp"

namespace montezuma {

struct clone_command {
  std::string expert = "runs/expert/teacher.pt", out = "runs/clone";
  int episodes = 50, far_room = 7, final_games = 256;
  double noise = 0.05, accept = 0;
  std::int64_t memory = 4000;
  cloning_settings learning;
  bool overwrite = false;
};

/// Writes a teacher.pt as `montezuma pretrain` does. Its memory has states that the clone visits
/// from the room in which the expert was trained.
inline int clone(const clone_command& command) {
  if (!std::filesystem::exists(command.expert))
    throw std::runtime_error("no expert in " + command.expert +
                             ": name one with --expert; `montezuma pretrain --room 1` makes one");
  const std::filesystem::path out = command.out;
  if (std::filesystem::exists(out / "teacher.pt") && !command.overwrite)
    throw std::runtime_error(out.string() + " contains a teacher already: --overwrite replaces it");
  auto expert = teacher_file::read(command.expert);
  const auto& where = expert.where;
  const auto seed = command.learning.seed;
  const auto shown = demonstrate(expert.network, where, expert.room, command.episodes,
                                 command.noise, seed * 31 + 11);
  auto network = clone_from(shown, expert.network, command.learning);

  const auto measure = [&](policy& who, int room) {
    return summary_of(play_episodes(who, where, room, command.final_games, seed * 31 + 7));
  };
  const auto far = measure(network, command.far_room), start = measure(network, expert.room),
             model = measure(expert.network, expert.room);
  std::cout << "a clone of " << command.episodes << " games, " << shown.actions.size(0)
            << " actions: from room " << command.far_room << " success " << decimals(far.success, 2)
            << ", return " << decimals(far.reward, 2) << "; from room " << expert.room << " return "
            << decimals(start.reward, 2) << ", its expert's " << decimals(model.reward, 2) << "\n";
  if (far.success < command.accept)
    throw std::runtime_error("the clone's success in room " + std::to_string(command.far_room) +
                             " is below " + decimals(command.accept, 2) +
                             ": give more --episodes, less --noise, or a lower --accept");
  const teacher_file teacher{
      network,
      visited_states(network, where, expert.room, command.memory, seed + 4242),
      where,
      command.far_room,
      far.success,
      seed,
      command.learning.steps,
      cloning_gap};
  write_json(
      out / "teacher.json",
      {{"world", where.to_json()},
       {"expert", {{"file", command.expert}, {"seed", expert.seed}, {"return", model.reward}}},
       {"episodes", command.episodes},
       {"actions", shown.actions.size(0)},
       {"noise", command.noise},
       {"steps", command.learning.steps},
       {"batch", command.learning.batch},
       {"learning_rate", command.learning.learning_rate},
       {"seed", seed},
       {"memory", command.memory},
       {"far", {{"room", command.far_room}, {"success", far.success}, {"return", far.reward}}},
       {"start", {{"room", expert.room}, {"return", start.reward}, {"rooms", start.rooms}}}});
  teacher.write((out / "teacher.pt").string());
  std::cout << "saved in " << (out / "teacher.pt").string() << "\n";
  return 0;
}

inline void add_clone(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<clone_command>();
  auto* command = app.add_subcommand(
      "clone", "Clones an expert on the whole task from few games with mistakes: "
               "a teacher that is imperfect everywhere (pyramid)");
  command->add_option("--expert", o->expert, "teacher.pt of `montezuma pretrain --room 1`")
      ->capture_default_str();
  command->add_option("--out", o->out, "Folder for the clone's teacher.pt")->capture_default_str();
  command->add_option("--episodes", o->episodes, "Number of games of the expert")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--noise", o->noise,
                   "Share of the recorded actions that are replaced by random actions")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--far", o->far_room, "The later room (FAR) in which the success is measured")
      ->check(CLI::Range(0, 23))
      ->capture_default_str();
  command->add_option("--accept", o->accept, "Least success in room --far, over --final-games")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option(
          "--memory", o->memory,
          "Number of states that the clone visits, saved for BC and the Fisher information")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--steps", o->learning.steps, "Number of optimizer steps")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--batch", o->learning.batch, "Recorded actions per optimizer step")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--learning-rate", o->learning.learning_rate, "Learning rate of Adam")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--final-games", o->final_games, "Games that measure success and return")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--seed", o->learning.seed, "Seed of games, mistakes, weights and batches")
      ->capture_default_str();
  command->add_flag("--overwrite", o->overwrite, "Replace the files in --out");
  command->callback([&chosen, o] { chosen = [o] { return clone(*o); }; });
}

}  // namespace montezuma
