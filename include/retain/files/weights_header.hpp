// SPDX-License-Identifier: MIT
// The header of any safetensors file, whoever wrote it: without a checksum, with any texts, with
// any order of the tensors and any white space that JSON allows. Does not need LibTorch.
//
// What the format itself demands is checked: a name stands once, and the tensors fill the file
// without gaps or overlaps. Therefore a header cannot request more memory than the file has bytes.
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>
#include <retain/files/header_json.hpp>
#include <retain/files/safetensors.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retain::detail {

struct weights_header {
  std::map<std::string, std::string> texts;  ///< the entries of __metadata__
  std::vector<stored_tensor> tensors;        ///< in the order of the header
};

/// Returns the header of these tensors, in this order, with the text that PyTorch's users expect.
inline std::string weights_header_text(const std::vector<stored_tensor>& tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})" + tensor_entries(tensors) + '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

/// Parses the header `text` of a file with `file_size` bytes, which include the header.
inline weights_header parse_weights_header(const std::string& path, std::string_view text,
                                           std::uint64_t file_size) {
  weights_header header;
  header_reader json(text, path, header_writer::anyone);
  const std::uint64_t start = sizeof(std::uint64_t) + text.size(), data = file_size - start;
  std::set<std::string> seen;
  json.each('{', '}', [&] {
    std::string name = json.key(seen);
    if (name == metadata_key) {
      std::set<std::string> keys;
      json.each('{', '}', [&] {
        const std::string key = json.key(keys);
        header.texts[key] = json.string();
      });
      return;
    }
    stored_tensor tensor;
    tensor.name = std::move(name);
    read_tensor(json, tensor);
    if (tensor.end > data)
      json.refuse(concat("is truncated: '", tensor.name, "' ends ", tensor.end - data,
                         " bytes after its end"));
    header.tensors.push_back(std::move(tensor));
  });
  json.expect_end();
  place_tensors(json, start, data, header.tensors);
  return header;
}

/// Returns what a file is instead, from its first bytes, and what to do.
inline std::string other_weights(std::string_view beginning) {
  const auto begins = [&](std::string_view with) {
    return beginning.substr(0, with.size()) == with;
  };
  if (begins("PK\x03\x04") || begins("\x80\x02"))
    return "it may be a file of torch.save: convert it in Python with "
           "safetensors.torch.save_file (see retain/weights.hpp)";
  if (begins("version https://git-lfs"))
    return "it is a pointer of Git LFS to the file: run git lfs pull";
  return "its first bytes are not those of a safetensors header";
}

/// Reads and checks the part before the tensors' bytes. `Source` is as for read_state_header.
/// Throws io_error, with `path` in its text.
template <class Source>
weights_header read_weights_header(const std::string& path, Source& source) {
  const std::uint64_t size = source.size();
  const std::string beginning(
      source.view(0, static_cast<std::size_t>(std::min<std::uint64_t>(size, 32))));
  constexpr std::size_t before = sizeof(std::uint64_t);
  // the shortest file is the length and {}
  if (size < before + 2)
    throw io_error(
        concat("'", path, "' has ", size,
               " bytes, too few for a safetensors file: it is truncated or another kind of file"));
  if (beginning[before] != '{')
    throw io_error(concat("'", path, "' is no safetensors file: ", other_weights(beginning)));
  std::uint64_t length = 0;
  std::memcpy(&length, beginning.data(), before);
  if (length > size - before)
    throw io_error(concat("'", path, "' is truncated or damaged: its header has ", length,
                          " bytes, but the file has ", size - before,
                          " after the length; copy the file again"));
  const std::string text(source.view(before, length));
  return parse_weights_header(path, text, size);
}

}  // namespace retain::detail
