// SPDX-License-Identifier: MIT
// A terminal of 24 rows and 80 columns for the escape sequences of TERM=ansi that the game sends.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

#include "observation.hpp"

namespace nethack {

class terminal {
 public:
  static constexpr std::uint8_t bright = 8, inverse = 16, default_color = 7;

  terminal() { reset(); }

  /// A blank screen, the cursor at the top left, no attributes, no partial escape sequence.
  void reset() {
    chars_.fill(' ');
    colors_.fill(0);
    touched_ = all_rows;
    row_ = column_ = 0;
    foreground_ = default_color;
    attributes_ = 0;
    update_pen();
    state_ = state::text;
    unknown_ = 0;
  }

  void feed(const std::uint8_t* bytes, std::size_t count) {
    const std::uint8_t* const end = bytes + count;
    while (bytes != end) {
      // Most bytes are short runs of text and complete cursor or color sequences. Fast paths handle
      // them. A sequence that is cut by the end of the input goes through the states byte by byte.
      if (state_ == state::text) {
        if (*bytes >= ' ') {
          bytes = write_run(bytes, end);
          continue;
        }
        if (*bytes == 27 && end - bytes >= 3 && bytes[1] == '[') {
          bytes += 2;
          begin_parameters();
        }
      }
      feed_byte(*bytes++);
    }
  }
  void feed(std::string_view text) {
    feed(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  }

  /// Takes a whole screen as it is, [rows * columns] each.
  void show(const std::uint8_t* chars, const std::uint8_t* colors, int cursor_row,
            int cursor_column) {
    for (int row = 0; row < rows; ++row) {
      const auto from = static_cast<std::size_t>(row * columns);
      if (std::memcmp(chars_at(row), chars + from, columns) == 0 &&
          std::memcmp(colors_at(row), colors + from, columns) == 0)
        continue;
      std::memcpy(chars_at(row), chars + from, columns);
      std::memcpy(colors_at(row), colors + from, columns);
      touch(row);
    }
    row_ = std::clamp(cursor_row, 0, rows - 1);
    column_ = std::clamp(cursor_column, 0, columns - 1);
  }

  int cursor_row() const { return row_; }
  int cursor_column() const { return std::min(column_, columns - 1); }
  const std::array<std::uint8_t, rows * columns>& chars() const { return chars_; }
  const std::array<std::uint8_t, rows * columns>& colors() const { return colors_; }
  const std::uint8_t* row_chars(int row) const { return chars_.data() + row * columns; }
  const std::uint8_t* row_colors(int row) const { return colors_.data() + row * columns; }
  std::string_view line(int row) const {
    return {reinterpret_cast<const char*>(row_chars(row)), static_cast<std::size_t>(columns)};
  }

  /// One bit for each row written to since the last call, even if the row looks the same.
  std::uint32_t take_touched_rows() { return std::exchange(touched_, 0u); }
  /// The number of control sequences that it does not support.
  long unknown_sequences() const { return unknown_; }

 private:
  static constexpr std::uint32_t all_rows = (1u << rows) - 1;
  enum class state : std::uint8_t { text, escape, character_set, parameters };

  std::uint8_t* chars_at(int row) { return chars_.data() + row * columns; }
  std::uint8_t* colors_at(int row) { return colors_.data() + row * columns; }
  void touch(int row) { touched_ |= 1u << row; }

  void update_pen() {
    pen_ = static_cast<std::uint8_t>(foreground_ | attributes_);
    // A blank has no color, unless it is drawn inverse.
    blank_pen_ = (attributes_ & inverse) ? pen_ : std::uint8_t{0};
  }

  const std::uint8_t* write_run(const std::uint8_t* bytes, const std::uint8_t* end) {
    if (column_ >= columns) {
      column_ = 0;
      row_ = std::min(row_ + 1, rows - 1);
    }
    touch(row_);
    std::uint8_t* c = chars_at(row_) + column_;
    std::uint8_t* k = colors_at(row_) + column_;
    const std::uint8_t* const stop =
        bytes + std::min<std::ptrdiff_t>(end - bytes, columns - column_);
    const std::uint8_t* next = bytes;
    for (; next != stop && *next >= ' '; ++next) {
      *c++ = *next;
      *k++ = *next == ' ' ? blank_pen_ : pen_;
    }
    column_ += static_cast<int>(next - bytes);
    return next;
  }

  void erase(int row, int from, int to) {
    const auto count = static_cast<std::size_t>(to - from);
    std::memset(chars_at(row) + from, ' ', count);
    std::memset(colors_at(row) + from, 0, count);
    touch(row);
  }

  void line_feed() {
    if (row_ < rows - 1) {
      ++row_;
      return;
    }
    std::memmove(chars_.data(), chars_.data() + columns, chars_.size() - columns);
    std::memmove(colors_.data(), colors_.data() + columns, colors_.size() - columns);
    touched_ = all_rows;
    erase(rows - 1, 0, columns);
  }

  void begin_parameters() {
    state_ = state::parameters;
    parameter_count_ = 0;
    parameters_[0] = 0;
  }

  void feed_byte(std::uint8_t byte) {
    switch (state_) {
      case state::text: control(byte); break;
      case state::escape:
        if (byte == '[')
          begin_parameters();
        else
          state_ = byte == '(' || byte == ')' ? state::character_set : state::text;
        break;
      case state::character_set: state_ = state::text; break;
      case state::parameters:
        if (byte >= '0' && byte <= '9') {
          int& parameter = parameters_[static_cast<std::size_t>(parameter_count_)];
          parameter = std::min(parameter * 10 + (byte - '0'), 9999);
        } else if (byte == ';') {
          if (parameter_count_ + 1 < static_cast<int>(parameters_.size())) ++parameter_count_;
          parameters_[static_cast<std::size_t>(parameter_count_)] = 0;
        } else if (byte >= 0x40) {
          state_ = state::text;
          control_sequence(byte);
        }  // anything else ("?", "!") only qualifies the sequence
        break;
    }
  }

  void control(std::uint8_t byte) {
    switch (byte) {
      case 27: state_ = state::escape; break;
      case '\r': column_ = 0; break;
      case '\n': line_feed(); break;
      case '\b': column_ = std::max(0, cursor_column() - 1); break;
      case '\t': column_ = std::min(columns - 1, (column_ | 7) + 1); break;
      default: break;
    }
  }

  void control_sequence(std::uint8_t final_byte) {
    const int first = parameters_[0], count = std::max(1, first);
    const int second = parameter_count_ > 0 ? std::max(1, parameters_[1]) : 1;
    switch (final_byte) {
      case 'H':
      case 'f':
        row_ = std::min(count, rows) - 1;
        column_ = std::min(second, columns) - 1;
        break;
      case 'A': row_ = std::max(0, row_ - count); break;
      case 'B': row_ = std::min(rows - 1, row_ + count); break;
      case 'C': column_ = std::min(columns - 1, column_ + count); break;
      case 'D': column_ = std::max(0, cursor_column() - count); break;
      case 'G': column_ = std::min(columns, count) - 1; break;
      case 'd': row_ = std::min(rows, count) - 1; break;
      case 'J': erase_display(first); break;
      case 'K': erase_line(first); break;
      case 'm': select_graphics(); break;
      default: ++unknown_; break;
    }
  }

  void erase_line(int mode) {
    const int from = mode == 0 ? cursor_column() : 0;
    const int to = mode == 1 ? cursor_column() + 1 : columns;
    erase(row_, from, to);
  }

  void erase_display(int mode) {
    if (mode == 0) erase_line(0);
    if (mode == 1) erase_line(1);
    const int from = mode == 0 ? row_ + 1 : 0;
    const int to = mode == 1 ? row_ : rows;
    for (int row = from; row < to; ++row) erase(row, 0, columns);
  }

  void select_graphics() {
    for (int i = 0; i <= parameter_count_; ++i) {
      const int value = parameters_[static_cast<std::size_t>(i)];
      if (value >= 30 && value <= 37)
        foreground_ = static_cast<std::uint8_t>(value - 30);
      else if (value >= 90 && value <= 97)
        foreground_ = static_cast<std::uint8_t>(value - 90) | bright;
      else
        switch (value) {
          case 0:
            foreground_ = default_color;
            attributes_ = 0;
            break;
          case 1: attributes_ |= bright; break;
          case 7: attributes_ |= inverse; break;
          case 22: attributes_ &= static_cast<std::uint8_t>(~bright); break;
          case 27: attributes_ &= static_cast<std::uint8_t>(~inverse); break;
          case 39: foreground_ = default_color; break;
          default: break;
        }
    }
    update_pen();
  }

  std::array<std::uint8_t, rows * columns> chars_{}, colors_{};
  std::uint32_t touched_ = 0;
  // column_ is 80 after the last column was written: the next byte wraps
  int row_ = 0, column_ = 0;
  std::uint8_t foreground_ = default_color, attributes_ = 0, pen_ = default_color, blank_pen_ = 0;
  state state_ = state::text;
  int parameter_count_ = 0;
  std::array<int, 8> parameters_{};
  long unknown_ = 0;
};

}  // namespace nethack
