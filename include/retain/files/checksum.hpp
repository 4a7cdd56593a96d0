// SPDX-License-Identifier: MIT
// CRC-64/XZ over a stream, eight bytes at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace retain::detail {

class crc64 {
 public:
  void update(const void* data, std::size_t size) {
    static const tables t = make_tables();
    const auto* p = static_cast<const unsigned char*>(data);
    std::uint64_t crc = crc_;
    for (; size >= 8; p += 8, size -= 8) {
      std::uint64_t word;
      std::memcpy(&word, p, 8);
      word ^= crc;  // little-endian: byte k of the message is combined with byte k of the register
      crc = 0;
      for (std::size_t k = 0; k < 8; ++k) crc ^= t[7 - k][(word >> (8 * k)) & 0xff];
    }
    for (; size > 0; ++p, --size) crc = t[0][(crc ^ *p) & 0xff] ^ (crc >> 8);
    crc_ = crc;
  }

  std::uint64_t value() const { return ~crc_; }

 private:
  using tables = std::array<std::array<std::uint64_t, 256>, 8>;

  static tables make_tables() {
    tables t{};
    for (std::uint64_t i = 0; i < 256; ++i) {
      std::uint64_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0xC96C5795D7870F42u : 0u);
      t[0][i] = crc;
    }
    for (std::size_t k = 1; k < 8; ++k)
      for (std::size_t i = 0; i < 256; ++i) t[k][i] = t[0][t[k - 1][i] & 0xff] ^ (t[k - 1][i] >> 8);
    return t;
  }

  std::uint64_t crc_ = ~std::uint64_t{0};
};

}  // namespace retain::detail
