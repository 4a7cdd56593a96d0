// SPDX-License-Identifier: MIT
// The Arcade Learning Environment as a console. Compiled only if CMake finds ALE.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <ale/ale_interface.hpp>

#include "ale_machine.hpp"
#include "frames.hpp"
#include "rom.hpp"

namespace montezuma {

/// One ale::ALEInterface, frame by frame. Its sticky actions are off, because a saved state does
/// not include the last action. Its frame limit is off, because a saved state includes the counter.
class ale_console {
 public:
  explicit ale_console(const rom_file& rom, std::uint64_t seed = 1) : identity_(rom.md5) {
    ale::Logger::setMode(ale::Logger::Error);
    // ALE ends the process if it loads a game that it does not know.
    if (!ale::ALEInterface::isSupportedROM(rom.path))
      throw std::runtime_error("the Arcade Learning Environment does not support the game in " +
                               rom.path.string() + " (md5 " + rom.md5 + ")");
    game_ = std::make_unique<ale::ALEInterface>();
    game_->setInt("random_seed", static_cast<int>(seed % 1'000'000'007u));
    game_->setFloat("repeat_action_probability", 0);
    game_->setInt("frame_skip", 1);
    game_->setInt("max_num_frames_per_episode", 0);
    game_->loadROM(rom.path);
    std::vector<std::uint8_t> pixels;
    screen(pixels);
    if (pixels.size() != screen_pixels)
      throw std::runtime_error("the game in " + rom.path.string() + " has a screen of " +
                               std::to_string(pixels.size()) + " pixels, not 210 x 160");
  }

  int act(int action) { return static_cast<int>(game_->act(static_cast<ale::Action>(action))); }
  void reset_game() { game_->reset_game(); }
  bool game_over() const { return game_->game_over(); }
  int lives() const { return game_->lives(); }
  void screen(std::vector<std::uint8_t>& pixels) const { game_->getScreenGrayscale(pixels); }
  /// 210 × 160 × 3 numbers: red, green and blue.
  void colors(std::vector<std::uint8_t>& pixels) const { game_->getScreenRGB(pixels); }
  console_ram ram() const {
    console_ram bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = game_->getRAM().get(static_cast<unsigned>(i));
    return bytes;
  }
  /// Includes ALE's random state, which fills the console's memory at power-on.
  std::string save() const { return game_->cloneState(true).serialize(); }
  void restore(std::string_view saved) { game_->restoreState(ale::ALEState(std::string(saved))); }
  std::string identity() const { return identity_; }

 private:
  std::unique_ptr<ale::ALEInterface> game_;
  std::string identity_;
};
static_assert(ale_machine<ale_console>);

}  // namespace montezuma
