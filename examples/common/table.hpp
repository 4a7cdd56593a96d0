// SPDX-License-Identifier: MIT
// A table as Markdown that is also readable in a terminal, and as CSV.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Formats `value` with `digits` decimals. Returns "–" if the value is not finite. A value that
/// rounds to 0 has no sign.
inline std::string decimals(double value, int digits = 0) {
  if (!std::isfinite(value)) return "–";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return std::string_view(text).find_first_not_of("-0.") == std::string_view::npos && *text == '-'
             ? text + 1
             : text;
}

/// Formats an interval for tables, for example "312 … 405".
inline std::string range_text(double low, double high, int digits = 0) {
  return std::isfinite(low) && std::isfinite(high)
             ? decimals(low, digits) + " … " + decimals(high, digits)
             : "–";
}

class text_table {
 public:
  explicit text_table(std::vector<std::string> header) : rows_{std::move(header)} {}

  void add(std::vector<std::string> row) {
    row.resize(rows_.front().size());
    rows_.push_back(std::move(row));
  }

  std::size_t size() const { return rows_.size() - 1; }

  /// The number of characters, not bytes, because cells may contain "±" and "…".
  static std::size_t width(const std::string& text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
      return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    }));
  }

  /// The table as Markdown. The first column is left-aligned. The other columns contain numbers
  /// and are right-aligned.
  std::string markdown() const {
    std::vector<std::size_t> widths(rows_.front().size(), 3);
    for (const auto& row : rows_)
      for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
    std::string text;
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      for (std::size_t i = 0; i < widths.size(); ++i) {
        const std::string gap(widths[i] - width(rows_[r][i]), ' ');
        text += i == 0 ? "| " + rows_[r][i] + gap + " |" : " " + gap + rows_[r][i] + " |";
      }
      text += '\n';
      if (r > 0) continue;
      for (std::size_t i = 0; i < widths.size(); ++i)
        text += (i == 0 ? "|:" : "") + std::string(widths[i] + 1, '-') + (i == 0 ? "|" : ":|");
      text += '\n';
    }
    return text;
  }

  std::string csv() const {
    std::string text;
    for (const auto& row : rows_)
      for (std::size_t i = 0; i < row.size(); ++i) {
        const bool quote = row[i].find_first_of(",\"\n") != std::string::npos;
        std::string cell;
        for (const char c : row[i]) cell += c == '"' ? std::string("\"\"") : std::string(1, c);
        text += (quote ? '"' + cell + '"' : cell) + (i + 1 < row.size() ? "," : "\n");
      }
    return text;
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};
