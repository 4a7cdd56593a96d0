// SPDX-License-Identifier: MIT
// `robotic_sequence play`: shows the arm in the terminal, or writes images of it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "../common/files.hpp"
#include "../common/interrupt.hpp"
#include "../common/option_checks.hpp"
#include "../common/screen.hpp"
#include "../common/table.hpp"
#include "controller.hpp"
#include "drawing.hpp"

namespace robotic_sequence {

/// A player: maps the stage number and the observation to two numbers in [-1, 1].
using player = std::function<void(const float* observation, int stage, float* action)>;
/// Reads a policy for these stages. In stages that it was not trained on, it plays with its initial
/// weights.
using policy_reader =
    std::function<player(const std::string& file, const std::vector<stage_kind>& stages)>;

struct play_command {
  std::string policy = {}, frames = {}, from = {};
  bool random = false, scripted = false;
  int stages = 4, delay = 50;
  std::uint64_t seed = 1;
};

inline int play(const play_command& command, const policy_reader& read_policy) {
  if (static_cast<int>(command.random) + static_cast<int>(command.scripted) +
          static_cast<int>(!command.policy.empty()) !=
      1)
    throw std::runtime_error(
        "play: name the player with one of --policy FILE, --scripted and --random");
  const auto stages = tail(command.stages);
  const auto first = std::find_if(stages.begin(), stages.end(), [&](stage_kind each) {
    return command.from.empty() || name_of(each) == command.from;
  });
  if (first == stages.end())
    throw std::runtime_error("play: the last " + std::to_string(command.stages) +
                             " stages begin with " + name_of(stages.front()) +
                             " and do not include '" + command.from + "'; see --stages");
  if (command.scripted && !controller_knows(*first))
    throw std::runtime_error(std::string("play: the scripted controller cannot play ") +
                             name_of(*first) + ", the first stage: choose another with --from");
  sequence world(stages, command.seed);
  world.start(static_cast<int>(first - stages.begin()));

  player decide;
  std::mt19937_64 dice(command.seed);
  std::uniform_real_distribution<float> torque(-1, 1);
  if (command.random)
    decide = [&](const float*, int, float* action) {
      std::generate_n(action, sequence::action_size, [&] { return torque(dice); });
    };
  else if (command.scripted)
    decide = [&](const float* seen, int stage, float* action) {
      control(stages[static_cast<std::size_t>(stage)], seen, action);
    };
  else
    decide = read_policy(command.policy, stages);

  double paid = 0;
  long decisions = 0;
  int solved = 0;
  std::string end;
  {
    const text_screen shown;
    const auto show = [&] {
      shown.show(draw(world, shown.terminal()),
                 std::string(name_of(world.kind())) + "  stage " +
                     std::to_string(world.stage() + 1) + " of " + std::to_string(world.stages()) +
                     "  decision " + std::to_string(world.time()) + " of " +
                     std::to_string(world.options().horizon) + "  return " + decimals(paid, 2));
      if (command.frames.empty()) return;
      char name[32];
      std::snprintf(name, sizeof name, "%05ld.ppm", decisions + solved);
      write_file(std::filesystem::path(command.frames) / name, ppm(world));
    };
    show();
    while (end.empty()) {
      if (command.scripted && !controller_knows(world.kind())) {
        end = std::string("the scripted controller cannot play ") + name_of(world.kind());
        break;
      }
      float seen[sequence::observation_size], action[sequence::action_size];
      world.observe(seen);
      decide(seen, world.stage(), action);
      const auto result = world.step(action);
      paid += static_cast<double>(result.reward);
      ++decisions;
      show();
      if (command.delay > 0) std::this_thread::sleep_for(std::chrono::milliseconds(command.delay));
      if (result.timed_out) end = std::string("out of time in ") + name_of(world.kind());
      if (result.success) {
        ++solved;
        if (world.advance())
          show();
        else
          end = "the last stage is solved";
      }
      if (interrupt::requested() && end.empty()) end = "stopped";
    }
  }
  std::cout << "return " << decimals(paid, 2) << " in " << decisions << " decisions, " << solved
            << " of " << stages.end() - first << " stages solved; end: " << end << "\n";
  return 0;
}

inline void add_play(CLI::App& app, std::function<int()>& chosen, policy_reader read_policy) {
  auto o = std::make_shared<play_command>();
  auto* command =
      app.add_subcommand("play", "Shows the arm in the terminal, or writes images of it");
  command->add_option("--policy", o->policy, "The policy that plays the stages it was trained on")
      ->check(CLI::ExistingFile);
  command->add_flag("--scripted", o->scripted,
                    "The scripted controller plays; it can play all stages except the last two");
  command->add_flag("--random", o->random, "Random torques play");
  command->add_option("--stages", o->stages, "Number of stages: the last ones of the six")
      ->check(CLI::Range(1, static_cast<int>(all_stages.size())))
      ->capture_default_str();
  command->add_option("--from", o->from, "Name of the first stage; default: the first of --stages");
  command->add_option("--seed", o->seed, "Seed of the positions and of the random torques")
      ->check(non_negative_number)
      ->capture_default_str();
  command
      ->add_option("--delay", o->delay,
                   "Milliseconds between frames; 50 is the arm's real speed, 0 no delay")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--frames", o->frames, "Folder for an image of each frame (PPM)");
  command->footer(drawing_legend);
  command->callback([&chosen, o, read_policy = std::move(read_policy)] {
    chosen = [o, read_policy] { return play(*o, read_policy); };
  });
}

}  // namespace robotic_sequence
