// SPDX-License-Identifier: MIT
#pragma once

#include <retain/core/state.hpp>
#include <retain/files/mapped_file.hpp>
#include <retain/replay/transitions.hpp>

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace retain {

struct file_memory_options {
  /// true: read the whole file once and compare its checksum; false: open the file without this
  /// check
  bool verify = true;
  at::Device device = at::kCPU;  ///< device of the gathered rows
};

/// One column of a file_memory. `gather` returns a tensor, for example a student's observations or
/// a teacher's stored logits.
class file_column {
 public:
  file_column(std::shared_ptr<const detail::mapped_state> file, std::size_t column,
              at::Device device)
      : file_(std::move(file)), column_(column), device_(device) {}

  std::int64_t size() const { return here().shape[0]; }
  at::Tensor gather(const at::Tensor& indices) const {
    return detail::gather_mapped(here(), indices).to(device_);
  }

  /// Saves the file's checksum, not the rows.
  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "checksum", file_->checksum);
  }
  /// Throws state_error if the state was saved with another file.
  void load_state(const state& in, const std::string& prefix) const {
    if (const auto& saved = in.text(prefix + "checksum"); saved != file_->checksum)
      throw state_error(detail::concat("file_memory: the state was saved with a file of checksum ",
                                       saved, ", but this file has ", file_->checksum,
                                       ": open the file that the state was saved with"));
  }

 private:
  const detail::mapped_column& here() const { return file_->columns[column_]; }

  std::shared_ptr<const detail::mapped_state> file_;
  std::size_t column_;
  at::Device device_;
};

/// Transitions in a file of any size. `gather` reads only the requested rows. The file comes from
/// retain::state, retain::save or a file_writer (safetensors with a checksum), and all its tensors
/// are columns [n, ...].
///
///     const file_memory demonstrations{"demonstrations.safetensors"};
///     behavioral_cloning{demonstrations.column("observation"), demonstrations.column("logits"),
///                        {.strength = 2.0}}
///
/// The file is mapped into memory, and copies share the mapping. This needs a POSIX system; other
/// systems throw io_error. The operating system caches as many pages as fit. The file must not
/// change while it is open; replace it by renaming, as file_writer does. save_state() saves only
/// the checksum.
class file_memory {
 public:
  /// Throws io_error if the file is missing, is not a state, is truncated or damaged, or has a
  /// newer format. Throws config_error if the file has no tensors, and shape_error if its tensors
  /// differ in the number of rows. Without `verify`, damage inside the rows is not detected.
  explicit file_memory(const std::string& path, file_memory_options options = {})
      : file_(std::make_shared<const detail::mapped_state>(path, options.verify)),
        device_(options.device) {
    if (file_->columns.empty())
      throw config_error(detail::concat("file_memory: '", path, "' holds no tensors"));
    for (const auto& column : file_->columns)
      if (column.shape.empty() || column.shape[0] != file_->columns.front().shape.at(0))
        throw shape_error(detail::concat(
            "file_memory: in '", path, "', '", column.name, "' has shape ",
            detail::shape_text(column.shape), ", but must have as many rows as '",
            file_->columns.front().name, "' ", detail::shape_text(file_->columns.front().shape)));
  }

  std::int64_t size() const { return file_->columns.front().shape[0]; }
  transitions gather(const at::Tensor& indices) const {
    std::vector<named_tensor> rows;
    for (const auto& column : file_->columns)
      rows.push_back({column.name, detail::gather_mapped(column, indices).to(device_)});
    return transitions(std::move(rows));
  }

  /// Throws config_error if the file has no such column.
  file_column column(const std::string& name) const {
    std::string there;
    for (std::size_t i = 0; i < file_->columns.size(); ++i) {
      if (file_->columns[i].name == name) return {file_, i, device_};
      there += detail::concat(i ? ", '" : "'", file_->columns[i].name, '\'');
    }
    throw config_error(detail::concat("file_memory: the file has no '", name, "', only ", there));
  }

  void save_state(state& out, const std::string& prefix) const {
    file_column(file_, 0, device_).save_state(out, prefix);
  }
  void load_state(const state& in, const std::string& prefix) {
    file_column(file_, 0, device_).load_state(in, prefix);
  }

 private:
  std::shared_ptr<const detail::mapped_state> file_;
  at::Device device_;
};

}  // namespace retain
