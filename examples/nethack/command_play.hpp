// SPDX-License-Identifier: MIT
// `nethack play`: shows an agent in the terminal.
#pragma once

#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>
#include <CLI/CLI.hpp>

#include "../common/interrupt.hpp"
#include "../common/option_checks.hpp"
#include "evaluate.hpp"
#include "policy_player.hpp"
#include "screen_view.hpp"
#include "source_options.hpp"

namespace nethack {

struct play_options {
  std::string policy, saved;
  bool player = false, random = false;
  int delay = 80, turns = 2000, every = 1;
  game_source source;
  std::uint64_t seed = 1;
  long steps = 0;
};

namespace detail {

/// Shows frames in place on a terminal, and one after the other on other outputs. Resets the
/// terminal at the end.
class frame_writer {
 public:
  frame_writer() : terminal_(isatty(STDOUT_FILENO) != 0) {
    if (terminal_) std::cout << "\033[?1049h\033[?25l\033[2J";  // another screen, no cursor
  }
  frame_writer(const frame_writer&) = delete;
  frame_writer& operator=(const frame_writer&) = delete;
  ~frame_writer() {
    if (terminal_) std::cout << "\033[?25h\033[?1049l" << std::flush;
  }
  bool terminal() const { return terminal_; }
  void show(const observation& seen, const std::string& line) const {
    if (terminal_)
      std::cout << "\033[H" << screen_text(seen, true) << line << "\033[K\033[J" << std::flush;
    else
      std::cout << screen_text(seen, false) << line << "\n" << std::string(columns, '-') << "\n";
  }

 private:
  bool terminal_;
};

}  // namespace detail

inline int play(const play_options& options) {
  if (static_cast<int>(options.player) + static_cast<int>(options.random) +
          static_cast<int>(!options.policy.empty()) !=
      1)
    throw std::runtime_error(
        "play: name the player with one of --policy FILE, --player and --random");
  std::unique_ptr<game_player> who;
  if (options.player)
    who = std::make_unique<scripted_player>(1);
  else if (options.random)
    who = std::make_unique<random_player>(1);
  else
    who = std::make_unique<policy_player>(load_policy(options.policy), 1);

  environment_options game_options;
  game_options.turn_cap = options.turns;
  game_options.source = options.source;
  std::vector<std::unique_ptr<environment>> games;
  games.push_back(std::make_unique<environment>(game_options));
  auto& game = *games.front();
  game_start start{.name = "new", .seed = held_out_games + options.seed, .saved = options.saved};
  if (options.saved.empty())
    game.reset(start.seed);
  else
    game.reset_from(start.saved, start.seed);
  who->begin(0, game, start);

  std::string end;
  {
    const detail::frame_writer frames;
    long steps = 0;
    while (!game.done() && !interrupt::requested() &&
           (options.steps == 0 || steps < options.steps)) {
      const auto pressed = who->choose({0}, games).front();
      if (steps % options.every == 0) {
        frames.show(game.view(), "score " + decimals(game.score()) + "  turn " +
                                     std::to_string(game.turns()) + "  key " + key_name(pressed) +
                                     (frames.terminal() ? "   (Ctrl-C ends)" : ""));
        if (options.delay > 0)
          std::this_thread::sleep_for(std::chrono::milliseconds(options.delay));
      }
      game.step(pressed);
      ++steps;
    }
    end = game.done() ? name(game.end()) : "stopped by you";
  }
  std::cout << "score " << decimals(game.score()) << ", depth " << game.max_depth() << ", turn "
            << game.turns() << ", " << game.steps() << " keys; end: " << end << "\n";
  return 0;
}

inline void add_play(CLI::App& app, std::function<int()>& chosen) {
  auto options = std::make_shared<play_options>();
  auto* command = app.add_subcommand("play", "Shows an agent in the terminal");
  command->add_option("--policy", options->policy, "The policy that plays")
      ->check(CLI::ExistingFile);
  command->add_flag("--player", options->player, "The scripted player plays");
  command->add_flag("--random", options->random, "Random keys play");
  command->add_option("--saved", options->saved, "Saved game to start from: saves/depth4/000.save")
      ->check(CLI::ExistingFile);
  command->add_option("--seed", options->seed, "Seed of the game")->capture_default_str();
  command->add_option("--delay", options->delay, "Milliseconds between frames; 0: no delay")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--every", options->every, "Show every n-th step")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--steps", options->steps, "Stop after this many keys; 0: play to the end")
      ->check(non_negative_number)
      ->capture_default_str();
  add_source_options(command, options->source);
  command->add_option("--turns", options->turns, "Cap of the game, in game turns")
      ->check(positive_number)
      ->capture_default_str();
  command->callback([&chosen, options] { chosen = [options] { return play(*options); }; });
}

}  // namespace nethack
