// SPDX-License-Identifier: MIT
// Files that are there whole or not at all, and JSON with errors that name the file.
#pragma once

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include <nlohmann/json.hpp>
#include <retain/files/new_file.hpp>

/// Written beside its place and renamed, so that a reader never sees half a file and an existing
/// file means that the step which makes it was finished. A link stays; a folder, a device or a pipe
/// is refused.
inline void write_file(const std::filesystem::path& path, const std::string& text) {
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
  retain::detail::new_file file(path.string());
  file.put(text);
  file.take_place();
}

inline void write_json(const std::filesystem::path& path, const nlohmann::json& value) {
  write_file(path, value.dump(1) + "\n");
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  try {
    return nlohmann::json::parse(file);
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(path.string() + " is not valid JSON: " + error.what());
  }
}
