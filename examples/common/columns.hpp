// SPDX-License-Identifier: MIT
// Reads back what a run logged.
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

/// A CSV file as columns by name, all of one length; the texts of empty cells become NaN. Throws
/// where two columns have one name.
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
                                   "': it is damaged");
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
