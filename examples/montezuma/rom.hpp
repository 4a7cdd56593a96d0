// SPDX-License-Identifier: MIT
// Finds the user's cartridge and checks that it is the right one.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include "md5.hpp"

namespace montezuma {

inline constexpr const char* montezuma_md5 = "3347a6dd59049b15a38394aa2dafa585";
inline constexpr const char* rom_name = "montezuma_revenge.bin";

struct rom_file {
  std::filesystem::path path;
  std::string md5;
};

/// Returns `given`, or else montezuma_revenge.bin in the folder of the environment variable
/// ALE_ROMS_DIR. Throws if there is no file, and says where it looked and where to put the file.
/// Throws for another file than Montezuma's Revenge unless `any` is set.
inline rom_file find_rom(const std::string& given, bool any) {
  const std::string advice =
      std::string("give your own copy of the cartridge with --rom FILE, or put it as ") + rom_name +
      " into a folder and set ALE_ROMS_DIR to that folder; its md5 must be " + montezuma_md5;
  rom_file found;
  if (!given.empty()) {
    found.path = given;
  } else if (const char* folder = std::getenv("ALE_ROMS_DIR");
             folder != nullptr && *folder != '\0') {
    found.path = std::filesystem::path(folder) / rom_name;
  } else {
    throw std::runtime_error(
        "no ROM of Montezuma's Revenge: neither --rom nor ALE_ROMS_DIR is set; " + advice);
  }
  if (!std::filesystem::is_regular_file(found.path))
    throw std::runtime_error("no ROM in " + found.path.string() + ": " + advice);
  std::ifstream file(found.path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw std::runtime_error("cannot read the ROM in " + found.path.string());
  found.md5 = md5(bytes);
  if (found.md5 != montezuma_md5 && !any)
    throw std::runtime_error(
        found.path.string() + " is not the ROM of Montezuma's Revenge: its md5 is " + found.md5 +
        " (" + std::to_string(bytes.size()) + " bytes), expected " + montezuma_md5 + "; " + advice +
        ". To try another game, without rooms, use --any-rom");
  return found;
}

}  // namespace montezuma
