// SPDX-License-Identifier: MIT
// What is asked of a console that plays the real game, and where the game keeps what an experiment
// wants to know.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace montezuma {

using console_ram = std::array<std::uint8_t, 128>;

/// A console with the game in it, frame by frame and without dice of its own: sticky actions are
/// the adapter's. The Arcade Learning Environment is one; tests have another.
///
///     act(action)        one frame with the joystick held so (0 ... 17, 0: not at all); what it paid. Nothing happens when the game is over
///     reset_game()       a new game, screen and memory up to date
///     game_over()        all lives are lost
///     lives()            those left; right after restore() too
///     screen(pixels)     210 × 160 grey values. After restore() those of before, until a frame has been played
///     ram()              the 128 bytes of memory. The same holds for them
///     save()             the state as bytes
///     restore(saved)     goes on from there; throws for what is no state
///     identity()         which game it is: a state of one is none of another
template <class M>
concept ale_machine =
    std::movable<M> && requires(M& machine, const M& seen, int action,
                                std::vector<std::uint8_t>& pixels, std::string_view saved) {
      { machine.act(action) } -> std::same_as<int>;
      machine.reset_game();
      { seen.game_over() } -> std::same_as<bool>;
      { seen.lives() } -> std::same_as<int>;
      seen.screen(pixels);
      { seen.ram() } -> std::same_as<console_ram>;
      { seen.save() } -> std::same_as<std::string>;
      machine.restore(saved);
      { seen.identity() } -> std::same_as<std::string>;
    };

inline constexpr int joystick_actions = 18, no_action = 0;
inline constexpr int game_rooms = 24;

/// What Montezuma's Revenge keeps where.
struct ram_view {
  const console_ram& bytes;

  int room() const { return bytes[3]; }
  int x() const { return bytes[42]; }
  int y() const { return bytes[43]; }
  int items() const { return bytes[65]; }  ///< bits: 2 a key, 32 the sword

  /// Situations that count as one place: room, position on a grid of 16, what is held.
  std::uint64_t cell() const {
    return static_cast<std::uint64_t>(room()) << 24 | static_cast<std::uint64_t>(x() / 16) << 16 |
           static_cast<std::uint64_t>(y() / 16) << 8 | static_cast<std::uint64_t>(items());
  }
};

/// Whether the hero lives on from a saved state when nothing is done for 100 frames: who is falling
/// when a state is saved is not to be saved. Leaves the machine somewhere else.
template <ale_machine M>
bool survives(M& machine, std::string_view saved, int frames = 100) {
  machine.restore(saved);
  const int lives = machine.lives();
  for (int i = 0; i < frames; ++i) {
    machine.act(no_action);
    if (machine.game_over() || machine.lives() < lives) return false;
  }
  return true;
}

}  // namespace montezuma
