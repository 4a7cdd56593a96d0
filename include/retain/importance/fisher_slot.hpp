// SPDX-License-Identifier: MIT
// What a diagonal Fisher is of: a parameter, the sums over samples so far, and how they were made.
#pragma once

#include <retain/importance/per_sample_squares.hpp>

#include <ATen/ATen.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace retain {

/// How a parameter's Fisher was computed.
enum class fisher_path {
  graph_walk,  ///< all samples of a batch at once
  per_sample,  ///< one sample at a time
  unused,      ///< the policy's distributions do not depend on it: 0
};

namespace detail {

inline const char* path_name(fisher_path path) {
  constexpr std::array names{"graph walk", "one sample at a time", "unused"};
  return names[static_cast<std::size_t>(path)];
}

struct fisher_settings {
  int sample_dimension = -1;
  bool walk = true;
  int verify = 1;
  std::int64_t memory = 64 << 20;
};

/// A gradient as its square is summed: dense, in float, or in double for double.
inline at::Tensor widened(const at::Tensor& gradient) {
  return gradient.to_dense().to(gradient.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

/// total += value, in place; an undefined total becomes the value itself.
inline void add_to(at::Tensor& total, const at::Tensor& value) {
  total = total.defined() ? total.add_(value) : value;
}

/// One parameter of a diagonal Fisher, and the sums that its mean is made of.
struct fisher_slot {
  std::string name;
  at::Tensor parameter;
  // sums over the last batch, and in double over those before it
  at::Tensor last = {}, before = {};
  // by layout, of batches where it matters; set once a batch has decided it
  std::map<std::vector<std::int64_t>, row_order> orders = {};
  bool checked = false;  // a batch of several samples with one row each has agreed
  bool walkable = true;
  bool reached = false;
  std::int64_t walked = 0, looped = 0;  // samples

  /// Sums over batches, or parts of them, are added in double: a float total would lose what one
  /// adds to that of some millions of states.
  void add_batch(const at::Tensor& sum) {
    if (last.defined()) before = before.defined() ? before.add_(last) : last.to(at::kDouble);
    last = sum;
  }
  /// In float, or in double for a double parameter.
  at::Tensor mean(const at::Tensor& states) const {
    const auto type = parameter.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    if (!last.defined())
      return at::zeros_like(parameter, parameter.options().dtype(type).requires_grad(false));
    const at::Tensor sum = before.defined() ? before + last : last;
    return (sum / states.to(sum.options())).to(type);
  }
};

}  // namespace detail
}  // namespace retain
