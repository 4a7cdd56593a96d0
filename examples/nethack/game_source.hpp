// SPDX-License-Identifier: MIT
// Which NetHack plays, and where it is.
#pragma once

#include <cstdint>
#include <string>

namespace nethack {

/// Debian's program, or the library of an installed NetHack Learning Environment.
enum class backend : std::uint8_t { debian, nle };

inline const char* name(backend chosen) { return chosen == backend::nle ? "nle" : "debian"; }

struct game_source {
  nethack::backend backend = nethack::backend::debian;
  std::string nle;  ///< where the Learning Environment is, see find_nle
};

}  // namespace nethack
