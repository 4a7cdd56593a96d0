// SPDX-License-Identifier: MIT
// Writes files atomically, and reads JSON with errors that name the file.
#pragma once

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include <nlohmann/json.hpp>
#include <retain/files/new_file.hpp>

/// Writes `text` to a temporary file in the same folder and renames it to `path`. So a reader
/// never sees a partial file, and an existing file proves that the step which creates it has
/// finished. If `path` is a link, the link is kept. Throws retain::io_error if `path` is a folder,
/// a device or a pipe.
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
