// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/files/checksum.hpp>
#include <retain/files/new_file.hpp>
#include <retain/files/state_file.hpp>
#include <retain/files/state_header.hpp>
#include <retain/replay/transitions.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace retain {

/// Writes transitions to a file for file_memory and retain::state. The writer holds only one chunk
/// in memory:
///
///     file_writer out{"demonstrations.safetensors"};
///     while (...) out.push({{"observation", o}, {"logits", z}});
///     out.close();
///
/// Before `close`, the file at `path` does not change, and each column is in a temporary file in
/// the same folder. `close` joins the columns in a new file and renames it to `path`; during this
/// step the disk holds the rows twice. If `path` is a symbolic link, the link stays and its target
/// is replaced. A writer that is destroyed without `close` removes its temporary files.
class file_writer {
 public:
  explicit file_writer(std::string path) : path_(std::move(path)) {}
  file_writer(file_writer&&) = default;
  file_writer& operator=(file_writer&&) = delete;

  /// Adds rows with the columns, shapes and types of the first push. Throws config_error if a
  /// column is missing or extra, shape_error or state_error if a shape or type differs. Throws
  /// io_error if the disk does not take the rows, or if `path` is a folder, a device or a pipe;
  /// after an error of the disk, the file cannot be completed.
  void push(const transitions& rows) {
    if (closed_)
      throw config_error(
          detail::concat("file_writer: '", path_, "' is closed: push rows before close()"));
    check_intact();
    if (columns_.empty()) begin(rows);
    check(rows);
    intact_ = false;
    for (auto& column : columns_) {
      const at::Tensor bytes = rows[column.name].detach().to(at::kCPU).contiguous();
      column.file.to_end();  // a failed close() may have moved the position
      column.file.put(bytes.data_ptr(), bytes.nbytes());
    }
    intact_ = true;
    rows_ += rows.size();
  }

  std::int64_t size() const { return rows_; }

  /// Completes the file. Throws config_error if nothing was pushed, and io_error if the disk does
  /// not take the file. After an exception the file at `path` is unchanged.
  void close() {
    if (closed_) throw config_error(detail::concat("file_writer: '", path_, "' is closed already"));
    if (columns_.empty())
      throw config_error(
          detail::concat("file_writer: '", path_, "' would hold no columns: push rows first"));
    check_intact();
    for (auto& column : columns_) column.file.rewind();
    std::string text = header();
    const std::uint64_t length = text.size();
    detail::new_file out(path_);
    detail::crc64 crc;
    const auto put = [&](const void* data, std::size_t size) {
      crc.update(data, size);
      out.put(data, size);
    };
    put(&length, sizeof length);
    put(text.data(), text.size());
    std::vector<char> block(1 << 20);
    for (auto& column : columns_) {
      std::size_t copied = 0;
      while (const std::size_t got = column.file.get(block)) {
        put(block.data(), got);
        copied += got;
      }
      if (copied != bytes_of(column))
        throw io_error(detail::concat(
            "file_writer: the temporary file of '", column.name, "' for '", path_, "' has ", copied,
            " bytes, not the ", bytes_of(column), " that were pushed; '", path_, "' is unchanged"));
    }
    out.put_at(static_cast<long>(detail::checksum_end - detail::zero_checksum.size()),
               detail::checksum_text(crc.value()));
    out.take_place();
    columns_.clear();
    closed_ = true;
  }

 private:
  struct column_file {
    std::string name;
    at::ScalarType type;
    std::vector<std::int64_t> row;  // shape of one row
    detail::new_file file;
  };

  void check_intact() const {
    if (!intact_)
      throw io_error(
          detail::concat("file_writer: rows for '", path_,
                         "' were written only in part: start again with a new file_writer"));
  }

  void begin(const transitions& rows) {
    if (rows.begin() == rows.end())
      throw config_error("file_writer: the first rows have no columns");
    std::vector<column_file> columns;
    for (const auto& [name, tensor] : rows) {
      if (name == detail::metadata_key)
        throw config_error(detail::concat("file_writer: a column cannot be called '", name,
                                          "': the format reserves this name"));
      if (detail::element_of(tensor.scalar_type()) == detail::scalar_types.size())
        throw config_error(detail::concat("file_writer: '", name, "' is ", tensor.dtype(),
                                          ", a type that the format does not support"));
      columns.push_back({name, tensor.scalar_type(), tensor.sizes().slice(1).vec(),
                         detail::new_file(path_, detail::concat(".", columns.size()))});
    }
    columns_ = std::move(columns);
  }

  void check(const transitions& rows) const {
    for (const auto& [name, type, row, file] : columns_) {
      const at::Tensor& given = rows[name];
      if (given.sizes().slice(1) != at::IntArrayRef(row))
        throw shape_error(detail::concat("file_writer: '", name, "' has rows of shape ",
                                         detail::shape_text(given.sizes().slice(1)),
                                         ", but the file has ", detail::shape_text(row)));
      if (given.scalar_type() != type)
        throw state_error(detail::concat("file_writer: '", name, "' is ", given.dtype(),
                                         ", but the file has ", at::toString(type),
                                         ": convert it first"));
    }
    for (const auto& [name, tensor] : rows)
      if (std::none_of(columns_.begin(), columns_.end(),
                       [&, &key = name](const auto& known) { return known.name == key; }))
        throw config_error(detail::concat("file_writer: the rows have '", name,
                                          "', which the first rows do not have"));
  }

  std::size_t bytes_of(const column_file& column) const {
    std::int64_t bytes = rows_ * static_cast<std::int64_t>(c10::elementSize(column.type));
    for (const std::int64_t size : column.row) bytes *= size;
    return static_cast<std::size_t>(bytes);
  }

  std::string header() const {
    std::vector<detail::stored_tensor> stored;
    for (const auto& column : columns_) {
      std::vector<std::int64_t> shape{rows_};
      shape.insert(shape.end(), column.row.begin(), column.row.end());
      stored.push_back({column.name, detail::element_of(column.type), std::move(shape)});
    }
    return detail::state_header_text({}, stored);
  }

  std::string path_;
  std::vector<column_file> columns_;
  std::int64_t rows_ = 0;
  bool closed_ = false, intact_ = true;
};

}  // namespace retain
