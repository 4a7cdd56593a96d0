// SPDX-License-Identifier: MIT
// Writes curves as TensorBoard's event files: TFRecord frames with masked CRC-32C around protocol
// buffers of three fields. So no protobuf library is needed.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "results.hpp"

namespace compare {

/// CRC-32C (Castagnoli), reflected, as in RFC 3720.
inline std::uint32_t crc32c(std::string_view bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> all{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0u);
      all[i] = value;
    }
    return all;
  }();
  std::uint32_t value = ~0u;
  for (const char c : bytes)
    value = value >> 8 ^ table[(value ^ static_cast<unsigned char>(c)) & 0xFF];
  return ~value;
}

namespace detail {

template <class Number>
std::string little_endian(Number value) {
  std::string bytes;
  for (std::size_t i = 0; i < sizeof value; ++i)
    bytes += static_cast<char>(static_cast<std::uint64_t>(value) >> 8 * i & 0xFF);
  return bytes;
}

inline std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

/// A field of a protocol buffer: its number and its wire type, then its value.
inline std::string field(unsigned number, unsigned wire, const std::string& value) {
  return varint(number << 3 | wire) + (wire == 2 ? varint(value.size()) : std::string()) + value;
}

inline std::string record(const std::string& data) {
  const auto masked = [](std::string_view bytes) {
    const auto crc = crc32c(bytes);
    return little_endian((crc >> 15 | crc << 17) + 0xA282EAD8u);
  };
  const auto length = little_endian(static_cast<std::uint64_t>(data.size()));
  return length + masked(length) + data + masked(data);
}

inline std::string event(double seconds, std::int64_t step, const std::string& what) {
  return record(field(1, 1, little_endian(std::bit_cast<std::uint64_t>(seconds))) +
                field(2, 0, varint(static_cast<std::uint64_t>(step))) + what);
}

}  // namespace detail

/// One run as an event file. The time of a row is its step divided by the run's mean speed.
inline std::string tensorboard_events(const run_result& run) {
  using detail::field;
  std::string bytes = detail::event(0, 0, field(3, 2, "brain.Event:2"));
  std::map<double, std::map<std::string, double>> rows;
  for (const auto& [measure, points] : run.curves)
    for (const auto& p : points) rows[p.step][measure] = p.value;
  if (std::isfinite(run.step))
    for (const auto& [measure, value] : run.values) rows[run.step]["end/" + measure] = value;
  const bool timed = std::isfinite(run.steps_per_second) && run.steps_per_second > 0;
  for (const auto& [step, values] : rows) {
    std::string summary;
    for (const auto& [measure, value] : values)
      summary +=
          field(1, 2,
                field(1, 2, measure) + field(2, 5,
                                             detail::little_endian(std::bit_cast<std::uint32_t>(
                                                 static_cast<float>(value)))));
    bytes += detail::event(timed ? step / run.steps_per_second : 0, static_cast<std::int64_t>(step),
                           field(5, 2, summary));
  }
  return bytes;
}

/// Writes OUT/TASK/METHOD/seedN/events.out.tfevents.0.retain for each run.
inline void write_tensorboard(const std::vector<run_result>& runs,
                              const std::filesystem::path& out) {
  for (const auto& run : runs)
    write_file(
        out / (run.task + (run.preset.empty() || run.preset == run.task ? "" : "-" + run.preset)) /
            run.method / ("seed" + std::to_string(run.seed)) / "events.out.tfevents.0.retain",
        tensorboard_events(run));
}

}  // namespace compare
