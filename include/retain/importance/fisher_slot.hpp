// SPDX-License-Identifier: MIT
// One parameter of a diagonal Fisher: the sums over the samples so far, and how they were computed.
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
  batched,     ///< all samples of a batch at once, by the graph walk
  per_sample,  ///< one sample at a time
  unused,      ///< the policy's distributions do not depend on the parameter; its Fisher is 0
};

namespace detail {

inline const char* path_name(fisher_path path) {
  constexpr std::array names{"batched", "one sample at a time", "unused"};
  return names[static_cast<std::size_t>(path)];
}

struct fisher_settings {
  int sample_dimension = -1;
  bool walk = true;
  int verify = 1;
  std::int64_t memory = 64 << 20;
};

/// Converts a gradient for the sum of its squares: dense, in double for double and else in float.
inline at::Tensor widened(const at::Tensor& gradient) {
  return gradient.to_dense().to(gradient.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

/// Adds `value` to `total` in place. An undefined total becomes `value` itself, not a copy.
inline void add_to(at::Tensor& total, const at::Tensor& value) {
  total = total.defined() ? total.add_(value) : value;
}

/// One parameter of a diagonal Fisher, and the sums for its mean.
struct fisher_slot {
  std::string name;
  at::Tensor parameter;
  // `last`: the sum over the last batch. `before`: the sum over earlier batches, in double.
  at::Tensor last = {}, before = {};
  // The order of rows for each layout in which it matters. Set when a batch has determined it.
  std::map<std::vector<std::int64_t>, row_order> orders = {};
  bool checked = false;  // the walk agreed in a batch of several samples with one row each
  bool walkable = true;
  bool reached = false;
  std::int64_t walked = 0, looped = 0;  // samples

  /// Adds the sum over a batch, or over a part of one. The sums are added in double. In
  /// float, a new sum would be lost in the total of some millions of states.
  void add_batch(const at::Tensor& sum) {
    if (last.defined()) before = before.defined() ? before.add_(last) : last.to(at::kDouble);
    last = sum;
  }
  /// Returns the mean over `states`, in double for a double parameter and else in float.
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
