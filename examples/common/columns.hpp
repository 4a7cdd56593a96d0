// SPDX-License-Identifier: MIT
// Reads the CSV log of a run.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

/// Reads a CSV file and returns its columns by name. All columns have the same length. Cells that
/// are empty or not numbers become NaN. Throws std::runtime_error if two columns have the same
/// name.
inline std::map<std::string, std::vector<double>> read_columns(const std::filesystem::path& path) {
  std::map<std::string, std::vector<double>> by_name;
  std::ifstream file(path);
  std::string line, cell;
  std::vector<std::string> names;
  while (std::getline(file, line)) {
    std::istringstream cells(line);
    if (names.empty()) {
      while (std::getline(cells, cell, ',')) {
        if (std::find(names.begin(), names.end(), cell) != names.end())
          throw std::runtime_error(path.string() + " has two columns '" + cell +
                                   "': the file is damaged");
        names.push_back(cell);
      }
      continue;
    }
    for (const auto& name : names) {
      if (!std::getline(cells, cell, ',')) cell.clear();
      char* end = nullptr;
      const double value = std::strtod(cell.c_str(), &end);
      by_name[name].push_back(end == cell.c_str() ? std::nan("") : value);
    }
  }
  return by_name;
}
