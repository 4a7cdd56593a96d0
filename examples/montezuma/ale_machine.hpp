// SPDX-License-Identifier: MIT
// The interface of a console that plays the real game, and the memory addresses of the values that
// an experiment needs.
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

/// A console with the game, frame by frame and without randomness of its own; the adapter makes the
/// sticky actions. The Arcade Learning Environment is one such machine, and the tests have another.
///
///     act(action)        plays one frame with a joystick action (0 ... 17, 0: none) and returns
///                        the reward; does nothing if the game is over
///     reset_game()       starts a new game; screen and memory are up to date
///     game_over()        whether all lives are lost
///     lives()            the remaining lives; also valid right after restore()
///     screen(pixels)     210 × 160 gray values;
///                        out of date after restore() until a frame is played
///     ram()              the 128 bytes of memory; out of date in the same way
///     save()             the state as bytes
///     restore(saved)     continues from a state; throws if the bytes are not a state
///     identity()         identifies the game; a state of one game is not valid in another
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

/// Memory addresses of Montezuma's Revenge.
struct ram_view {
  const console_ram& bytes;

  int room() const { return bytes[3]; }
  int x() const { return bytes[42]; }
  int y() const { return bytes[43]; }
  int items() const { return bytes[65]; }  ///< bits: 2 a key, 32 the sword

  /// Situations that count as one place: room, position on a grid of 16, and items.
  std::uint64_t cell() const {
    return static_cast<std::uint64_t>(room()) << 24 | static_cast<std::uint64_t>(x() / 16) << 16 |
           static_cast<std::uint64_t>(y() / 16) << 8 | static_cast<std::uint64_t>(items());
  }
};

/// Returns whether the hero survives 100 frames without any action after a saved state. A state in
/// which the hero is falling should not be saved. The machine does not return to the saved state.
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
