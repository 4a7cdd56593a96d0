// SPDX-License-Identifier: MIT
// The file of a retain::state: the safetensors format (8 bytes of header length, a JSON header, the tensors' bytes), so that
// other tools can open it. Texts and numbers stand in the header's __metadata__, first of them a CRC-64 of the whole file
// with the checksum's own sixteen digits read as zeros.
#pragma once

#include <retain/detail/checksum.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace retain::detail {

struct state_contents {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> texts;
};

inline constexpr int state_format = 1;
inline constexpr std::string_view state_head = R"({"__metadata__":{"retain.checksum":")";
inline constexpr std::string_view zero_checksum = "0000000000000000";

struct dtype_name {
  at::ScalarType type;
  std::string_view name;
};
inline constexpr std::array<dtype_name, 10> dtype_names{{{at::kDouble, "F64"},
                                                        {at::kFloat, "F32"},
                                                        {at::kHalf, "F16"},
                                                        {at::kBFloat16, "BF16"},
                                                        {at::kLong, "I64"},
                                                        {at::kInt, "I32"},
                                                        {at::kShort, "I16"},
                                                        {at::kChar, "I8"},
                                                        {at::kByte, "U8"},
                                                        {at::kBool, "BOOL"}}};

inline std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += escaped;
    } else {
      out += c;
    }
  }
  return out += '"';
}

/// Reads the JSON that write_state_file writes: objects of strings, and of {dtype, shape, data_offsets}.
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
  [[noreturn]] void fail() const {
    throw io_error(concat("'", path_, "' has a header that cannot be read (byte ", at_ + 8, "): it was not written by retain"));
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

inline std::string checksum_text(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

/// Beside `path`, of nobody else: other threads, other processes and other machines may write the same file.
inline std::string temporary_name(const std::string& path) {
  static const unsigned process = std::random_device{}();
  static std::atomic<unsigned> count{0};
  return concat(path, '.', process, '.', count++, ".tmp");
}

inline void write_state_file(const std::string& path, const state_contents& contents) {
  // As a tensor lies in the file; made one at a time, so that writing takes no second copy of everything.
  const auto laid_out = [](const at::Tensor& tensor) { return tensor.detach().to(at::kCPU).contiguous(); };
  std::string header = concat(state_head, zero_checksum, "\",\"retain.format\":\"", state_format, '"');
  for (const auto& [key, text] : contents.texts) header += concat(',', json_string(key), ':', json_string(text));
  header += '}';
  std::size_t offset = 0;
  for (const auto& [key, tensor] : contents.tensors) {
    std::string_view dtype;
    for (const auto& entry : dtype_names)
      if (entry.type == tensor.scalar_type()) dtype = entry.name;
    if (dtype.empty())
      throw io_error(concat("cannot write '", key, "' to '", path, "': tensors of type ", tensor.dtype(), " have no place in the format"));
    const std::size_t end = offset + tensor.nbytes();
    header += concat(',', json_string(key), ":{\"dtype\":\"", dtype, "\",\"shape\":[");
    for (std::int64_t d = 0; d < tensor.dim(); ++d) header += concat(d ? "," : "", tensor.size(d));
    header += concat("],\"data_offsets\":[", offset, ',', end, "]}");
    offset = end;
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');

  const std::uint64_t length = header.size();
  crc64 crc;
  crc.update(&length, sizeof length);
  crc.update(header.data(), header.size());
  for (const auto& [key, tensor] : contents.tensors) crc.update(laid_out(tensor).data_ptr(), tensor.nbytes());
  header.replace(state_head.size(), zero_checksum.size(), checksum_text(crc.value()));

  const std::string temporary = temporary_name(path);
  const auto fail = [&](const char* what) {
    const std::string reason = std::strerror(errno);
    std::remove(temporary.c_str());
    throw io_error(concat("cannot ", what, " '", temporary, "': ", reason, "; '", path, "' is as it was"));
  };
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(temporary.c_str(), "wbx"), &std::fclose);
  if (!file) fail("create");
  const auto put = [&](const void* data, std::size_t size) {
    if (size != 0 && std::fwrite(data, 1, size, file.get()) != size) fail("write");
  };
  put(&length, sizeof length);
  put(header.data(), header.size());
  for (const auto& [key, tensor] : contents.tensors) {
    const at::Tensor t = laid_out(tensor);
    put(t.data_ptr(), t.nbytes());
  }
  if (std::fflush(file.get()) != 0) fail("write");
#if defined(__unix__) || defined(__APPLE__)
  if (::fsync(::fileno(file.get())) != 0) fail("write");
#endif
  if (std::fclose(file.release()) != 0) fail("write");
  if (std::rename(temporary.c_str(), path.c_str()) != 0) fail("rename");
}

inline constexpr std::size_t checksum_end = sizeof(std::uint64_t) + state_head.size() + zero_checksum.size();

inline void refuse_folder(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) throw io_error(concat("cannot read '", path, "': it is a folder, not a file"));
}

/// `beginning` is what a file has of its first `checksum_end` bytes. Throws io_error unless it is all of a state's.
inline void check_beginning(const std::string& path, std::string_view beginning) {
  if (beginning.size() <= sizeof(std::uint64_t))
    throw io_error(concat("'", path, "' has ", beginning.size(), " bytes, too few for a state of retain: it is truncated, or something else"));
  const auto head = beginning.substr(sizeof(std::uint64_t), state_head.size());
  if (head != state_head.substr(0, head.size())) throw io_error(concat("'", path, "' is no state of retain: it does not begin as one"));
  if (beginning.size() < checksum_end) throw io_error(concat("'", path, "' is truncated; go back to an earlier copy of it"));
}

inline state_contents read_state_file(const std::string& path) {
  refuse_folder(path);
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw io_error(concat("cannot open '", path, "': ", std::strerror(errno)));
  const auto size = static_cast<std::uint64_t>(file.tellg());
  const auto damaged = [&](const char* what) -> void {
    throw io_error(concat("'", path, "' is ", what, "; go back to an earlier copy of it"));
  };
  std::string beginning(std::min<std::uint64_t>(checksum_end, size), '\0');
  file.seekg(0);
  file.read(beginning.data(), static_cast<std::streamsize>(beginning.size()));
  if (!file) throw io_error(concat("cannot read '", path, "': ", std::strerror(errno)));
  check_beginning(path, beginning);
  std::uint64_t length = 0;
  std::memcpy(&length, beginning.data(), sizeof length);
  if (length > size - sizeof length || length < checksum_end - sizeof length) damaged("truncated or damaged (its header is longer than the file)");
  std::string header(length, '\0');
  file.seekg(sizeof length);
  file.read(header.data(), static_cast<std::streamsize>(header.size()));

  // The checksum first: nothing of a damaged file is interpreted.
  const std::string stored = header.substr(state_head.size(), zero_checksum.size());
  header.replace(state_head.size(), zero_checksum.size(), zero_checksum);
  crc64 crc;
  crc.update(&length, sizeof length);
  crc.update(header.data(), header.size());
  std::vector<char> block(1 << 20);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())), file.gcount() > 0)
    crc.update(block.data(), static_cast<std::size_t>(file.gcount()));
  if (checksum_text(crc.value()) != stored) damaged("truncated or damaged (its checksum does not match)");
  file.clear();

  state_contents contents;
  header_reader json(header, path);
  const std::uint64_t data_start = 8 + length;
  json.each('{', '}', [&] {
    const std::string key = json.string();
    json.expect(':');
    if (key == "__metadata__") {
      json.each('{', '}', [&] {
        const std::string name = json.string();
        json.expect(':');
        contents.texts[name] = json.string();
      });
      return;
    }
    std::string dtype;
    std::vector<std::int64_t> shape, offsets;
    json.each('{', '}', [&] {
      const std::string field = json.string();
      json.expect(':');
      if (field == "dtype")
        dtype = json.string();
      else if (field == "shape")
        json.each('[', ']', [&] { shape.push_back(json.integer()); });
      else if (field == "data_offsets")
        json.each('[', ']', [&] { offsets.push_back(json.integer()); });
      else
        json.fail();
    });
    const auto* entry = dtype_names.begin();
    while (entry != dtype_names.end() && entry->name != dtype) ++entry;
    if (entry == dtype_names.end() || offsets.size() != 2) json.fail();
    at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(entry->type));
    const auto bytes = static_cast<std::uint64_t>(offsets[1] - offsets[0]);
    if (offsets[1] < offsets[0] || bytes != tensor.nbytes() || data_start + static_cast<std::uint64_t>(offsets[1]) > size) json.fail();
    file.seekg(static_cast<std::streamoff>(data_start + static_cast<std::uint64_t>(offsets[0])));
    file.read(static_cast<char*>(tensor.data_ptr()), static_cast<std::streamsize>(bytes));
    if (!file) throw io_error(concat("cannot read '", path, "': ", std::strerror(errno)));
    contents.tensors[key] = std::move(tensor);
  });

  const std::string format = contents.texts["retain.format"];
  if (std::atoi(format.c_str()) > state_format)
    throw io_error(concat("'", path, "' has format ", format, ", this version of retain reads up to ", state_format, ": install a newer one"));
  contents.texts.erase("retain.format");
  contents.texts.erase("retain.checksum");
  return contents;
}

}  // namespace retain::detail
