// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/self_movable.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace retain::detail {

/// A binary tree over values that are not negative. It finds the sum of all values, the smallest
/// value above 0, and the leaf at a given position of the running sum. An update or a search costs
/// O(log n). An inner node is always recomputed from its two children, never changed by a
/// difference. Therefore the sums do not drift and do not depend on the order of the updates.
class sum_tree {
 public:
  explicit sum_tree(std::int64_t leaves = 0)
      : leaves_(static_cast<std::size_t>(leaves)), nodes_(2 * leaves_) {}

  /// Changes the number of leaves. New leaves hold 0.
  void resize(std::int64_t leaves) {
    sum_tree grown(leaves);
    std::copy(nodes_.begin() + static_cast<std::ptrdiff_t>(leaves_), nodes_.end(),
              grown.nodes_.begin() + leaves);
    for (std::size_t i = grown.leaves_; i-- > 1;) grown.recompute(i);
    *this = std::move(grown);
  }

  void set(std::int64_t leaf, double value) {
    std::size_t i = leaves_ + static_cast<std::size_t>(leaf);
    nodes_[i] = {value, value > 0 ? value : none};
    while ((i /= 2) > 0) recompute(i);
  }
  /// Sets the leaves [first, first + count) to `value`, in O(count + log n).
  void fill(std::int64_t first, std::int64_t count, double value) {
    std::size_t low = leaves_ + static_cast<std::size_t>(first),
                high = low + static_cast<std::size_t>(count);
    for (std::size_t i = low; i < high; ++i) nodes_[i] = {value, value > 0 ? value : none};
    // Recompute one level at a time, from right to left, because the leaves may lie in two levels.
    while (high > 2) {
      low = std::max<std::size_t>(1, low / 2);
      high = (high + 1) / 2;
      for (std::size_t i = high; i-- > low;) recompute(i);
    }
  }

  std::int64_t leaves() const { return static_cast<std::int64_t>(leaves_); }
  double value(std::int64_t leaf) const {
    return nodes_[leaves_ + static_cast<std::size_t>(leaf)].sum;
  }
  double total() const { return leaves_ == 0 ? 0.0 : nodes_[1].sum; }
  double least() const { return leaves_ == 0 ? none : nodes_[1].least; }

  /// Returns the leaf whose part of the running sum contains `mass`, in [0, total). Never returns a
  /// leaf of value 0, unless all values are 0.
  std::int64_t find(double mass) const {
    std::size_t i = 1;
    while (i < leaves_) {
      const double left = nodes_[2 * i].sum, right = nodes_[2 * i + 1].sum;
      if (mass < left || !(right > 0)) {
        i = 2 * i;
      } else {
        mass -= left;
        i = 2 * i + 1;
      }
    }
    return static_cast<std::int64_t>(i - leaves_);
  }

 private:
  static constexpr double none = std::numeric_limits<double>::infinity();
  struct node {
    double sum = 0, least = none;
  };
  void recompute(std::size_t i) {
    const node &left = nodes_[2 * i], &right = nodes_[2 * i + 1];
    nodes_[i] = {left.sum + right.sum, std::min(left.least, right.least)};
  }

  std::size_t leaves_;
  // node i has the children 2i and 2i + 1; leaf k is node leaves + k
  self_movable<std::vector<node>> nodes_;
};

}  // namespace retain::detail
