// SPDX-License-Identifier: MIT
// Reads the tensors of any safetensors file, and writes a plain one.
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>
#include <retain/files/new_file.hpp>
#include <retain/files/state_file.hpp>
#include <retain/files/state_header.hpp>
#include <retain/files/weights_header.hpp>

#include <ATen/ATen.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace retain::detail {

/// An open safetensors file with a checked header. Throws io_error if the file cannot be read or
/// is damaged.
class weights_file {
 public:
  explicit weights_file(std::string path)
      : path_(std::move(path)),
        in_(opened(path_)),
        bytes_(in_, path_),
        header_(read_weights_header(path_, bytes_)) {}
  weights_file(const weights_file&) = delete;
  weights_file& operator=(const weights_file&) = delete;

  const weights_header& header() const { return header_; }
  /// Reads a tensor whose type is one of element_types.
  at::Tensor read(const stored_tensor& stored) { return read_tensor_bytes(bytes_, stored); }

 private:
  std::string path_;
  std::ifstream in_;
  stream_source bytes_;
  weights_header header_;
};

/// Writes the tensors in this order.
inline void write_weights_file(const std::string& path,
                               const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<stored_tensor> stored;
  for (const auto& [name, tensor] : tensors) {
    if (name == metadata_key)
      throw io_error(concat("cannot write '", name, "' to '", path,
                            "': the file format reserves this name; rename the tensor"));
    stored.push_back(entry_of(path, name, tensor));
  }
  const std::string header = weights_header_text(stored);
  const std::uint64_t length = header.size();
  new_file out(path);
  out.put(&length, sizeof length);
  out.put(header);
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor bytes = laid_out(tensor);
    out.put(bytes.data_ptr(), bytes.nbytes());
  }
  out.take_place();
}

}  // namespace retain::detail
