// SPDX-License-Identifier: MIT
// The commands in the real game. Only this file uses the Arcade Learning Environment.
#include <ATen/Parallel.h>

#include <memory>
#include <thread>

#include "ale_console.hpp"
#include "ale_world.hpp"
#include "command_evaluate.hpp"
#include "command_finetune.hpp"
#include "command_make_states.hpp"
#include "command_pretrain.hpp"

namespace montezuma {
namespace {

/// Checks the cartridge and the states first.
ale_world<ale_console> real_world(const backend_options& options,
                                  const pyramid_options& game = {}) {
  const auto rom = find_rom(options.rom, options.any_rom);
  ale_world<ale_console> where;
  where.machine = [rom](std::uint64_t seed) { return ale_console(rom, seed); };
  where.machine(1);
  if (!options.states.empty())
    where.states = std::make_shared<const room_states>(room_states::read(options.states));
  where.game.sticky = game.sticky;
  if (game.step_cap > 0) where.game.step_cap = game.step_cap;
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  at::set_num_threads(options.threads > 0 ? options.threads : cores > 0 ? cores : 1);
  return where;
}

}  // namespace

int on_ale(const pretrain_command& command) {
  return pretrain(command, real_world(command.backend, command.where.game));
}
int on_ale(const finetune_command& command) {
  return finetune(command, real_world(command.backend));
}
int on_ale(const evaluate_command& command) {
  return evaluate(command, real_world(command.backend));
}
int on_ale(const make_states_command& command) {
  return make_states(command, ale_console(find_rom(command.backend.rom, command.backend.any_rom),
                                          command.explore.seed));
}

}  // namespace montezuma
