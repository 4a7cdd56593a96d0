// SPDX-License-Identifier: MIT
// The commands in the real game. Only this file uses the Arcade Learning Environment: its C++
// library if the program was built with it, and otherwise the Python package ale-py.
#include <ATen/Parallel.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>

#include "ale_world.hpp"
#include "command_evaluate.hpp"
#include "command_finetune.hpp"
#include "command_make_states.hpp"
#include "command_pretrain.hpp"
#include "play_ale.hpp"
#ifdef MONTEZUMA_WITH_ALE
#include "ale_console.hpp"
#else
#include "python_console.hpp"
#endif

namespace montezuma {
namespace {

#ifdef MONTEZUMA_WITH_ALE
using console = ale_console;

rom_file cartridge(const backend_options& options) {
  return find_rom(options.rom, options.any_rom);
}
#else
using console = python_console;

rom_file cartridge(const backend_options& options) {
  const char* folder = std::getenv("ALE_ROMS_DIR");
  const bool given = !options.rom.empty() || (folder != nullptr && *folder != '\0');
  const auto own = given ? find_rom(options.rom, options.any_rom) : rom_file{};
  python::start(options.python);
  const auto packaged = packaged_rom();  // throws where ale-py is missing
  return given ? own : find_rom(packaged, options.any_rom);
}
#endif

/// Checks the cartridge and the states first.
template <class Sight>
ale_world<console, Sight> real_world(const backend_options& options,
                                     const pyramid_options& game = {}) {
  const auto rom = cartridge(options);
  ale_world<console, Sight> where;
  where.machine = [rom](std::uint64_t seed) { return console(rom, seed); };
  where.machine(1);
  if (!options.states.empty())
    where.states = std::make_shared<const room_states>(room_states::read(options.states));
  where.game.sticky = game.sticky;
  if (game.step_cap > 0) where.game.step_cap = game.step_cap;
  where.game.practice_rooms = options.practice;
  where.game.entry_share = options.entry_share;
  where.game.stay_rooms = options.stay;
  if constexpr (std::is_same_v<Sight, sight_of_pixels>) {
    const auto cores = static_cast<int>(std::thread::hardware_concurrency());
    at::set_num_threads(options.threads > 0 ? options.threads : cores > 0 ? cores : 1);
  } else if (options.threads > 0) {
    at::set_num_threads(options.threads);
  }
  return where;
}

/// Whether the policy in a file sees pictures. Checks the cartridge first.
bool sees_pixels(const std::string& file, const backend_options& options) {
  console(cartridge(options), 1);
  const auto in = retain::state::read(file);
  return in.contains("policy.kind") && in.text("policy.kind") == pixel_shape::kind;
}

}  // namespace

int on_ale(const pretrain_command& command) {
  return command.backend.observation == "pixels"
             ? pretrain(command, real_world<sight_of_pixels>(command.backend, command.where.game))
             : pretrain(command, real_world<sight_of_memory>(command.backend, command.where.game));
}
int on_ale(const finetune_command& command) {
  return std::filesystem::exists(command.teacher) && sees_pixels(command.teacher, command.backend)
             ? finetune(command, real_world<sight_of_pixels>(command.backend))
             : finetune(command, real_world<sight_of_memory>(command.backend));
}
int on_ale(const evaluate_command& command) {
  return sees_pixels(command.policy, command.backend)
             ? evaluate(command, real_world<sight_of_pixels>(command.backend))
             : evaluate(command, real_world<sight_of_memory>(command.backend));
}
int on_ale(const play_command& command) {
  const auto play_with = [&]<class Sight>(const ale_world<console, Sight>& here) {
    typename agent_of<Sight>::policy_type network{nullptr};
    auto where = here;
    if (!command.policy.empty()) std::tie(network, where) = read_policy(command.policy, here);
    if (command.keys) where.game.sticky = 0;  // a person wants what the key says
    return play_real(command, where, network);
  };
  return !command.policy.empty() && sees_pixels(command.policy, command.backend)
             ? play_with(real_world<sight_of_pixels>(command.backend, command.where.game))
             : play_with(real_world<sight_of_memory>(command.backend, command.where.game));
}
int on_ale(const make_states_command& command) {
  return make_states(command, console(cartridge(command.backend), command.explore.seed));
}

}  // namespace montezuma
