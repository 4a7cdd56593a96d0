// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/self_movable.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/kernels/gather.hpp>

#include <ATen/ATen.h>

#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retain {

/// Named tensors with the same first dimension. Row i of all tensors is one item, for example a
/// transition.
///
///     const transitions batch{{"observation", o}, {"action", a}, {"reward", r}, {"next", n},
///                             {"terminated", e}};
///     batch["reward"]
///
/// Copies share the tensors. The class satisfies gatherable, so terms can use it as a memory.
class transitions {
 public:
  transitions() = default;
  transitions(std::initializer_list<named_tensor> columns)
      : transitions(std::vector<named_tensor>(columns)) {}

  /// Throws config_error if two columns have the same name, and shape_error if a column has no
  /// dimension or another number of rows.
  explicit transitions(std::vector<named_tensor> columns) : columns_(std::move(columns)) {
    std::set<std::string_view> names;
    for (const auto& [name, tensor] : columns_) {
      if (!names.insert(name).second)
        throw config_error(detail::concat("transitions: two columns are named '", name, "'"));
      if (!tensor.defined() || tensor.dim() == 0)
        throw shape_error(detail::concat(
            "transitions: '", name, "' needs the shape [n, ...], got ",
            tensor.defined() ? "a tensor without dimensions" : "an undefined tensor"));
      if (tensor.size(0) != size())
        throw shape_error(detail::concat(
            "transitions: '", name, "' has shape ", detail::shape_text(tensor.sizes()),
            ", but must have as many rows as '", columns_.front().name, "' ",
            detail::shape_text(columns_.front().tensor.sizes())));
    }
  }

  /// Returns a column. For a temporary, returns a tensor instead of a reference. Throws
  /// config_error if there is no such column.
  const at::Tensor& operator[](std::string_view name) const& {
    for (const auto& column : columns_)
      if (column.name == name) return column.tensor;
    std::string there;
    for (const auto& column : columns_)
      there += detail::concat(there.empty() ? "" : ", ", '\'', column.name, '\'');
    throw config_error(detail::concat("transitions: there is no column '", name, "', only ",
                                      there.empty() ? "an empty batch" : there));
  }

  at::Tensor operator[](std::string_view name) const&& { return (*this)[name]; }

  std::int64_t size() const { return columns_.empty() ? 0 : columns_.front().tensor.size(0); }
  /// Returns the device of the tensors, or the CPU if there are none.
  at::Device device() const {
    return columns_.empty() ? at::Device(at::kCPU) : columns_.front().tensor.device();
  }
  auto begin() const& { return columns_.begin(); }
  auto end() const& { return columns_.end(); }
  void begin() const&& = delete;  // a temporary's columns do not outlive the call
  void end() const&& = delete;

  /// Returns copies of the rows at `indices`, int64 [n] or [L, n].
  transitions gather(const at::Tensor& indices) const {
    return each([&](const at::Tensor& tensor) { return detail::gather_rows(tensor, indices); });
  }
  /// Returns views of the rows [start, start + length).
  transitions narrow(std::int64_t start, std::int64_t length) const {
    return each([&](const at::Tensor& tensor) { return tensor.narrow(0, start, length); });
  }

 private:
  template <class Function>
  transitions each(Function function) const {
    transitions result;
    for (const auto& [name, tensor] : columns_) result.columns_.push_back({name, function(tensor)});
    return result;
  }

  detail::self_movable<std::vector<named_tensor>> columns_;
};

}  // namespace retain
