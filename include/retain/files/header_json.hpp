// SPDX-License-Identifier: MIT
// Reads and writes the part of JSON that the header of a state file uses. Does not need LibTorch.
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <set>
#include <string>
#include <string_view>

namespace retain::detail {

inline std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x",
                    static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += escaped;
    } else {
      out += c;
    }
  }
  return out += '"';
}

/// Reads the JSON that retain writes: objects of strings, and of {dtype, shape, data_offsets}.
class header_reader {
 public:
  header_reader(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  bool next_is(char c) {
    skip_space();
    return at_ < text_.size() && text_[at_] == c;
  }
  void expect(char c) {
    if (!next_is(c)) fail();
    ++at_;
  }
  void expect_end() {
    skip_space();
    if (at_ < text_.size()) fail("with extra text after its end");
  }
  /// Consumes `open`, then calls `item` for every element up to `close`.
  template <class Item>
  void each(char open, char close, Item item) {
    expect(open);
    if (!next_is(close)) {
      item();
      while (next_is(',')) {
        ++at_;
        item();
      }
    }
    expect(close);
  }
  /// Reads a key and its colon, and adds the key to `seen`. Fails if `seen` has the key already.
  std::string key(std::set<std::string>& seen) {
    std::string name = string();
    if (!seen.insert(name).second) fail("with a duplicate name");
    expect(':');
    return name;
  }
  std::string string() {
    expect('"');
    std::string out;
    while (at_ < text_.size() && text_[at_] != '"') {
      char c = text_[at_++];
      if (c == '\\') {
        if (at_ >= text_.size()) fail();
        c = text_[at_++];
        if (c == 'u') {
          unsigned code = 0;
          if (text_.size() - at_ < 4) fail();
          for (int digit = 0; digit < 4; ++digit) code = code * 16 + hex(text_[at_++]);
          if (code >= 0x80) fail();  // the writer escapes control characters only
          c = static_cast<char>(code);
        } else if (c != '"' && c != '\\' && c != '/') {
          fail();
        }
      }
      out += c;
    }
    expect('"');
    return out;
  }
  std::int64_t integer() {
    skip_space();
    std::int64_t value = 0;
    const std::size_t start = at_;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      if (value > (INT64_MAX - 9) / 10) fail();
      value = value * 10 + (text_[at_] - '0');
    }
    if (at_ == start) fail();
    return value;
  }
  [[noreturn]] void fail(const char* what = "that cannot be read") const {
    throw io_error(concat("'", path_, "' has a header ", what, " (byte ", at_ + 8,
                          "): it was not written by retain"));
  }

 private:
  void skip_space() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  unsigned hex(char c) const {
    if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
    if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
    fail();
  }

  std::string_view text_;
  const std::string& path_;
  std::size_t at_ = 0;
};

}  // namespace retain::detail
