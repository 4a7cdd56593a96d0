// SPDX-License-Identifier: MIT
// The part of a state file before the tensors' bytes: reading, checking and writing it. Does not
// need LibTorch.
//
// The file is safetensors: 8 bytes with the length of the header, a JSON header, and the tensors'
// bytes. The header's __metadata__ holds the texts and numbers. Its first entry is a CRC-64 of the
// whole file, computed with zeros in place of its own sixteen digits. Its second entry is the
// number of the format. A valid header has each name once and only spaces after the JSON object.
// The tensors follow one another and fill the rest of the file. Therefore a header cannot request
// more memory than the file has bytes.
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>
#include <retain/files/checksum.hpp>
#include <retain/files/header_json.hpp>
#include <retain/files/safetensors.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <istream>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace retain::detail {

inline constexpr int state_format = 1;
inline constexpr std::string_view checksum_key = "retain.checksum", format_key = "retain.format";
inline constexpr std::string_view state_head = R"({"__metadata__":{"retain.checksum":")";
inline constexpr std::string_view zero_checksum = "0000000000000000";
inline constexpr std::size_t checksum_end =
    sizeof(std::uint64_t) + state_head.size() + zero_checksum.size();

struct state_header {
  std::string checksum;
  std::map<std::string, std::string> texts;  ///< without the entries of the format itself
  std::vector<stored_tensor> tensors;        ///< in the order of the header
};

inline std::string checksum_text(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

/// Returns the header of these texts and tensors, with the tensors in this order. The checksum is
/// zeros.
inline std::string state_header_text(const std::map<std::string, std::string>& texts,
                                     const std::vector<stored_tensor>& tensors) {
  std::string header =
      concat(state_head, zero_checksum, "\",", json_string(format_key), ":\"", state_format, '"');
  for (const auto& [key, text] : texts)
    header += concat(',', json_string(key), ':', json_string(text));
  header += '}';
  header += tensor_entries(tensors);
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

/// Reads the texts. The number of the format is checked as soon as it is read, because the rest of
/// the header may be different in another format.
inline void read_texts(header_reader& json, const std::string& path, state_header& header) {
  std::set<std::string> seen;
  json.each('{', '}', [&] {
    const std::string key = json.key(seen);
    std::string text = json.string();
    if (key == checksum_key) {
      header.checksum = std::move(text);
    } else if (key == format_key) {
      int format = 0;
      const auto end = std::from_chars(text.data(), text.data() + text.size(), format);
      if (end.ptr != text.data() + text.size() ||
          (end.ec != std::errc{} && end.ec != std::errc::result_out_of_range) ||
          (end.ec == std::errc{} && format < 1))
        json.fail("without the number of its format");
      if (end.ec == std::errc::result_out_of_range || format > state_format)
        throw io_error(concat("'", path, "' has format ", text,
                              ", but this version of retain reads formats up to ", state_format,
                              ": install a newer version"));
    } else {
      header.texts[key] = std::move(text);
    }
  });
  if (!seen.count(std::string(format_key))) json.fail("without the number of its format");
}

/// Parses the header `text` of a file with `file_size` bytes, which include the header.
inline state_header parse_state_header(const std::string& path, std::string_view text,
                                       std::uint64_t file_size) {
  state_header header;
  header_reader json(text, path);
  const std::uint64_t start = sizeof(std::uint64_t) + text.size(), data = file_size - start;
  std::set<std::string> seen;
  json.each('{', '}', [&] {
    std::string name = json.key(seen);
    if (name == metadata_key) return read_texts(json, path, header);
    stored_tensor tensor;
    tensor.name = std::move(name);
    read_tensor(json, tensor);
    if (tensor.end > data)
      json.refuse(concat("is truncated: '", tensor.name, "' ends ", tensor.end - data,
                         " bytes after its end"));
    header.tensors.push_back(std::move(tensor));
  });
  json.expect_end();
  if (header.checksum != text.substr(state_head.size(), zero_checksum.size()) ||
      header.checksum.find_first_not_of("0123456789abcdef") != std::string::npos)
    json.fail("without a checksum");

  place_tensors(json, start, data, header.tensors);
  return header;
}

/// Checks the first `checksum_end` bytes of a file, or all its bytes if there are fewer. Throws
/// io_error unless they are the complete beginning of a state file.
inline void check_beginning(const std::string& path, std::string_view beginning) {
  if (beginning.size() <= sizeof(std::uint64_t))
    throw io_error(
        concat("'", path, "' has ", beginning.size(),
               " bytes, too few for a state of retain: it is truncated or another kind of file"));
  const auto head = beginning.substr(sizeof(std::uint64_t), state_head.size());
  if (head != state_head.substr(0, head.size()))
    throw io_error(
        concat("'", path, "' is no state of retain: its first bytes are not those of a state"));
  if (beginning.size() < checksum_end)
    throw io_error(concat("'", path, "' is truncated; use an earlier copy of the file"));
}

/// Reads and checks the part before the tensors' bytes. `Source` has size() and view(offset,
/// count), which returns `count` existing bytes that stay valid until the next call. If `verify` is
/// set, reads the whole file and compares the checksum before interpreting anything. Throws
/// io_error, with `path` in its text.
template <class Source>
state_header read_state_header(const std::string& path, Source& source, bool verify) {
  const auto damaged = [&](const char* what) {
    throw io_error(concat("'", path, "' is ", what, "; use an earlier copy of the file"));
  };
  const std::uint64_t size = source.size();
  const std::string beginning(
      source.view(0, static_cast<std::size_t>(std::min<std::uint64_t>(checksum_end, size))));
  check_beginning(path, beginning);
  std::uint64_t length = 0;
  std::memcpy(&length, beginning.data(), sizeof length);
  if (length > size - sizeof length || length < checksum_end - sizeof length)
    damaged("truncated or damaged (its header is longer than the file)");
  if (verify) {
    constexpr std::uint64_t block = 1 << 20;
    crc64 crc;
    crc.update(beginning.data(), checksum_end - zero_checksum.size());
    crc.update(zero_checksum.data(), zero_checksum.size());
    for (std::uint64_t at = checksum_end; at < size; at += block) {
      const std::string_view bytes =
          source.view(at, static_cast<std::size_t>(std::min(block, size - at)));
      crc.update(bytes.data(), bytes.size());
    }
    if (checksum_text(crc.value()) !=
        std::string_view(beginning).substr(checksum_end - zero_checksum.size()))
      damaged("truncated or damaged (its checksum does not match)");
  }
  const std::string text(source.view(sizeof length, length));  // a mapped file may still change
  return parse_state_header(path, text, size);
}

/// A source that reads a file in pieces.
class stream_source {
 public:
  stream_source(std::istream& in, const std::string& path) : in_(in), path_(path) {
    in_.seekg(0, std::ios::end);
    const auto end = in_.tellg();
    if (!in_ || end < 0) fail();
    size_ = static_cast<std::uint64_t>(end);
  }

  std::uint64_t size() const { return size_; }
  std::string_view view(std::uint64_t offset, std::size_t count) {
    buffer_.resize(count);
    read(offset, buffer_.data(), count);
    return {buffer_.data(), count};
  }
  void read(std::uint64_t offset, char* into, std::size_t count) {
    in_.seekg(static_cast<std::streamoff>(offset));
    in_.read(into, static_cast<std::streamsize>(count));
    if (!in_) fail();
  }

 private:
  [[noreturn]] void fail() const {
    throw io_error(concat("cannot read '", path_, "': ", std::strerror(errno)));
  }

  std::istream& in_;
  const std::string& path_;
  std::uint64_t size_ = 0;
  std::vector<char> buffer_;
};

}  // namespace retain::detail
