// SPDX-License-Identifier: MIT
// What every safetensors file has, written by retain or by another program: types of numbers, the
// entries of tensors in the header, and their places in the file. Does not need LibTorch.
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>
#include <retain/files/header_json.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retain::detail {

inline constexpr std::string_view metadata_key = "__metadata__";

struct element_type {
  std::string_view name;
  std::size_t size;  ///< bytes
};
inline constexpr std::array<element_type, 10> element_types{{{"F64", 8},
                                                             {"F32", 4},
                                                             {"F16", 2},
                                                             {"BF16", 2},
                                                             {"I64", 8},
                                                             {"I32", 4},
                                                             {"I16", 2},
                                                             {"I8", 1},
                                                             {"U8", 1},
                                                             {"BOOL", 1}}};

/// A tensor's entry in the header.
struct stored_tensor {
  std::string name;
  std::size_t type = 0;  ///< place in element_types
  std::vector<std::int64_t> shape;
  /// positions of its bytes in the file; tensor_entries does not read them
  std::uint64_t begin = 0, end = 0;
  /// the type's name if it is none of element_types (type is then element_types.size()); only files
  /// of other programs have such types
  std::string other_type = {};
};

/// Computes the number of bytes of a tensor. An empty tensor has 0 bytes, whatever its other sizes.
/// Returns false if the product does not fit into 63 bits.
inline bool count_bytes(std::size_t element_size, const std::vector<std::int64_t>& shape,
                        std::uint64_t& bytes) {
  auto product = static_cast<std::int64_t>(element_size);
  bool empty = false;
  for (const std::int64_t side : shape) {
    if (side == 0) {
      empty = true;
      continue;
    }
    if (side < 0 || product > INT64_MAX / side) return false;
    product *= side;
  }
  bytes = empty ? 0 : static_cast<std::uint64_t>(product);
  return true;
}

/// Returns the entries of the header for these tensors, in this order and without gaps. Each entry
/// begins with a comma.
inline std::string tensor_entries(const std::vector<stored_tensor>& tensors) {
  std::string entries;
  std::uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    std::uint64_t bytes = 0;
    if (!count_bytes(element_types[tensor.type].size, tensor.shape, bytes))
      throw io_error(concat("'", tensor.name, "' is too large to be written"));
    entries += concat(',', json_string(tensor.name), ":{\"dtype\":\"",
                      element_types[tensor.type].name, "\",\"shape\":[");
    for (std::size_t d = 0; d < tensor.shape.size(); ++d)
      entries += concat(d ? "," : "", tensor.shape[d]);
    entries += concat("],\"data_offsets\":[", offset, ',', offset + bytes, "]}");
    offset += bytes;
  }
  return entries;
}

/// Reads a tensor's entry. The offsets count from the first byte after the header.
inline void read_tensor(header_reader& json, stored_tensor& tensor) {
  std::set<std::string> seen;
  std::vector<std::int64_t> offsets;
  json.each('{', '}', [&] {
    const std::string field = json.key(seen);
    if (field == "dtype") {
      std::string name = json.string();
      while (tensor.type < element_types.size() && element_types[tensor.type].name != name)
        ++tensor.type;
      if (tensor.type == element_types.size()) {
        if (json.own()) json.fail("with an unknown type of numbers");
        tensor.other_type = std::move(name);
      }
    } else if (field == "shape") {
      json.each('[', ']', [&] { tensor.shape.push_back(json.integer()); });
    } else if (field == "data_offsets") {
      json.each('[', ']', [&] { offsets.push_back(json.integer()); });
    } else {
      json.fail();
    }
  });
  if (seen.size() != 3 || offsets.size() != 2 || offsets[1] < offsets[0]) json.fail();
  tensor.begin = static_cast<std::uint64_t>(offsets[0]);
  tensor.end = static_cast<std::uint64_t>(offsets[1]);
  if (tensor.type == element_types.size()) return;  // no program here can know its size
  std::uint64_t bytes = 0;
  if (!count_bytes(element_types[tensor.type].size, tensor.shape, bytes) ||
      bytes != tensor.end - tensor.begin)
    json.fail("with a shape that does not fit the number of bytes");
}

/// Checks that the tensors fill the `data` bytes after the header, without gaps or overlaps. Then
/// makes their offsets positions in the file, where the data begin at `start`.
inline void place_tensors(const header_reader& json, std::uint64_t start, std::uint64_t data,
                          std::vector<stored_tensor>& tensors) {
  std::vector<const stored_tensor*> in_order;
  for (const auto& tensor : tensors) in_order.push_back(&tensor);
  std::sort(in_order.begin(), in_order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  std::uint64_t filled = 0;
  for (const auto* tensor : in_order) {
    if (tensor->begin != filled) json.fail("with gaps or overlaps between the tensors");
    filled = tensor->end;
  }
  if (filled != data)
    json.refuse(concat("has ", data - filled, " bytes after its last tensor: the file is damaged"));
  for (auto& tensor : tensors) {
    tensor.begin += start;
    tensor.end += start;
  }
}

}  // namespace retain::detail
