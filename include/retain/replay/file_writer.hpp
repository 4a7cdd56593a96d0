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

/// Writes transitions to a file that file_memory and retain::state read, chunk by chunk and never
/// holding more than one:
///
///     file_writer out{"demonstrations.safetensors"};
///     while (...) out.push({{"observation", o}, {"logits", z}});
///     out.close();
///
/// Until `close`, `path` is as it was, and each column lies in a temporary file beside it; `close`
/// joins them (so the disk holds the rows twice for a while) and renames the result: a link stays,
/// and what it leads to is replaced. A writer that is destroyed without it leaves nothing behind.
class file_writer {
 public:
  explicit file_writer(std::string path) : path_(std::move(path)) {}
  file_writer(file_writer&&) = default;
  file_writer& operator=(file_writer&&) = delete;

  /// Adds rows like those of the first push. Throws config_error for a missing or extra column,
  /// shape_error or state_error for one of another shape or type, io_error when the disk does not
  /// take them, or `path` is a folder, a device or a pipe; then the file cannot be completed.
  void push(const transitions& rows) {
    if (closed_)
      throw config_error(
          detail::concat("file_writer: '", path_, "' is closed: rows come before close()"));
    check_intact();
    if (columns_.empty()) begin(rows);
    check(rows);
    intact_ = false;
    for (auto& column : columns_) {
      const at::Tensor bytes = rows[column.name].detach().to(at::kCPU).contiguous();
      column.file.to_end();  // a close() that failed has read it from the beginning
      column.file.put(bytes.data_ptr(), bytes.nbytes());
    }
    intact_ = true;
    rows_ += rows.size();
  }

  std::int64_t size() const { return rows_; }

  /// Completes the file. Throws config_error when nothing was pushed, io_error when the disk does
  /// not take it; `path` is then as it was.
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
            " bytes, not the ", bytes_of(column), " that were pushed; '", path_, "' is as it was"));
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
    std::vector<std::int64_t> row;  // shape
    detail::new_file file;
  };

  void check_intact() const {
    if (!intact_)
      throw io_error(detail::concat("file_writer: rows for '", path_,
                                    "' were written in part only: begin the file again"));
  }

  void begin(const transitions& rows) {
    if (rows.begin() == rows.end())
      throw config_error("file_writer: the first rows have no columns");
    std::vector<column_file> columns;
    for (const auto& [name, tensor] : rows) {
      if (name == detail::metadata_key)
        throw config_error(detail::concat("file_writer: a column cannot be called '", name,
                                          "', which is the format's own name"));
      if (detail::element_of(tensor.scalar_type()) == detail::scalar_types.size())
        throw config_error(detail::concat("file_writer: '", name, "' is ", tensor.dtype(),
                                          ", which has no place in the format"));
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
                                         ", the file's are ", detail::shape_text(row)));
      if (given.scalar_type() != type)
        throw state_error(detail::concat("file_writer: '", name, "' is ", given.dtype(),
                                         ", the file's is ", at::toString(type),
                                         ": convert it first"));
    }
    for (const auto& [name, tensor] : rows)
      if (std::none_of(columns_.begin(), columns_.end(),
                       [&, &key = name](const auto& known) { return known.name == key; }))
        throw config_error(
            detail::concat("file_writer: the rows have '", name, "', which the first had not"));
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
