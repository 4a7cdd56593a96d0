// SPDX-License-Identifier: MIT
// Reads and writes the file of a retain::state. The format is safetensors, so other tools can open
// the file: see state_header.hpp.
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>
#include <retain/files/checksum.hpp>
#include <retain/files/new_file.hpp>
#include <retain/files/state_header.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace retain::detail {

struct state_contents {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> texts;
};

/// LibTorch's names of the element_types, in the same order.
inline constexpr std::array<at::ScalarType, element_types.size()> scalar_types{
    at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
    at::kInt,    at::kShort, at::kChar, at::kByte,     at::kBool};

/// Returns the position in scalar_types, or scalar_types.size() if the format does not support the
/// type.
inline std::size_t element_of(at::ScalarType type) {
  return static_cast<std::size_t>(std::find(scalar_types.begin(), scalar_types.end(), type) -
                                  scalar_types.begin());
}

/// Returns the header's entry of a tensor. Throws io_error if the format cannot hold the tensor.
inline stored_tensor entry_of(const std::string& path, const std::string& name,
                              const at::Tensor& tensor) {
  const std::size_t type = element_of(tensor.scalar_type());
  if (type == scalar_types.size())
    throw io_error(concat("cannot write '", name, "' to '", path,
                          "': the format does not support tensors of type ", tensor.dtype()));
  if (tensor.layout() != at::kStrided)
    throw io_error(concat("cannot write '", name, "' to '", path, "': it is ", tensor.layout(),
                          ", and the format has dense tensors only; write its to_dense()"));
  return {name, type, tensor.sizes().vec()};
}

/// Returns the tensor as its bytes lie in a file.
inline at::Tensor laid_out(const at::Tensor& tensor) {
  return tensor.detach().to(at::kCPU).resolve_neg().contiguous();
}

inline void write_state_file(const std::string& path, const state_contents& contents) {
  std::vector<stored_tensor> stored;
  for (const auto& [key, tensor] : contents.tensors) stored.push_back(entry_of(path, key, tensor));
  const std::string header = state_header_text(contents.texts, stored);
  const std::uint64_t length = header.size();
  new_file out(path);
  crc64 crc;
  const auto put = [&](const void* data, std::size_t size) {
    crc.update(data, size);
    out.put(data, size);
  };
  put(&length, sizeof length);
  put(header.data(), header.size());
  // Copy one tensor at a time, to save memory.
  for (const auto& [key, tensor] : contents.tensors) {
    const at::Tensor bytes = laid_out(tensor);
    put(bytes.data_ptr(), bytes.nbytes());
  }
  out.put_at(static_cast<long>(checksum_end - zero_checksum.size()), checksum_text(crc.value()));
  out.take_place();
}

inline void refuse_to_read(const std::string& path) {
  if (const auto other = what_else_is(path); !other.empty())
    throw io_error(concat("cannot read '", path, "': it is ", other, ", not a file"));
}

/// Opens a file for reading. Throws io_error if that is not possible.
inline std::ifstream opened(const std::string& path) {
  refuse_to_read(path);
  std::ifstream file(path, std::ios::binary);
  if (!file) throw io_error(concat("cannot open '", path, "': ", std::strerror(errno)));
  return file;
}

inline at::Tensor read_tensor_bytes(stream_source& bytes, const stored_tensor& stored) {
  at::Tensor tensor = at::empty(stored.shape, at::TensorOptions().dtype(scalar_types[stored.type]));
  bytes.read(stored.begin, static_cast<char*>(tensor.data_ptr()), tensor.nbytes());
  return tensor;
}

inline state_contents read_state_file(const std::string& path) {
  std::ifstream file = opened(path);
  stream_source bytes(file, path);
  state_header header = read_state_header(path, bytes, true);
  state_contents contents;
  contents.texts = std::move(header.texts);
  for (const auto& stored : header.tensors)
    contents.tensors[stored.name] = read_tensor_bytes(bytes, stored);
  return contents;
}

}  // namespace retain::detail
