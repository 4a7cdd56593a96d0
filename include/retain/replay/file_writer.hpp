// SPDX-License-Identifier: MIT
#pragma once

#include <retain/detail/checksum.hpp>
#include <retain/detail/state_file.hpp>
#include <retain/replay/transitions.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace retain {

/// Writes transitions to a file that file_memory and retain::state read, chunk by chunk and never holding more than one:
///
///     file_writer out{"demonstrations.safetensors"};
///     while (...) out.push({{"observation", o}, {"logits", z}});
///     out.close();
///
/// Until `close`, `path` is as it was, and each column lies in a temporary file beside it; `close` joins them (so the disk holds
/// the rows twice for a while) and renames the result. A writer that is destroyed without it leaves nothing behind.
class file_writer {
 public:
  explicit file_writer(std::string path) : path_(std::move(path)) {}
  file_writer(file_writer&&) = default;
  file_writer& operator=(file_writer&&) = delete;

  /// Adds rows like those of the first push. Throws config_error for a missing or extra column, shape_error or state_error for one of another
  /// shape or type, io_error when the disk does not take them; then the file cannot be completed.
  void push(const transitions& rows) {
    if (closed_) throw config_error(detail::concat("file_writer: '", path_, "' is closed: rows come before close()"));
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

  /// Completes the file. Throws config_error when nothing was pushed, io_error when the disk does not take it; `path` is then as it was.
  void close() {
    if (closed_) throw config_error(detail::concat("file_writer: '", path_, "' is closed already"));
    if (columns_.empty()) throw config_error(detail::concat("file_writer: '", path_, "' would hold no columns: push rows first"));
    check_intact();
    for (auto& column : columns_) column.file.rewind();
    std::string text = header();
    const std::uint64_t length = text.size();
    temporary_file out(path_, "");
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
        throw io_error(detail::concat("file_writer: the temporary file of '", column.name, "' for '", path_, "' has ", copied, " bytes, not the ",
                                      bytes_of(column), " that were pushed; '", path_, "' is as it was"));
    }
    out.put_at(static_cast<long>(sizeof length + detail::state_head.size()), detail::checksum_text(crc.value()));
    out.rename();
    columns_.clear();
    closed_ = true;
  }

 private:
  /// A file beside `path` that is removed unless it is renamed to it.
  class temporary_file {
   public:
    temporary_file(const std::string& path, const std::string& suffix) : path_(path) {
      name_ = detail::temporary_name(path + suffix);
      file_.reset(std::fopen(name_.c_str(), "w+bx"));
      if (!file_) fail("create");
    }
    temporary_file(temporary_file&&) = default;
    temporary_file& operator=(temporary_file&&) = delete;
    ~temporary_file() {
      if (!file_) return;
      file_.reset();
      std::remove(name_.c_str());
    }

    void put(const void* data, std::size_t size) {
      if (size != 0 && std::fwrite(data, 1, size, file_.get()) != size) fail("write");
    }
    void put_at(long position, const std::string& text) {
      if (std::fseek(file_.get(), position, SEEK_SET) != 0) fail("write");
      put(text.data(), text.size());
    }
    std::size_t get(std::vector<char>& block) {
      const std::size_t got = std::fread(block.data(), 1, block.size(), file_.get());
      if (got == 0 && std::ferror(file_.get())) fail("read");
      return got;
    }
    void rewind() {
      if (std::fflush(file_.get()) != 0 || std::fseek(file_.get(), 0, SEEK_SET) != 0) fail("write");
    }
    void to_end() {
      if (std::fseek(file_.get(), 0, SEEK_END) != 0) fail("write");
    }
    void rename() {
      if (std::fflush(file_.get()) != 0) fail("write");
#if defined(__unix__) || defined(__APPLE__)
      if (::fsync(::fileno(file_.get())) != 0) fail("write");
#endif
      if (std::rename(name_.c_str(), path_.c_str()) != 0) fail("rename");
      file_.reset();
    }

   private:
    [[noreturn]] void fail(const char* what) const {
      throw io_error(detail::concat("cannot ", what, " '", name_, "': ", std::strerror(errno), "; '", path_, "' is as it was"));
    }
    struct closer {
      void operator()(std::FILE* file) const { std::fclose(file); }
    };
    std::string path_, name_;
    std::unique_ptr<std::FILE, closer> file_;
  };

  struct column_file {
    std::string name;
    at::ScalarType type;
    std::vector<std::int64_t> row;  // shape
    temporary_file file;
  };

  static std::string_view type_name(at::ScalarType type) {
    const auto* entry = std::find_if(detail::dtype_names.begin(), detail::dtype_names.end(), [&](const auto& known) { return known.type == type; });
    return entry == detail::dtype_names.end() ? std::string_view() : entry->name;
  }

  void check_intact() const {
    if (!intact_) throw io_error(detail::concat("file_writer: rows for '", path_, "' were written in part only: begin the file again"));
  }

  void begin(const transitions& rows) {
    if (rows.begin() == rows.end()) throw config_error("file_writer: the first rows have no columns");
    std::vector<column_file> columns;
    for (const auto& [name, tensor] : rows) {
      if (type_name(tensor.scalar_type()).empty())
        throw config_error(detail::concat("file_writer: '", name, "' is ", tensor.dtype(), ", which has no place in the format"));
      columns.push_back({name, tensor.scalar_type(), tensor.sizes().slice(1).vec(), temporary_file(path_, detail::concat(".", columns.size()))});
    }
    columns_ = std::move(columns);
  }

  void check(const transitions& rows) const {
    for (const auto& [name, type, row, file] : columns_) {
      const at::Tensor& given = rows[name];
      if (given.sizes().slice(1) != at::IntArrayRef(row))
        throw shape_error(detail::concat("file_writer: '", name, "' has rows of shape ", detail::shape_text(given.sizes().slice(1)), ", the file's are ",
                                         detail::shape_text(row)));
      if (given.scalar_type() != type)
        throw state_error(detail::concat("file_writer: '", name, "' is ", given.dtype(), ", the file's is ", at::toString(type), ": convert it first"));
    }
    for (const auto& [name, tensor] : rows)
      if (std::none_of(columns_.begin(), columns_.end(), [&, &key = name](const auto& known) { return known.name == key; }))
        throw config_error(detail::concat("file_writer: the rows have '", name, "', which the first had not"));
  }

  std::size_t bytes_of(const column_file& column) const {
    std::int64_t bytes = rows_ * static_cast<std::int64_t>(c10::elementSize(column.type));
    for (const std::int64_t size : column.row) bytes *= size;
    return static_cast<std::size_t>(bytes);
  }

  std::string header() const {
    std::string text = detail::concat(detail::state_head, detail::zero_checksum, "\",\"retain.format\":\"", detail::state_format, "\"}");
    std::size_t offset = 0;
    for (const auto& column : columns_) {
      text += detail::concat(',', detail::json_string(column.name), ":{\"dtype\":\"", type_name(column.type), "\",\"shape\":[", rows_);
      for (const std::int64_t size : column.row) text += detail::concat(',', size);
      text += detail::concat("],\"data_offsets\":[", offset, ',', offset + bytes_of(column), "]}");
      offset += bytes_of(column);
    }
    text += '}';
    text.append((8 - text.size() % 8) % 8, ' ');
    return text;
  }

  std::string path_;
  std::vector<column_file> columns_;
  std::int64_t rows_ = 0;
  bool closed_ = false, intact_ = true;
};

}  // namespace retain
