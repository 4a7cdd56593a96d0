// SPDX-License-Identifier: MIT
// A state file as it lies on disk: its header read, its tensors' bytes mapped into memory and loaded when touched.
#pragma once

#include <retain/detail/checksum.hpp>
#include <retain/detail/state_file.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace retain::detail {

/// The bytes of a file, read-only, without reading them. They are gone with this object.
class file_mapping {
 public:
  explicit file_mapping(const std::string& path) {
#if defined(__unix__) || defined(__APPLE__)
    refuse_folder(path);
    const auto fail = [&](const char* what) { throw io_error(concat("cannot ", what, " '", path, "': ", std::strerror(errno))); };
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) fail("open");
    struct stat status {};
    void* mapped = nullptr;
    const bool known = ::fstat(file, &status) == 0;
    if (known && status.st_size > 0) mapped = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_SHARED, file, 0);
    const int reason = errno;
    ::close(file);  // the mapping stays
    errno = reason;
    if (!known || mapped == MAP_FAILED) fail("map");
    data_ = static_cast<const char*>(mapped);
    size_ = static_cast<std::uint64_t>(status.st_size);
#else
    throw io_error(concat("cannot map '", path, "': files are mapped on POSIX systems only; read it with retain::state::read instead"));
#endif
  }
  ~file_mapping() {
#if defined(__unix__) || defined(__APPLE__)
    if (data_) ::munmap(const_cast<char*>(data_), size_);
#endif
  }
  file_mapping(const file_mapping&) = delete;
  file_mapping& operator=(const file_mapping&) = delete;

  /// Rows will be asked for in no order: reading ahead would only push out what is in use.
  void expect_random_access() const {
#if defined(__unix__) || defined(__APPLE__)
    if (data_) ::posix_madvise(const_cast<char*>(data_), size_, POSIX_MADV_RANDOM);
#endif
  }

  const char* data() const { return data_; }
  std::uint64_t size() const { return size_; }

 private:
  const char* data_ = nullptr;
  std::uint64_t size_ = 0;
};

/// A tensor [n, ...] in a mapped file.
struct mapped_column {
  std::string name;
  at::ScalarType type = at::kFloat;
  std::vector<std::int64_t> shape;
  const char* data = nullptr;
};

/// A mapped state file with the columns found in its header.
struct mapped_state {
  file_mapping file;
  std::string checksum;
  std::vector<mapped_column> columns;

  /// Throws io_error as `read_state_file` does; the checksum is compared, and with it every byte read, only when `verify` is set.
  mapped_state(const std::string& path, bool verify) : file(path) {
    const auto damaged = [&](const char* what) { throw io_error(concat("'", path, "' is ", what, "; go back to an earlier copy of it")); };
    const std::string_view beginning(file.data(), std::min<std::uint64_t>(checksum_end, file.size()));
    check_beginning(path, beginning);
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), sizeof length);
    checksum = beginning.substr(sizeof length + state_head.size());
    if (length > file.size() - sizeof length || length < checksum_end - sizeof length)
      damaged("truncated or damaged (its header is longer than the file)");
    const std::uint64_t start = sizeof length + length;
    if (verify) {
      crc64 crc;
      crc.update(file.data(), sizeof length + state_head.size());
      crc.update(zero_checksum.data(), zero_checksum.size());
      crc.update(file.data() + checksum_end, file.size() - checksum_end);
      if (checksum_text(crc.value()) != checksum) damaged("truncated or damaged (its checksum does not match)");
    }
    read_header(path, std::string_view(file.data() + sizeof length, length), start);
    file.expect_random_access();
  }

 private:
  void read_header(const std::string& path, std::string_view header, std::uint64_t start) {
    header_reader json(header, path);
    json.each('{', '}', [&] {
      mapped_column column{json.string(), at::kFloat, {}, nullptr};
      json.expect(':');
      if (column.name == "__metadata__") {
        json.each('{', '}', [&] {
          const std::string key = json.string();
          json.expect(':');
          const std::string value = json.string();
          if (key == "retain.format" && std::atoi(value.c_str()) > state_format)
            throw io_error(concat("'", path, "' has format ", value, ", this version of retain reads up to ", state_format, ": install a newer one"));
        });
        return;
      }
      std::string dtype;
      std::vector<std::int64_t> offsets;
      json.each('{', '}', [&] {
        const std::string field = json.string();
        json.expect(':');
        if (field == "dtype")
          dtype = json.string();
        else if (field == "shape")
          json.each('[', ']', [&] { column.shape.push_back(json.integer()); });
        else if (field == "data_offsets")
          json.each('[', ']', [&] { offsets.push_back(json.integer()); });
        else
          json.fail();
      });
      const auto entry = std::find_if(dtype_names.begin(), dtype_names.end(), [&](const auto& known) { return known.name == dtype; });
      if (entry == dtype_names.end() || offsets.size() != 2 || offsets[1] < offsets[0]) json.fail();
      column.type = entry->type;
      auto bytes = static_cast<std::int64_t>(c10::elementSize(entry->type));
      for (const std::int64_t size : column.shape) {
        if (size > 0 && bytes > std::numeric_limits<std::int64_t>::max() / size) json.fail();
        bytes *= size;
      }
      if (bytes != offsets[1] - offsets[0]) json.fail();
      if (static_cast<std::uint64_t>(offsets[1]) > file.size() - start)
        throw io_error(concat("'", path, "' is truncated: '", column.name, "' ends ", static_cast<std::uint64_t>(offsets[1]) - (file.size() - start),
                              " bytes behind its end; go back to an earlier copy of it"));
      column.data = file.data() + start + offsets[0];
      columns.push_back(std::move(column));
    });
  }
};

/// Rows of a mapped tensor at `indices`, int64 [n] or [L, n]: only these are read. Copied byte by byte, since nothing aligns a tensor in the file.
inline at::Tensor gather_mapped(const mapped_column& column, const at::Tensor& indices) {
  if (indices.scalar_type() != at::kLong && indices.scalar_type() != at::kInt)
    throw config_error(concat("file_memory: indices are whole numbers, int64, got ", indices.dtype(), "; those of a mask are mask.nonzero().squeeze(1)"));
  std::vector<std::int64_t> shape(indices.sizes().begin(), indices.sizes().end());
  shape.insert(shape.end(), column.shape.begin() + 1, column.shape.end());
  at::Tensor rows = at::empty(shape, at::TensorOptions().dtype(column.type));
  const at::Tensor flat = indices.to(at::kCPU, at::kLong).contiguous();
  const auto* index = static_cast<const std::int64_t*>(flat.data_ptr());
  const std::size_t bytes = flat.numel() == 0 ? 0 : rows.nbytes() / static_cast<std::size_t>(flat.numel());
  auto* out = static_cast<char*>(rows.data_ptr());
  for (std::int64_t i = 0; i < flat.numel(); ++i, out += bytes) {
    if (index[i] < 0 || index[i] >= column.shape[0])
      throw config_error(concat("file_memory: the index ", index[i], " is not one of the ", column.shape[0], " rows of '", column.name, "'"));
    if (bytes > 0) std::memcpy(out, column.data + static_cast<std::size_t>(index[i]) * bytes, bytes);
  }
  return rows;
}

}  // namespace retain::detail
