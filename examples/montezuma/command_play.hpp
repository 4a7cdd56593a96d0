// SPDX-License-Identifier: MIT
// `montezuma play`: shows a policy in the terminal, or lets you play yourself.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>

#include <poll.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "../common/interrupt.hpp"
#include "../common/option_checks.hpp"
#include "../common/screen.hpp"
#include "../common/table.hpp"
#include "backend.hpp"
#include "drawing.hpp"
#include "pyramid_choice.hpp"
#include "teacher.hpp"

namespace montezuma {

struct play_command {
  std::string policy;
  backend_options backend;
  world_options where;
  bool random = false, keys = false;
  int room = 1, delay = 80;
  long steps = 0;
  std::uint64_t seed = 1;
};

namespace detail {

/// Waits for the next key. An arrow key returns the letter of its direction. Returns 0 if the time
/// is over and -1 if the input has ended.
inline int read_key(int milliseconds) {
  pollfd wait{STDIN_FILENO, POLLIN, 0};
  if (poll(&wait, 1, milliseconds) <= 0) return 0;
  char c = 0;
  if (read(STDIN_FILENO, &c, 1) != 1) return -1;
  if (c != 27) return c;
  char rest[2] = {};
  if (read(STDIN_FILENO, rest, 2) != 2) return -1;
  switch (rest[1]) {
    case 'A': return 'k';
    case 'B': return 'j';
    case 'C': return 'l';
    case 'D': return 'h';
    default: return 0;
  }
}

inline move move_of_key(int key) {
  switch (key) {
    case 'h':
    case 'a': return move::left;
    case 'l':
    case 'd': return move::right;
    case 'k':
    case 'w': return move::up;
    case 'j':
    case 's': return move::down;
    default: return move::wait;
  }
}

}  // namespace detail

inline int play(const play_command& command) {
  if (command.room >= room_count)
    throw std::runtime_error("the pyramid has no room " + std::to_string(command.room) +
                             ": its rooms are 0 to 7");
  policy network{nullptr};
  auto where = command.where;
  if (!command.policy.empty()) std::tie(network, where) = read_policy(command.policy);
  auto game = where(command.seed);
  game.reset(command.room);
  std::mt19937_64 dice(command.seed);
  std::uniform_real_distribution<double> quantile;
  double reward = 0;
  bool over = false, left = false;
  long steps = 0;
  {
    const text_screen shown(command.keys);
    const auto show = [&] {
      shown.show(draw(game, shown.terminal()),
                 "room " + std::to_string(game.room()) + "  return " + decimals(reward) +
                     "  step " + std::to_string(steps) +
                     (game.holds(item::red_key) ? "  red key" : "") +
                     (game.holds(item::blue_key) ? "  blue key" : "") +
                     (command.keys ? "   (arrows, hjkl or wasd; q ends)" : ""));
    };
    show();
    while (!over && !left && !interrupt::requested() &&
           (command.steps == 0 || steps < command.steps)) {
      int action = static_cast<int>(move::wait);
      if (command.keys) {
        const int key = detail::read_key(200);
        if (key == 0) continue;  // no key yet: do not step the world
        left = key < 0 || key == 'q';
        action = static_cast<int>(detail::move_of_key(key));
      } else if (command.random) {
        action = static_cast<int>(quantile(dice) * pyramid::actions);
      } else {
        auto seen = at::empty({1, numbers_of<pyramid>()});
        game.observe(seen.data_ptr<float>());
        const auto logits = logits_of(network, seen).contiguous();
        action = static_cast<int>(
            draw_action({logits.data_ptr<float>(), static_cast<std::size_t>(logits.size(1))},
                        quantile(dice))
                .action);
      }
      if (left) break;
      const auto result = game.step(action);
      reward += static_cast<double>(result.reward);
      over = result.ended;
      ++steps;
      show();
      if (!command.keys && command.delay > 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(command.delay));
    }
  }
  std::cout << "return " << decimals(reward) << " in " << steps << " steps, in room " << game.room()
            << "; end: "
            << (game.dead()                 ? "death"
                : game.took(item::treasure) ? "the treasure"
                : over                      ? "the limit of steps"
                                            : "stopped")
            << "\n";
  return 0;
}

inline void add_play(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<play_command>();
  auto* command =
      app.add_subcommand("play", "Shows a policy in the terminal, or you play yourself");
  command
      ->add_option("--policy", o->policy,
                   "The policy or teacher that plays, in the world it was trained in")
      ->check(CLI::ExistingFile);
  command->add_flag("--keys", o->keys, "Play yourself");
  command->add_flag("--random", o->random, "Random actions play");
  command->add_option("--room", o->room, "First room of the game")
      ->check(CLI::Range(0, 23))
      ->capture_default_str();
  command->add_option("--seed", o->seed, "Seed of the game")->capture_default_str();
  command->add_option("--delay", o->delay, "Milliseconds between frames; 0: no delay")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--steps", o->steps, "Stop after this many steps; 0: play to the end")
      ->check(non_negative_number)
      ->capture_default_str();
  declare_backend(command, o->backend);
  declare_world(command, o->where);
  command->footer(drawing_legend);
  command->callback([&chosen, o] {
    chosen = [o] {
      if (static_cast<int>(o->random) + static_cast<int>(o->keys) +
              static_cast<int>(!o->policy.empty()) !=
          1)
        throw std::runtime_error(
            "play: name the player with one of --policy FILE, --keys and --random");
      return o->backend.is_ale() ? on_ale(*o) : play(*o);
    };
  });
}

}  // namespace montezuma
