// SPDX-License-Identifier: MIT
// State files for the two targets that read them.
#pragma once

#include "fuzz.hpp"

#include <retain/files/checksum.hpp>
#include <retain/files/state_header.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace fuzz {

namespace detail = retain::detail;

/// A file of this header, from its beginning or without it, and this data: the length and the
/// checksum are right.
inline std::string state_file(std::string header, const std::string& data) {
  const std::string beginning =
      std::string(detail::state_head) + std::string(detail::zero_checksum);
  if (header.compare(0, beginning.size(), beginning) != 0) header = beginning + header;
  const std::uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  bytes += header + data;
  detail::crc64 crc;
  crc.update(bytes.data(), bytes.size());
  return bytes.replace(detail::checksum_end - detail::zero_checksum.size(),
                       detail::zero_checksum.size(), detail::checksum_text(crc.value()));
}

inline std::vector<std::string> state_seeds() {
  const auto of = [](const std::map<std::string, std::string>& texts,
                     const std::vector<detail::stored_tensor>& tensors) {
    std::size_t bytes = 0;
    for (const auto& tensor : tensors) {
      std::uint64_t its = 0;
      detail::count_bytes(detail::element_types[tensor.type].size, tensor.shape, its);
      bytes += its;
    }
    return state_file(detail::state_header_text(texts, tensors), std::string(bytes, '\3'));
  };
  std::vector<detail::stored_tensor> all;
  for (std::size_t type = 0; type < detail::element_types.size(); ++type)
    all.push_back({"t" + std::to_string(type), type, {static_cast<std::int64_t>(type) + 1, 2}});
  return {of({}, {}),
          of({{"ewc.schedule.kind", "constant{2}"}, {"steps", "18446744073709551615"}},
             {{"ewc.anchor.a", 1, {2, 3}}, {"scalar", 0, {}}}),
          of({{"a \"quoted\" \\ key\n", "\x01 UTF-8 \xc3\xa9"}, {"__metadata__", ""}},
             {{"retain.format", 8, {0, 1000}}, {"", 9, {5}}}),
          of({}, all)};
}

/// The greatest end that the header's text gives to a tensor, as far as one may be made.
inline std::size_t claimed_end(const std::string& header) {
  constexpr std::string_view field = "\"data_offsets\":[";
  unsigned long long end = 0;
  for (auto at = header.find(field); at != std::string::npos; at = header.find(field, at + 1))
    if (const auto comma = header.find(',', at); comma != std::string::npos)
      end = std::max(end, std::strtoull(header.c_str() + comma + 1, nullptr, 10));
  return static_cast<std::size_t>(std::min(end, 1ull << 14));
}

inline std::string mutated_state(const std::string& bytes, std::size_t most, std::mt19937& dice) {
  if (bytes.size() < detail::checksum_end || dice() % 16 == 0) return change(bytes, most, dice);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  length = std::clamp<std::uint64_t>(length, detail::checksum_end - sizeof length,
                                     bytes.size() - sizeof length);
  std::string header = bytes.substr(detail::checksum_end, static_cast<std::size_t>(length) +
                                                              sizeof length - detail::checksum_end);
  std::string data = bytes.substr(sizeof length + static_cast<std::size_t>(length));
  const std::size_t room = most > detail::checksum_end ? most - detail::checksum_end : 0;
  switch (dice() % 8) {
    case 0: data = change(data, room, dice); break;
    case 1: data.resize(claimed_end(header) + dice() % 2, '\5'); break;
    case 2: header.append((8 - (header.size() + detail::checksum_end) % 8) % 8, ' '); break;
    default: header = change(header, room, dice); break;
  }
  if (dice() % 2 == 0) data.resize(claimed_end(header), '\7');
  if (header.size() > room) header.resize(room);
  if (data.size() > room - header.size()) data.resize(room - header.size());
  return state_file(std::string(detail::state_head) + std::string(detail::zero_checksum) + header,
                    data);
}

inline bool same(const detail::state_header& a, const detail::state_header& b) {
  return a.checksum == b.checksum && a.texts == b.texts &&
         std::equal(a.tensors.begin(), a.tensors.end(), b.tensors.begin(), b.tensors.end(),
                    [](const auto& one, const auto& other) {
                      return one.name == other.name && one.type == other.type &&
                             one.shape == other.shape && one.begin == other.begin &&
                             one.end == other.end;
                    });
}
inline bool same(const std::optional<detail::state_header>& a,
                 const std::optional<detail::state_header>& b) {
  return a.has_value() == b.has_value() && (!a || same(*a, *b));
}

/// Nothing where the reader refuses it as it promises.
template <class Source>
std::optional<detail::state_header> header_of(Source& source, bool verify) {
  try {
    return detail::read_state_header("input", source, verify);
  } catch (const retain::io_error&) {
    return std::nullopt;
  }
}

/// What holds of every header that is accepted, of a file of so many bytes.
inline void check_header(const detail::state_header& header, std::uint64_t size,
                         std::uint64_t header_size) {
  std::set<std::string> names;
  std::uint64_t sum = 0;
  auto tensors = header.tensors;
  for (const auto& tensor : tensors) {
    require(names.insert(tensor.name).second, "every tensor has a name of its own");
    require(tensor.type < detail::element_types.size(), "a type is one of those that there are");
    require(tensor.begin >= sizeof(std::uint64_t) + header_size && tensor.begin <= tensor.end &&
                tensor.end <= size,
            "a tensor lies in its file");
    std::uint64_t bytes = 0;
    require(detail::count_bytes(detail::element_types[tensor.type].size, tensor.shape, bytes),
            "a shape has a number of bytes");
    require(bytes == tensor.end - tensor.begin, "a tensor has the bytes of its shape");
    for (const auto side : tensor.shape) require(side >= 0, "no side is negative");
    sum += bytes;
  }
  require(sum == size - sizeof(std::uint64_t) - header_size, "the tensors fill the file");
  require(header.texts.count("retain.format") == 0 && header.texts.count("retain.checksum") == 0,
          "the format's own texts are nobody's");

  // Written again, it is the same but for the order and the places.
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const std::string text = detail::state_header_text(header.texts, tensors);
  const auto again =
      detail::parse_state_header("again", text, sizeof(std::uint64_t) + text.size() + sum);
  require(again.texts == header.texts, "texts are written back the same");
  require(again.tensors.size() == tensors.size(), "tensors are written back all");
  const std::uint64_t from = sizeof(std::uint64_t) + header_size,
                      to = sizeof(std::uint64_t) + text.size();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto &one = tensors[i], &other = again.tensors[i];
    require(one.name == other.name && one.type == other.type && one.shape == other.shape,
            "a tensor is written back the same");
    require(one.begin - from == other.begin - to && one.end - from == other.end - to,
            "a tensor's bytes are written back in their place");
  }
}

}  // namespace fuzz
