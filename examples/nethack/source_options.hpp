// SPDX-License-Identifier: MIT
// The options of the command line that choose the game.
#pragma once

#include <map>
#include <string>

#include <CLI/CLI.hpp>

#include "game_source.hpp"

namespace nethack {

inline void add_source_options(CLI::App* command, game_source& source) {
  command
      ->add_option("--backend", source.backend,
                   "debian: the program of the package nethack-console; nle: the library of an "
                   "installed NetHack Learning Environment, which has no saved games")
      ->transform([](std::string value) -> std::string {
        if (value == "debian") return "0";
        if (value == "nle") return "1";
        throw CLI::ValidationError("'" + value + "' is neither debian nor nle");
      })
      ->option_text("{debian,nle} [debian]");
  command->add_option("--nle", source.nle,
                      "Folder of the Python package nle, or of the virtual environment that has "
                      "it; default: $VIRTUAL_ENV, or the python3 on PATH");
}

}  // namespace nethack
