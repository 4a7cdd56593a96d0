// SPDX-License-Identifier: MIT
// Files that are there whole or not at all, and JSON with errors that name the file.
#pragma once

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include <nlohmann/json.hpp>

/// Written beside its place and renamed, so that a reader never sees half a file and an existing file means
/// that the step which makes it was finished.
inline void write_file(const std::filesystem::path& path, const std::string& text) {
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
  auto partial = path;
  partial += ".part";
  {
    std::ofstream file(partial, std::ios::binary | std::ios::trunc);
    file << text;
    file.flush();
    if (!file) throw std::runtime_error("cannot write " + path.string() + ": is the folder writable and the disk not full?");
  }
  std::filesystem::rename(partial, path);
}

inline void write_json(const std::filesystem::path& path, const nlohmann::json& value) { write_file(path, value.dump(1) + "\n"); }

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  try {
    return nlohmann::json::parse(file);
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(path.string() + " is not valid JSON: " + error.what());
  }
}
