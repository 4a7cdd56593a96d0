// SPDX-License-Identifier: MIT
// The MD5 sum (RFC 1321), which identifies cartridges. It is not secure.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace montezuma {

namespace detail {

inline void md5_block(std::array<std::uint32_t, 4>& sum, const unsigned char* block) {
  static constexpr int turns[4][4] = {
      {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
  static const auto sines = [] {
    std::array<std::uint32_t, 64> table{};
    for (std::size_t i = 0; i < 64; ++i)
      table[i] = static_cast<std::uint32_t>(
          std::floor(std::abs(std::sin(static_cast<double>(i + 1))) * 0x1p32));
    return table;
  }();
  std::array<std::uint32_t, 16> words{};
  for (std::size_t i = 0; i < 64; ++i)
    words[i / 4] |= static_cast<std::uint32_t>(block[i]) << (8 * (i % 4));
  auto [a, b, c, d] = sum;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::size_t round = i / 16;
    const std::uint32_t mixed = round == 0   ? ((b & c) | (~b & d))
                                : round == 1 ? ((d & b) | (~d & c))
                                : round == 2 ? (b ^ c ^ d)
                                             : (c ^ (b | ~d));
    const std::size_t word = round == 0   ? i
                             : round == 1 ? (5 * i + 1) % 16
                             : round == 2 ? (3 * i + 5) % 16
                                          : 7 * i % 16;
    const std::uint32_t next =
        b + std::rotl(a + mixed + sines[i] + words[word], turns[round][i % 4]);
    a = d, d = c, c = b, b = next;
  }
  sum[0] += a, sum[1] += b, sum[2] += c, sum[3] += d;
}

}  // namespace detail

/// 32 hexadecimal digits.
inline std::string md5(std::string_view bytes) {
  std::string padded(bytes);
  padded += '\x80';
  while (padded.size() % 64 != 56) padded += '\0';
  for (std::uint64_t bits = bytes.size() * 8, i = 0; i < 8; ++i)
    padded += static_cast<char>(bits >> (8 * i) & 0xff);
  std::array<std::uint32_t, 4> sum{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  for (std::size_t at = 0; at < padded.size(); at += 64)
    detail::md5_block(sum, reinterpret_cast<const unsigned char*>(padded.data()) + at);
  std::string text;
  for (const auto word : sum)
    for (int byte = 0; byte < 4; ++byte)
      for (const int half : {4, 0}) text += "0123456789abcdef"[word >> (8 * byte + half) & 15];
  return text;
}

}  // namespace montezuma
