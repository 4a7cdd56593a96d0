// SPDX-License-Identifier: MIT
// `robotic_sequence play`: watch the arm in the terminal, or write what it does as images.
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

/// Who decides: from what is seen in the stage of this number to two numbers in [-1, 1].
using player = std::function<void(const float* observation, int stage, float* action)>;
/// Reads a policy for these stages; those that it was not trained on it plays as it began.
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
        "play: say who plays, with one of --policy FILE, --scripted and --random");
  const auto stages = tail(command.stages);
  const auto first = std::find_if(stages.begin(), stages.end(), [&](stage_kind each) {
    return command.from.empty() || name_of(each) == command.from;
  });
  if (first == stages.end())
    throw std::runtime_error("play: the last " + std::to_string(command.stages) +
                             " stages begin with " + name_of(stages.front()) + ", without '" +
                             command.from + "'; see --stages");
  if (command.scripted && !controller_knows(*first))
    throw std::runtime_error(std::string("play: the scripted controller does not know ") +
                             name_of(*first) + ", where this would begin: see --from");
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
        end = std::string("the scripted controller does not know ") + name_of(world.kind());
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
      app.add_subcommand("play", "Watch the arm in the terminal, or write what it does as images");
  command
      ->add_option("--policy", o->policy, "Policy to watch, in the stages that it was trained on")
      ->check(CLI::ExistingFile);
  command->add_flag("--scripted", o->scripted,
                    "Watch the scripted controller, which knows all stages but the last two");
  command->add_flag("--random", o->random, "Watch random torques");
  command->add_option("--stages", o->stages, "How many stages, of the six the last ones")
      ->check(CLI::Range(1, static_cast<int>(all_stages.size())))
      ->capture_default_str();
  command->add_option("--from", o->from, "Name of the stage to begin with; without it, the first");
  command->add_option("--seed", o->seed, "Where things are, and random torques")
      ->check(non_negative_number)
      ->capture_default_str();
  command
      ->add_option("--delay", o->delay,
                   "Milliseconds between frames; 50 is as fast as the arm, 0 for none")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--frames", o->frames, "Folder for an image of each frame (PPM)");
  command->footer(drawing_legend);
  command->callback([&chosen, o, read_policy = std::move(read_policy)] {
    chosen = [o, read_policy] { return play(*o, read_policy); };
  });
}

}  // namespace robotic_sequence
