// SPDX-License-Identifier: MIT
// Temporary folders, and removal of folders with all their contents.
#pragma once

#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>

/// Removes a folder and everything in it. Links are removed but not followed. Files that cannot be
/// removed are kept. A missing folder is not an error. It does not use std::filesystem::remove_all:
/// the LibTorch of the Python package exports this function from another libstdc++, and the call
/// crashes.
inline void remove_folder(const std::filesystem::path& folder) {
  const auto remove = [](const char* path, const struct stat*, int, FTW*) {
    std::remove(path);
    return 0;
  };
  nftw(folder.c_str(), remove, 8, FTW_DEPTH | FTW_PHYS);
}

/// A new folder in $TMPDIR or /tmp. The destructor removes it.
class temporary_folder {
 public:
  temporary_folder() {
    auto name = (std::filesystem::temp_directory_path() / "retain-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr)
      throw std::runtime_error("cannot create the folder " + name + ": " + std::strerror(errno));
    path_ = name;
  }
  ~temporary_folder() { remove_folder(path_); }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};
