// SPDX-License-Identifier: MIT
// Which game a command plays: the pyramid, or the real one where the program was built with the
// Arcade Learning Environment.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "../common/option_checks.hpp"

namespace montezuma {

struct backend_options {
  std::string name = "pyramid", rom, states;
  bool any_rom = false;
  int threads = 0;

  bool is_ale() const { return name == "ale"; }
};

inline void declare_cartridge(CLI::App* command, backend_options& o) {
  const std::string group = "The real game";
  command
      ->add_option("--rom", o.rom,
                   "Your copy of the cartridge; montezuma_revenge.bin in the folder that "
                   "ALE_ROMS_DIR names when not given")
      ->group(group);
  command
      ->add_flag("--any-rom", o.any_rom,
                 "Take another game's cartridge too, to try the program: rooms and success mean "
                 "nothing there")
      ->group(group);
}

inline void declare_backend(CLI::App* command, backend_options& o) {
  const std::string group = "The real game";
  command->add_option("--backend", o.name, "pyramid, or ale: the real game")
      ->check(CLI::IsMember({"pyramid", "ale"}))
      ->capture_default_str();
  declare_cartridge(command, o);
  command
      ->add_option(
          "--states", o.states,
          "Where episodes begin that do not begin in room 1: the file of `montezuma make-states`")
      ->group(group);
  command->add_option("--threads", o.threads, "Of network and games; 0: one a core")
      ->check(non_negative_number)
      ->capture_default_str()
      ->group(group);
}

struct pretrain_command;
struct finetune_command;
struct evaluate_command;
struct make_states_command;

/// The same commands in the real game. Without the Arcade Learning Environment each throws, with a
/// line that says what to install.
int on_ale(const pretrain_command& command);
int on_ale(const finetune_command& command);
int on_ale(const evaluate_command& command);
int on_ale(const make_states_command& command);

}  // namespace montezuma
