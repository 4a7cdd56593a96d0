// SPDX-License-Identifier: MIT
// What an agent sees of the real game: pictures, or the console's memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "ale_machine.hpp"
#include "frames.hpp"

namespace montezuma {

/// The last four pictures, small and gray.
class sight_of_pixels {
 public:
  using value_type = std::uint8_t;
  static constexpr const char* kind = "ale";
  static std::vector<std::int64_t> observation_shape() {
    return {frames_stacked, frame_side, frame_side};
  }
  static std::int64_t newest_channels() { return 1; }

  template <ale_machine Machine>
  void begin(const Machine& machine) {
    machine.screen(shown_);
    stack_.fill(shown_.data());
  }
  /// The frame before the last one of a step.
  template <ale_machine Machine>
  void look_before(const Machine& machine) {
    machine.screen(before_);
  }
  template <ale_machine Machine>
  void look(const Machine& machine) {
    machine.screen(shown_);
    brighter(shown_, before_);
    stack_.push(shown_.data());
  }
  void observe(const console_ram&, std::uint8_t* values) const {
    std::memcpy(values, stack_.pixels().data(), stack_.pixels().size());
  }

  /// The part of a saved game.
  const std::uint8_t* data() const { return stack_.pixels().data(); }
  std::uint8_t* data() { return stack_.data(); }
  std::size_t size() const { return stack_.pixels().size(); }

 private:
  frame_stack stack_;
  std::vector<std::uint8_t> shown_ = std::vector<std::uint8_t>(screen_pixels), before_ = shown_;
};

/// The 128 bytes of memory as 1108 numbers, each 0 or 1: the bits of every byte, the lowest first,
/// then the room (24), the column in steps of 8 (20) and the height in steps of 3 (40). Bits alone
/// make a policy learn a position from eight of them.
class sight_of_memory {
 public:
  using value_type = float;
  static constexpr const char* kind = "ale ram";
  static constexpr std::size_t bits = 1024, columns = 20, heights = 40,
                               numbers = bits + game_rooms + columns + heights;
  static std::vector<std::int64_t> observation_shape() { return {numbers}; }
  static std::int64_t newest_channels() { return numbers; }

  template <ale_machine Machine>
  void begin(const Machine&) {}
  template <ale_machine Machine>
  void look_before(const Machine&) {}
  template <ale_machine Machine>
  void look(const Machine&) {}

  void observe(const console_ram& ram, float* values) const {
    for (const auto byte : ram)
      for (int bit = 0; bit < 8; ++bit) *values++ = static_cast<float>(byte >> bit & 1);
    std::fill_n(values, numbers - bits, 0.0f);
    const ram_view view{ram};
    if (view.room() < game_rooms) values[view.room()] = 1;
    values += game_rooms;
    values[std::min<std::size_t>(static_cast<std::size_t>(view.x()) / 8, columns - 1)] = 1;
    values += columns;
    values[std::min<std::size_t>(static_cast<std::size_t>(255 - view.y()) / 3, heights - 1)] = 1;
  }

  const std::uint8_t* data() const { return nullptr; }
  std::uint8_t* data() { return nullptr; }
  std::size_t size() const { return 0; }
};

}  // namespace montezuma
