// SPDX-License-Identifier: MIT
// Reads a recording as states for training or measuring a network.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "demonstrations.hpp"
#include "training_states.hpp"

namespace nethack {

/// Reads a file of `nethack record` from its start. Reads at most `most` states; 0 for all.
inline training_states load_states(const std::filesystem::path& file,
                                   const feature_options& options, std::int64_t most = 0) {
  demonstration_reader reader(file);
  // Reserves memory for the expected number of steps: a step takes about a hundred bytes in the
  // file.
  const auto expected = static_cast<std::size_t>(std::filesystem::file_size(file)) / 60;
  state_collector states(options,
                         most > 0 ? std::min(expected, static_cast<std::size_t>(most)) : expected);
  while (const auto* step = reader.next()) {
    if (most > 0 && static_cast<std::int64_t>(states.size()) >= most) break;
    if (step->first) states.begin_game();
    states.add(step->seen, step->wanted, step->sent);
  }
  if (states.size() == 0)
    throw std::runtime_error(file.string() + " has no states: record more steps");
  return states.take();
}

}  // namespace nethack
