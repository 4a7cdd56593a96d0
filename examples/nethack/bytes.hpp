// SPDX-License-Identifier: MIT
// Reads and writes the bytes of this example's own files: little-endian numbers, and a checksum.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>

namespace nethack::detail {

inline constexpr std::array<std::uint32_t, 256> crc32_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit)
      value = (value & 1u) ? 0xedb88320u ^ (value >> 1) : value >> 1;
    table[i] = value;
  }
  return table;
}();

inline std::uint32_t crc32(std::string_view bytes) {
  std::uint32_t value = ~0u;
  for (const char byte : bytes)
    value = crc32_table[(value ^ static_cast<unsigned char>(byte)) & 0xffu] ^ (value >> 8);
  return ~value;
}

class byte_writer {
 public:
  std::string bytes;

  void put(std::uint8_t value) { bytes.push_back(static_cast<char>(value)); }
  void put_u16(std::uint16_t value) { put_fixed(value, 2); }
  void put_u32(std::uint32_t value) { put_fixed(value, 4); }
  void put_u64(std::uint64_t value) { put_fixed(value, 8); }
  void put_f64(double value) { put_u64(std::bit_cast<std::uint64_t>(value)); }
  void put_varint(std::uint64_t value) {
    for (; value >= 128; value >>= 7) put(static_cast<std::uint8_t>(value | 128));
    put(static_cast<std::uint8_t>(value));
  }
  /// Writes a small signed number in few bytes.
  void put_signed(std::int64_t value) {
    put_varint((static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63));
  }
  void put_text(std::string_view text) {
    put_varint(text.size());
    bytes.append(text);
  }

 private:
  void put_fixed(std::uint64_t value, int size) {
    for (int i = 0; i < size; ++i) put(static_cast<std::uint8_t>(value >> (8 * i)));
  }
};

/// Throws std::out_of_range at the end of the bytes, and for numbers that do not fit. The reader of
/// the file adds the position.
class byte_reader {
 public:
  byte_reader() = default;
  explicit byte_reader(std::string_view bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  std::size_t left() const { return rest_.size(); }
  std::uint8_t peek() const {
    if (rest_.empty()) throw std::out_of_range("ends early");
    return static_cast<std::uint8_t>(rest_.front());
  }
  std::uint8_t peek_second() const {
    return rest_.size() < 2 ? 0 : static_cast<std::uint8_t>(rest_[1]);
  }
  std::uint8_t get() {
    const std::uint8_t value = peek();
    rest_.remove_prefix(1);
    return value;
  }
  std::uint16_t get_u16() { return static_cast<std::uint16_t>(get_fixed(2)); }
  std::uint32_t get_u32() { return static_cast<std::uint32_t>(get_fixed(4)); }
  std::uint64_t get_u64() { return get_fixed(8); }
  double get_f64() { return std::bit_cast<double>(get_u64()); }
  std::uint64_t get_varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = get();
      if (shift == 63 && byte > 1) break;
      value |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw std::out_of_range("has a number that is too long");
  }
  std::int64_t get_signed() {
    const std::uint64_t value = get_varint();
    return static_cast<std::int64_t>((value >> 1) ^ (~(value & 1) + 1));
  }
  /// A number that must fit an int, or be between two numbers.
  int get_int(std::int64_t least = std::numeric_limits<int>::min(),
              std::int64_t most = std::numeric_limits<int>::max()) {
    return in_range(get_signed(), least, most);
  }
  static int in_range(std::int64_t value, std::int64_t least, std::int64_t most) {
    if (value < least || value > most)
      throw std::out_of_range("has a number that is out of its range");
    return static_cast<int>(value);
  }
  std::string_view get_text() { return get_bytes(get_varint()); }
  std::string_view get_bytes(std::uint64_t size) {
    if (size > rest_.size()) throw std::out_of_range("ends early");
    const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(taken.size());
    return taken;
  }

 private:
  std::uint64_t get_fixed(int size) {
    std::uint64_t value = 0;
    for (int i = 0; i < size; ++i) value |= static_cast<std::uint64_t>(get()) << (8 * i);
    return value;
  }
  std::string_view rest_;
};

}  // namespace nethack::detail
