// SPDX-License-Identifier: MIT
// Makes observations from an Atari screen: the brighter of two frames in each pixel, shrunk, and a
// stack of the last four.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace montezuma {

inline constexpr std::size_t screen_rows = 210, screen_columns = 160,
                             screen_pixels = screen_rows * screen_columns;
inline constexpr std::size_t frame_side = 84, frame_pixels = frame_side * frame_side,
                             frames_stacked = 4;

/// The brighter value of each pixel, because the console draws some objects only on every second
/// frame.
inline void brighter(std::vector<std::uint8_t>& frame, const std::vector<std::uint8_t>& other) {
  for (std::size_t i = 0; i < frame.size(); ++i) frame[i] = std::max(frame[i], other[i]);
}

namespace detail {

/// How much of each of `from` cells is in each of `to` equal parts of the same length. The unit is
/// such that each part has the sum `from`.
template <std::size_t from, std::size_t to>
struct overlaps {
  static constexpr std::size_t most = from / to + 2;
  std::array<std::size_t, to> first{}, count{};
  std::array<std::array<std::uint32_t, most>, to> weight{};

  constexpr overlaps() {
    for (std::size_t part = 0; part < to; ++part) {
      const std::size_t begin = part * from, end = begin + from;
      first[part] = begin / to;
      for (std::size_t cell = first[part]; cell * to < end; ++cell)
        weight[part][count[part]++] =
            static_cast<std::uint32_t>(std::min(end, (cell + 1) * to) - std::max(begin, cell * to));
    }
  }
};

}  // namespace detail

/// Shrinks a screen of 210 × 160 to 84 × 84 by area interpolation: a pixel is the mean of the area
/// under it, with halves rounded up. Uses integers, so every machine gives the same result.
inline void shrink(const std::uint8_t* screen, std::uint8_t* frame) {
  static constexpr detail::overlaps<screen_rows, frame_side> down;
  static constexpr detail::overlaps<screen_columns, frame_side> across;
  // the weights of a pixel together
  static constexpr std::uint32_t whole = screen_rows * screen_columns;
  std::array<std::uint32_t, screen_rows * frame_side> narrow{};
  for (std::size_t row = 0; row < screen_rows; ++row) {
    const std::uint8_t* line = screen + row * screen_columns;
    for (std::size_t x = 0; x < frame_side; ++x) {
      std::uint32_t sum = 0;
      for (std::size_t i = 0; i < across.count[x]; ++i)
        sum += across.weight[x][i] * line[across.first[x] + i];
      narrow[row * frame_side + x] = sum;
    }
  }
  for (std::size_t y = 0; y < frame_side; ++y)
    for (std::size_t x = 0; x < frame_side; ++x) {
      std::uint32_t sum = 0;
      for (std::size_t i = 0; i < down.count[y]; ++i)
        sum += down.weight[y][i] * narrow[(down.first[y] + i) * frame_side + x];
      frame[y * frame_side + x] = static_cast<std::uint8_t>((2 * sum + whole) / (2 * whole));
    }
}

/// The last four small frames, the newest last.
class frame_stack {
 public:
  /// Sets all four frames to this one, as at the start of an episode.
  void fill(const std::uint8_t* screen) {
    shrink(screen, newest());
    for (std::size_t i = 0; i + 1 < frames_stacked; ++i)
      std::memcpy(pixels_.data() + i * frame_pixels, newest(), frame_pixels);
  }
  void push(const std::uint8_t* screen) {
    std::memmove(pixels_.data(), pixels_.data() + frame_pixels,
                 (frames_stacked - 1) * frame_pixels);
    shrink(screen, newest());
  }
  const std::vector<std::uint8_t>& pixels() const { return pixels_; }
  std::uint8_t* data() { return pixels_.data(); }

 private:
  std::uint8_t* newest() { return pixels_.data() + (frames_stacked - 1) * frame_pixels; }

  std::vector<std::uint8_t> pixels_ = std::vector<std::uint8_t>(frames_stacked * frame_pixels);
};

}  // namespace montezuma
