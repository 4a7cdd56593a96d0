// SPDX-License-Identifier: MIT
// A state file that stays on disk: only its header is read. The tensors' bytes are mapped into
// memory, and the system loads them on access.
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>
#include <retain/files/file_mapping.hpp>
#include <retain/files/state_file.hpp>
#include <retain/files/state_header.hpp>

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace retain::detail {

/// A tensor [n, ...] in a mapped file.
struct mapped_column {
  std::string name;
  at::ScalarType type = at::kFloat;
  std::vector<std::int64_t> shape;
  const char* data = nullptr;
};

/// A mapped state file and its columns from the header.
struct mapped_state {
  file_mapping file;
  std::string checksum;
  std::vector<mapped_column> columns;

  /// Throws io_error like `read_state_file`. The checksum is compared only if `verify` is set; this
  /// reads the whole file.
  mapped_state(const std::string& path, bool verify) : file(path) {
    state_header header = read_state_header(path, file, verify);
    checksum = std::move(header.checksum);
    for (auto& stored : header.tensors)
      columns.push_back({std::move(stored.name), scalar_types[stored.type], std::move(stored.shape),
                         file.data() + stored.begin});
    file.expect_random_access();
  }
};

/// Returns the rows of a mapped tensor at `indices`, int64 [n] or [L, n], and reads no other rows.
/// Copies bytes, because the file does not align its tensors.
inline at::Tensor gather_mapped(const mapped_column& column, const at::Tensor& indices) {
  if (indices.scalar_type() != at::kLong && indices.scalar_type() != at::kInt)
    throw config_error(concat("file_memory: indices must be int64, got ", indices.dtype(),
                              "; for a mask, use mask.nonzero().squeeze(1)"));
  std::vector<std::int64_t> shape(indices.sizes().begin(), indices.sizes().end());
  shape.insert(shape.end(), column.shape.begin() + 1, column.shape.end());
  const at::Tensor flat = indices.to(at::kCPU, at::kLong).contiguous();
  const auto* index = static_cast<const std::int64_t*>(flat.data_ptr());
  // Check before allocating: an empty column may have rows of any length.
  for (std::int64_t i = 0; i < flat.numel(); ++i)
    if (index[i] < 0 || index[i] >= column.shape[0])
      throw config_error(concat("file_memory: the index ", index[i], " is not one of the ",
                                column.shape[0], " rows of '", column.name, "'"));
  at::Tensor rows = at::empty(shape, at::TensorOptions().dtype(column.type));
  const std::size_t bytes =
      flat.numel() == 0 ? 0 : rows.nbytes() / static_cast<std::size_t>(flat.numel());
  auto* out = static_cast<char*>(rows.data_ptr());
  if (bytes > 0)
    for (std::int64_t i = 0; i < flat.numel(); ++i, out += bytes)
      std::memcpy(out, column.data + static_cast<std::size_t>(index[i]) * bytes, bytes);
  return rows;
}

}  // namespace retain::detail
