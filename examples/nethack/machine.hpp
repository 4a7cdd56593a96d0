// SPDX-License-Identifier: MIT
// What an environment needs of a running game: Debian's program (game.hpp) or the library of the
// NetHack Learning Environment (nle_game.hpp).
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "actions.hpp"
#include "terminal.hpp"

namespace nethack {

/// The result of a key: the game waits for the next key, has ended by itself, or was lost (it
/// crashed, was killed from outside, or hung and was killed here).
enum class answer : std::uint8_t { waiting, ended, lost };

/// What the screen does not show, in the layout of the NetHack Learning Environment.
struct full_observation {
  std::array<short, 21 * 79> glyphs{};
  std::array<short, 55> inventory_glyphs{};
  std::array<unsigned char, 55 * 80> inventory_texts{};  ///< each ends with a 0
  std::array<unsigned char, 55> inventory_letters{}, inventory_classes{};
  std::array<long, 27> blstats{};
};

class machine {
 public:
  machine() = default;
  virtual ~machine() = default;
  machine(const machine&) = delete;
  machine& operator=(const machine&) = delete;

  /// Starts a new game, which is a function of the seed and the keys. `receive()` then waits for
  /// its first screen.
  virtual void start(std::uint64_t seed) = 0;
  /// Starts from a file that `save_to` wrote.
  virtual void start_from(const std::filesystem::path& saved, std::uint64_t seed) = 0;
  virtual void stop() = 0;
  virtual bool running() const = 0;
  /// Whether the last game ended by itself.
  virtual bool left() const = 0;
  /// The game's process, or -1 if the game has none of its own.
  virtual pid_t process() const { return -1; }

  /// Sends one key without waiting. If the game is gone, the next `receive()` reports it.
  virtual void send(key code) = 0;
  /// Waits until the game needs a key and updates the screen.
  virtual answer receive() = 0;

  /// Saves a game that waits for a command and ends it. Returns false if the game did not write a
  /// save.
  virtual bool save_to(const std::filesystem::path& file) = 0;
  /// The score that the game itself computed at its end; nullopt while it runs or if it was lost.
  virtual std::optional<long> final_score() const = 0;
  /// What the screen does not show; nullptr if the game shows its screen only.
  virtual const full_observation* full() const { return nullptr; }

  virtual long hangs() const { return 0; }
  virtual long crashes() const { return 0; }

  const terminal& screen() const { return screen_; }
  terminal& screen() { return screen_; }

 protected:
  terminal screen_;
};

}  // namespace nethack
