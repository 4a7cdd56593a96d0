// SPDX-License-Identifier: MIT
// Selects the game of a command: the pyramid, or the real game if the program was built with the
// Arcade Learning Environment.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "../common/option_checks.hpp"

namespace montezuma {

struct backend_options {
  std::string name = "pyramid", rom, states, python, observation = "ram";
  bool any_rom = false;
  int threads = 0;
  std::vector<int> practice, stay;
  double entry_share = 0.25;

  bool is_ale() const { return name == "ale"; }
};

inline void declare_cartridge(CLI::App* command, backend_options& o) {
  const std::string group = "The real game";
  command
      ->add_option("--rom", o.rom,
                   "Your copy of the cartridge; default: montezuma_revenge.bin in the folder in "
                   "ALE_ROMS_DIR, or the cartridge that ale-py brings")
      ->group(group);
  command
      ->add_option("--python", o.python,
                   "The Python, or its virtual environment, that has ale-py; default: VIRTUAL_ENV, "
                   "or python3 on PATH")
      ->group(group);
  command
      ->add_flag("--any-rom", o.any_rom,
                 "Also accept the cartridge of another game, to try the program; rooms and success "
                 "have no meaning there")
      ->group(group);
}

inline void declare_backend(CLI::App* command, backend_options& o) {
  const std::string group = "The real game";
  command->add_option("--backend", o.name, "pyramid, or ale for the real game")
      ->check(CLI::IsMember({"pyramid", "ale"}))
      ->capture_default_str();
  declare_cartridge(command, o);
  command
      ->add_option("--states", o.states,
                   "Saved starts of episodes for all rooms except room 1: the file of `montezuma "
                   "make-states`")
      ->group(group);
  command
      ->add_option(
          "--practice", o.practice,
          "Rooms, separated by commas, in whose archived places episodes of training begin "
          "too")
      ->delimiter(',')
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::Range(0, 23))
      ->group(group);
  command
      ->add_option("--entry-share", o.entry_share,
                   "With --practice: share of the episodes that begin as without it")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
  command
      ->add_option(
          "--stay-in", o.stay,
          "Rooms, separated by commas: an episode of training ends when the hero leaves them")
      ->delimiter(',')
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::Range(0, 23))
      ->group(group);
  command->add_option("--threads", o.threads, "Threads of the network and the games; 0: all cores")
      ->check(non_negative_number)
      ->capture_default_str()
      ->group(group);
}

inline void declare_observation(CLI::App* command, backend_options& o) {
  command
      ->add_option("--observation", o.observation,
                   "ram: the 128 bytes of memory, for a small network; pixels: pictures, for the "
                   "published one")
      ->check(CLI::IsMember({"ram", "pixels"}))
      ->capture_default_str()
      ->group("The real game");
}

struct pretrain_command;
struct finetune_command;
struct evaluate_command;
struct make_states_command;
struct play_command;

/// The same commands in the real game. Without the Arcade Learning Environment each command throws
/// an error that says what to install.
int on_ale(const pretrain_command& command);
int on_ale(const finetune_command& command);
int on_ale(const evaluate_command& command);
int on_ale(const make_states_command& command);
int on_ale(const play_command& command);

}  // namespace montezuma
