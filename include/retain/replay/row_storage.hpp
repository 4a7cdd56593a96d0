// SPDX-License-Identifier: MIT
// The rows of a memory with a fixed capacity. The memory decides which row goes to which slot.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/self_movable.hpp>
#include <retain/base/text.hpp>
#include <retain/core/checked.hpp>
#include <retain/core/state.hpp>
#include <retain/kernels/gather.hpp>
#include <retain/replay/transitions.hpp>

#include <ATen/ATen.h>
#include <c10/core/Storage.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace retain::detail {

/// Named tensors of `capacity` rows. They are allocated at the first put(), with the columns,
/// shapes and types of its rows. A copy and a saved state share the tensors until one of them
/// writes; the writer then makes its own copy.
class row_storage {
 public:
  row_storage(const char* owner, std::int64_t capacity, at::Device device)
      : owner_(owner), capacity_(capacity), device_(device) {}

  std::int64_t capacity() const { return capacity_; }

  /// Throws config_error if a column is missing or extra, shape_error if the shape of a row
  /// differs, and state_error if a type differs.
  void check(const transitions& rows) const {
    if (columns_.empty()) {
      if (rows.begin() == rows.end())
        throw config_error(concat(owner_, ": the first rows have no columns"));
      return;
    }
    for (const auto& [name, own] : columns_) {
      const at::Tensor* given = find(rows, name);
      if (!given)
        throw config_error(concat(owner_, ": the rows have no '", name, "' ",
                                  shape_text(own.sizes().slice(1)), ", which the memory keeps"));
      if (given->sizes().slice(1) != own.sizes().slice(1))
        throw shape_error(concat(owner_, ": '", name, "' has rows of shape ",
                                 shape_text(given->sizes().slice(1)), ", the memory keeps rows of ",
                                 shape_text(own.sizes().slice(1))));
      if (given->scalar_type() != own.scalar_type())
        throw state_error(concat(owner_, ": '", name, "' is ", given->dtype(),
                                 ", the memory keeps ", own.dtype(), ": convert it first"));
    }
    for (const auto& [name, given] : rows)
      if (!find(columns_, name))
        throw config_error(concat(owner_, ": the rows have '", name, "' ",
                                  shape_text(given.sizes().slice(1)),
                                  ", which the memory does not keep"));
  }

  /// Rows [row, row + length) of a batch, for the slots that begin at `slot`.
  struct run {
    std::int64_t slot, row, length;
  };
  /// Stores rows that `check` accepts. On any exception no column changes, because all memory is
  /// allocated before the first write. Throws config_error if there is not enough memory.
  void put(std::initializer_list<run> runs, const transitions& rows) {
    struct part {
      at::Tensor* to;
      std::int64_t slot;
      at::Tensor rows;
    };
    store(rows, [&] {
      std::vector<part> parts;
      const auto prepare = [&] {
        parts.reserve(columns_.size() * runs.size());
        for (auto& [name, tensor] : columns_)
          for (const auto& [slot, row, length] : runs) {
            if (length == 0) continue;
            const at::Tensor& all = rows[name];
            auto some = length == all.size(0) ? all : all.narrow(0, row, length);
            // A copy between devices first makes the rows contiguous, which may fail. Do this here,
            // before the first write.
            if (some.device() != tensor.device() && !some.is_contiguous())
              some = some.detach().contiguous();
            parts.push_back({&tensor, slot, std::move(some)});
          }
      };
      allocated(prepare, owner_, ": there is no room for a batch of ", rows.size(), " rows");
      for (auto& [to, slot, some] : parts) put_rows(*to, slot, some);
    });
  }
  /// Stores single rows: row `which[i]` goes to slot `slots[i]`. Both are int64 [m] on the CPU, and
  /// no slot appears twice.
  void put(const at::Tensor& slots, const transitions& rows, const at::Tensor& which) {
    struct part {
      at::Tensor* to;
      at::Tensor rows;  // all rows if a loop selects them, otherwise only the rows to store
      bool by_loop;
    };
    store(rows, [&] {
      if (slots.numel() == 0) return;
      at::Tensor places;
      std::vector<part> parts;
      const auto prepare = [&] {
        places = slots.to(device_);
        parts.reserve(columns_.size());
        for (auto& [name, tensor] : columns_) {
          const at::Tensor& all = rows[name];
          const bool by_loop = unobserved() && plain_rows(tensor) && plain_rows(all);
          parts.push_back(
              {&tensor, by_loop ? all : gather_rows(all.detach(), which).to(device_), by_loop});
        }
      };
      allocated(prepare, owner_, ": there is no room for a batch of ", rows.size(), " rows");
      for (const auto& [to, some, by_loop] : parts) {
        if (by_loop)
          copy_rows(*to, slots, some, which);
        else
          to->index_copy_(0, places, some);
      }
    });
  }

  /// Returns the rows at `indices` among the first `size` rows. Throws config_error if there are no
  /// rows, and LibTorch's error if an index is out of range.
  transitions gather(const at::Tensor& indices, std::int64_t size) const {
    if (columns_.empty()) throw config_error(concat(owner_, ": there are no rows to gather from"));
    std::vector<named_tensor> rows;
    for (const auto& [name, tensor] : columns_)
      rows.push_back({name, gather_rows(tensor, indices, size)});
    return transitions(std::move(rows));
  }

  /// Like `gather`, for valid indices. Throws config_error if the batch does not fit into memory.
  transitions draw(const at::Tensor& indices, std::int64_t size) const {
    return allocated([&] { return gather(indices, size); }, owner_,
                     ": there is no room for a batch of ", indices.numel(), " rows");
  }

  /// Saves the first `size` rows, as views.
  void save_state(state& out, const std::string& prefix, std::int64_t size) const {
    for (const auto& [name, tensor] : columns_) out.set(prefix + name, tensor.narrow(0, 0, size));
  }
  /// Returns the saved rows, for `assign`, and changes nothing. Throws state_error or shape_error
  /// if there are not `size` rows or if the columns differ.
  transitions saved(const state& in, const std::string& prefix, std::int64_t size) const {
    std::vector<named_tensor> columns;
    for (const auto& key : in.tensor_keys(prefix))
      columns.push_back({key.substr(prefix.size()), in.tensor(key)});
    transitions rows(std::move(columns));
    if (rows.size() != size || size > capacity_)
      throw state_error(concat(owner_, ": the state should have ", size, " rows, but has ",
                               rows.size(), ", for a capacity of ", capacity_,
                               ": it was saved from another memory"));
    if (rows.begin() != rows.end()) check_saved(prefix, [&] { check(rows); });
    return rows;
  }
  /// Replaces all rows by `rows`. On an exception nothing changes.
  void assign(const transitions& rows) {
    std::vector<named_tensor> fresh;
    for (const auto& [name, tensor] : rows) {
      fresh.push_back({name, allocate(name, tensor)});
      fresh.back().tensor.narrow(0, 0, rows.size()).copy_(tensor);
    }
    columns_ = std::move(fresh);
  }

 private:
  template <class Columns>
  static const at::Tensor* find(const Columns& columns, const std::string& name) {
    for (const auto& column : columns)
      if (column.name == name) return &column.tensor;
    return nullptr;
  }

  at::Tensor allocate(const std::string& name, const at::Tensor& like) const {
    auto shape = like.sizes().vec();
    shape[0] = capacity_;
    return allocated(
        [&] {
          return at::empty(shape, at::TensorOptions().dtype(like.scalar_type()).device(device_));
        },
        owner_, ": there is no room on ", device_, " for '", name, "' ", shape_text(shape),
        ": choose a smaller capacity");
  }

  /// Allocates the tensors, or copies them if they are shared.
  void own(const transitions& rows) {
    if (columns_.empty()) {
      std::vector<named_tensor> fresh;
      for (const auto& [name, tensor] : rows) fresh.push_back({name, allocate(name, tensor)});
      columns_ = std::move(fresh);
    }
    for (auto& [name, tensor] : columns_)
      if (tensor.use_count() > 1 || tensor.storage().use_count() > 1)
        tensor = allocated([&shared = tensor] { return shared.clone(); }, owner_,
                           ": there is no room on ", device_, " for a second '", name, '\'');
  }

  /// Runs `write` on tensors that are not shared. If `write` throws, releases tensors that were
  /// allocated for it.
  template <class Write>
  void store(const transitions& rows, Write write) {
    const bool first = columns_.empty();
    own(rows);
    try {
      write();
    } catch (...) {
      if (first) columns_.clear();
      throw;
    }
  }

  /// Copies rows without allocating memory; LibTorch's operations would allocate.
  static void copy_rows(const at::Tensor& to, const at::Tensor& slots, const at::Tensor& from,
                        const at::Tensor& which) {
    const auto bytes = bytes_of_row(from);
    const auto *slot = slots.data_ptr<std::int64_t>(), *row = which.data_ptr<std::int64_t>();
    auto* written_to = static_cast<char*>(to.data_ptr());
    const auto* read = static_cast<const char*>(from.data_ptr());
    for (std::int64_t i = 0; bytes > 0 && i < slots.numel(); ++i)
      std::memcpy(written_to + static_cast<std::size_t>(slot[i]) * bytes,
                  read + static_cast<std::size_t>(row[i]) * bytes, bytes);
    written(to);
  }

  const char* owner_;
  std::int64_t capacity_;
  at::Device device_;
  self_movable<std::vector<named_tensor>> columns_;
};

}  // namespace retain::detail
