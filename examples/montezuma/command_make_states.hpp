// SPDX-License-Identifier: MIT
// `montezuma make-states`: finds starting states for the rooms of the real game, by random play
// from archived states.
#pragma once

#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "../common/interrupt.hpp"
#include "../common/option_checks.hpp"
#include "../common/progress.hpp"
#include "backend.hpp"
#include "explore.hpp"

namespace montezuma {

struct make_states_command {
  std::string out = "runs/rooms.states";
  backend_options backend;
  std::vector<int> rooms{7};
  double minutes = 10;
  bool overwrite = false;
  explore_options explore;
};

/// Explores until every wanted room has its states or the time is over, and writes all states, of
/// other rooms too. Ctrl-C ends it early.
template <ale_machine Machine>
int make_states(const make_states_command& command, Machine machine) {
  explorer<Machine> search(std::move(machine), command.explore);
  const auto wanted = [&] {
    std::string text;
    for (const int room : command.rooms)
      text += (text.empty() ? "" : ", ") + std::string("room ") + std::to_string(room) + ": " +
              std::to_string(search.count(room)) + " of " +
              std::to_string(command.explore.per_room);
    return text;
  };
  const auto note = [&] {
    return std::to_string(search.rooms_seen().size()) + " rooms, " +
           std::to_string(search.cells()) + " places; " + wanted();
  };
  progress shown("make-states", 0, "frames");
  while (!search.has(command.rooms) && !interrupt::requested() &&
         shown.seconds() < command.minutes * 60) {
    search.walk();
    shown.update(static_cast<double>(search.frames()), note());
  }
  if (!search.found().rooms.empty())
    search.keep_places([&] {
      shown.update(static_cast<double>(search.frames()), note());
      return !interrupt::requested();
    });
  shown.finish(static_cast<double>(search.frames()), note());
  if (search.found().rooms.empty())
    throw std::runtime_error("found no room except the first in " + clock_text(shown.seconds()) +
                             ": give more --minutes, or another --seed");
  if (const auto folder = std::filesystem::path(command.out).parent_path(); !folder.empty())
    std::filesystem::create_directories(folder);
  search.found().write(command.out);
  std::size_t places = 0;
  for (const auto& [room, some] : search.found().places) places += some.size();
  std::cout << "states of rooms " << search.found().text() << ", and " << places << " places, in "
            << command.out << "\n";
  if (interrupt::requested()) {
    std::fprintf(stderr, "stopped; the states found so far are saved\n");
    return interrupt::exit_code;
  }
  if (search.has(command.rooms)) return 0;
  std::fprintf(stderr,
               "the time limit was reached before all states were found (%s): give more --minutes, "
               "or another --seed\n",
               wanted().c_str());
  return 1;
}

inline void add_make_states(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<make_states_command>();
  auto* command = app.add_subcommand(
      "make-states", "Explores the real game and saves starting states for episodes, room by room");
  declare_cartridge(command, o->backend);
  command->add_option("--out", o->out, "File for the states")->capture_default_str();
  command
      ->add_option("--rooms", o->rooms,
                   "Rooms to search, separated by commas; states of other rooms are saved too")
      ->delimiter(',')
      ->check(CLI::Range(0, game_rooms - 1))
      ->capture_default_str();
  command->add_option("--per-room", o->explore.per_room, "States saved per room")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--minutes", o->minutes, "Time limit in minutes; saves what was found")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--seed", o->explore.seed, "Seed of the walks")->capture_default_str();
  command->add_flag("--overwrite", o->overwrite, "Replace the file in --out");
  command->callback([&chosen, o] {
    chosen = [o] {
      if (!o->overwrite && std::filesystem::exists(o->out))
        throw std::runtime_error(o->out + " exists already: --overwrite replaces it");
      return on_ale(*o);
    };
  });
}

}  // namespace montezuma
