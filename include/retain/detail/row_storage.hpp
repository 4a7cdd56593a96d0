// SPDX-License-Identifier: MIT
// The rows that a memory of fixed capacity keeps, and which row goes where is the memory's to say.
#pragma once

#include <retain/detail/gather.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>
#include <retain/replay/transitions.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>
#include <c10/core/Storage.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace retain::detail {

/// Named tensors of `capacity` rows, made when the first rows arrive and like those. A copy, and a state that was saved, share the tensors
/// until one side writes: then the writer takes its own.
class row_storage {
 public:
  row_storage(const char* owner, std::int64_t capacity, at::Device device) : owner_(owner), capacity_(capacity), device_(device) {}

  std::int64_t capacity() const { return capacity_; }

  /// Throws config_error for a missing or extra column, shape_error for rows of another shape, state_error for another type.
  void check(const transitions& rows) const {
    if (columns_.empty()) {
      if (rows.begin() == rows.end()) throw config_error(concat(owner_, ": the first rows have no columns"));
      return;
    }
    for (const auto& [name, own] : columns_) {
      const at::Tensor* given = find(rows, name);
      if (!given) throw config_error(concat(owner_, ": the rows have no '", name, "' ", shape_text(own.sizes().slice(1)), ", which the memory keeps"));
      if (given->sizes().slice(1) != own.sizes().slice(1))
        throw shape_error(concat(owner_, ": '", name, "' has rows of shape ", shape_text(given->sizes().slice(1)), ", the memory keeps rows of ",
                                 shape_text(own.sizes().slice(1))));
      if (given->scalar_type() != own.scalar_type())
        throw state_error(concat(owner_, ": '", name, "' is ", given->dtype(), ", the memory keeps ", own.dtype(), ": convert it first"));
    }
    for (const auto& [name, given] : rows)
      if (!find(columns_, name))
        throw config_error(concat(owner_, ": the rows have '", name, "' ", shape_text(given.sizes().slice(1)), ", which the memory does not keep"));
  }

  /// Row i of `rows` goes to slot start + i.
  void put(std::int64_t start, const transitions& rows) {
    own(rows);
    if (rows.size() == 0) return;
    for (auto& [name, tensor] : columns_) put_rows(tensor, start, rows[name]);
  }
  /// Row `which[i]` of `rows` goes to slot `slots[i]`; int64 [m] both, no slot twice.
  void put(const at::Tensor& slots, const transitions& rows, const at::Tensor& which) {
    own(rows);
    if (slots.numel() == 0) return;
    for (auto& [name, tensor] : columns_)
      tensor.index_copy_(0, slots.to(device_), gather_rows(rows[name].detach(), which).to(device_));
  }

  /// Of the first `size` rows. Throws config_error when there are none, LibTorch's error for an index beyond them.
  transitions gather(const at::Tensor& indices, std::int64_t size) const {
    if (columns_.empty()) throw config_error(concat(owner_, ": there are no rows to gather from"));
    std::vector<named_tensor> rows;
    for (const auto& [name, tensor] : columns_) rows.push_back({name, gather_rows(tensor, indices, size)});
    return transitions(std::move(rows));
  }

  /// The first `size` rows, as views.
  void save_state(state& out, const std::string& prefix, std::int64_t size) const {
    for (const auto& [name, tensor] : columns_) out.set(prefix + name, tensor.narrow(0, 0, size));
  }
  /// What was saved, for `assign`: nothing changes yet. Throws when it has not `size` rows, or not of the columns that there are.
  transitions saved(const state& in, const std::string& prefix, std::int64_t size) const {
    std::vector<named_tensor> columns;
    for (const auto& key : in.tensor_keys(prefix)) columns.push_back({key.substr(prefix.size()), in.tensor(key)});
    transitions rows(std::move(columns));
    if (rows.size() != size || size > capacity_)
      throw state_error(concat(owner_, ": the state says ", size, " rows and holds ", rows.size(), ", for a memory of ", capacity_,
                               ": it was saved from another one"));
    if (size > 0) check(rows);
    return rows;
  }
  void assign(const transitions& rows) {
    std::vector<named_tensor> fresh;
    for (const auto& [name, tensor] : rows) {
      fresh.push_back({name, allocate(tensor)});
      fresh.back().tensor.narrow(0, 0, rows.size()).copy_(tensor);
    }
    if (!fresh.empty()) columns_ = std::move(fresh);
  }

 private:
  template <class Columns>
  static const at::Tensor* find(const Columns& columns, const std::string& name) {
    for (const auto& column : columns)
      if (column.name == name) return &column.tensor;
    return nullptr;
  }

  at::Tensor allocate(const at::Tensor& like) const {
    auto shape = like.sizes().vec();
    shape[0] = capacity_;
    return at::empty(shape, at::TensorOptions().dtype(like.scalar_type()).device(device_));
  }

  /// Makes the tensors, or takes ours from those who share them.
  void own(const transitions& rows) {
    if (columns_.empty())
      for (const auto& [name, tensor] : rows) columns_.push_back({name, allocate(tensor)});
    for (auto& [name, tensor] : columns_)
      if (tensor.use_count() > 1 || tensor.storage().use_count() > 1) tensor = tensor.clone();
  }

  const char* owner_;
  std::int64_t capacity_;
  at::Device device_;
  std::vector<named_tensor> columns_;
};

}  // namespace retain::detail
