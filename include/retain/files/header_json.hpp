// SPDX-License-Identifier: MIT
// Reads and writes the part of JSON that the header of a safetensors file uses. Does not need
// LibTorch.
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

/// Who wrote a header: retain, with only spaces and a few escapes, or any program, with all of
/// JSON's white space and escapes.
enum class header_writer { retain, anyone };

/// Reads objects of strings, and of {dtype, shape, data_offsets}.
class header_reader {
 public:
  header_reader(std::string_view text, const std::string& path,
                header_writer writer = header_writer::retain)
      : text_(text), path_(path), own_(writer == header_writer::retain) {}

  /// Returns whether the header must be one that retain wrote.
  bool own() const { return own_; }

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
      const char c = text_[at_++];
      if (c == '\\')
        out += escaped();
      else
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
    throw io_error(
        concat("'", path_, "' has a header ", what, " (byte ", at_ + 8, "): it ",
               own_ ? "was not written by retain" : "is damaged, or another kind of file"));
  }
  /// Throws io_error for a file whose header can be read, but whose bytes do not fit it.
  [[noreturn]] void refuse(const std::string& what) const {
    throw io_error(concat("'", path_, "' ", what,
                          own_ ? "; use an earlier copy of the file" : "; copy the file again"));
  }

 private:
  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' ||
            (!own_ && (text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))))
      ++at_;
  }
  char next() {
    if (at_ >= text_.size()) fail();
    return text_[at_++];
  }
  /// Reads the rest of an escape sequence. Returns its character as UTF-8.
  std::string escaped() {
    const char c = next();
    if (c == '"' || c == '\\' || c == '/') return {c};
    if (c == 'u') {
      unsigned code = four_digits();
      if (own_ && code >= 0x80) fail();  // the writer escapes control characters only
      if (code >= 0xd800 && code < 0xe000) {
        if (code >= 0xdc00 || next() != '\\' || next() != 'u') fail();
        const unsigned low = four_digits();
        if (low < 0xdc00 || low >= 0xe000) fail();
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      }
      return utf8(code);
    }
    constexpr std::string_view letters = "bfnrt", meant = "\b\f\n\r\t";
    const auto which = letters.find(c);
    if (own_ || which == std::string_view::npos) fail();
    return {meant[which]};
  }
  unsigned four_digits() {
    unsigned code = 0;
    for (int digit = 0; digit < 4; ++digit) code = code * 16 + hex(next());
    return code;
  }
  static std::string utf8(unsigned code) {
    const auto byte = [](unsigned value) { return static_cast<char>(value); };
    const auto later = [&](unsigned shift) { return byte(0x80 | ((code >> shift) & 0x3f)); };
    if (code < 0x80) return {byte(code)};
    if (code < 0x800) return {byte(0xc0 | (code >> 6)), later(0)};
    if (code < 0x10000) return {byte(0xe0 | (code >> 12)), later(6), later(0)};
    return {byte(0xf0 | (code >> 18)), later(12), later(6), later(0)};
  }
  unsigned hex(char c) const {
    if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
    if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
    if (!own_ && c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
    fail();
  }

  std::string_view text_;
  const std::string& path_;
  bool own_;
  std::size_t at_ = 0;
};

}  // namespace retain::detail
