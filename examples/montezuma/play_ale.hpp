// SPDX-License-Identifier: MIT
// `montezuma play` in the real game.
#pragma once

#include <chrono>
#include <cstdint>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../common/interrupt.hpp"
#include "../common/screen.hpp"
#include "../common/table.hpp"
#include "ale_drawing.hpp"
#include "ale_world.hpp"
#include "command_play.hpp"
#include "policy.hpp"
#include "retention.hpp"

namespace montezuma {
namespace detail {

/// The joystick action of a key: a direction, or a jump.
inline int joystick_of_key(int key) {
  switch (key) {
    case ' ': return 1;
    case 'y': return 12;  // jump to the left
    case 'u': return 11;  // jump to the right
    default: break;
  }
  switch (move_of_key(key)) {
    case move::up: return 2;
    case move::right: return 3;
    case move::left: return 4;
    case move::down: return 5;
    case move::wait: break;
  }
  return no_action;
}

}  // namespace detail

/// `network` may be empty if keys or random actions play.
template <class World>
int play_real(const play_command& command, const World& where,
              typename World::policy_type network) {
  using game_type = typename World::game_type;
  auto game = where(command.seed);
  game.reset(command.room);
  std::mt19937_64 dice(command.seed);
  std::uniform_real_distribution<double> quantile;
  std::vector<std::uint8_t> colors;
  double reward = 0;
  bool over = false, left = false;
  long steps = 0;
  {
    const text_screen shown(command.keys);
    const auto show = [&] {
      game.machine().colors(colors);
      shown.show(
          draw_screen(colors, shown.terminal() ? terminal_size() : text_size{}, shown.terminal()),
          "room " + std::to_string(game.room()) + "  return " + decimals(reward) + "  step " +
              std::to_string(steps) + "  lives " + std::to_string(game.machine().lives()) +
              (command.keys ? "   (arrows, space y u jump, n waits; q ends)" : ""));
    };
    show();
    while (!over && !left && !interrupt::requested() &&
           (command.steps == 0 || steps < command.steps)) {
      int action = no_action;
      if (command.keys) {
        const int key = detail::read_key(200);
        if (key == 0) continue;  // no key yet: the game waits
        left = key < 0 || key == 'q';
        action = detail::joystick_of_key(key);
      } else if (command.random) {
        action = static_cast<int>(quantile(dice) * game_type::actions);
      } else {
        auto sizes = game_type::observation_shape();
        sizes.insert(sizes.begin(), 1);
        auto seen = at::empty(sizes, observation_type<game_type>);
        game.observe(seen.template data_ptr<typename game_type::value_type>());
        const auto logits = logits_of(network, seen).contiguous();
        action = static_cast<int>(draw_action({logits.template data_ptr<float>(),
                                               static_cast<std::size_t>(logits.size(1))},
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
            << (!over                        ? "stopped"
                : game.machine().game_over() ? "no life left"
                                             : "the limit of steps")
            << "\n";
  return 0;
}

}  // namespace montezuma
