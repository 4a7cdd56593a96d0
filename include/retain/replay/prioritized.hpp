// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/random.hpp>
#include <retain/core/state.hpp>
#include <retain/core/strength_schedule.hpp>
#include <retain/replay/sampler.hpp>
#include <retain/replay/sum_tree.hpp>

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>

namespace retain {

struct prioritized_options {
  double alpha = 0.6;  ///< exponent of the priorities: 0 is uniform, 1 is proportional
  /// how much of the bias the weights correct; the paper raises beta to 1 during training
  strength_schedule beta = 0.4;
  double epsilon = 1e-6;  ///< added to every priority, so that no priority is 0
  std::uint64_t seed = 0;
};

/// Prioritized experience replay, the proportional variant:
///
///     P(i) = p_i^alpha / sum_k p_k^alpha,   p_i = |delta_i| + epsilon
///     w_i = (N P(i))^-beta / max_j w_j
///
/// A batch of n items is stratified: the running sum of p^alpha is divided into n equal parts, and
/// one item is drawn from each part. max_j w_j is the weight of the least likely of all N items, so
/// the weights never increase a loss, and the weight of an item does not depend on the rest of its
/// batch. A new item gets the largest priority so far, so that it is likely to be drawn soon.
///
///     prioritized sampler{states.size(0),
///                         {.beta = linear{.initial = 0.4, .last = 1, .over = 1e6}}};
///     sampler.update(drawn.indices, errors);      // after learning from them
///     sampler.step(env_steps);                    // moves beta
///
/// A draw has indices [n] and weights [n]. A draw or an update costs O(log N) per item. The memory
/// is 32 bytes per item, and up to twice that while items are added. Sums are in double and do not
/// drift: see detail::sum_tree.
///
/// Paper: Schaul et al. 2016 (arXiv 1511.05952, section 3.3 and algorithm 1).
class prioritized {
 public:
  /// Starts with `size` items of equal priority. alpha and beta must be in [0, 1] and epsilon in
  /// [0, 1e300]. Throws config_error if an option is out of its range, or if the size is negative
  /// or does not fit into memory.
  explicit prioritized(std::int64_t size, prioritized_options options = {})
      : alpha_(options.alpha),
        epsilon_(options.epsilon),
        beta_(std::move(options.beta)),
        random_(options.seed) {
    detail::check_items("prioritized", size);
    if (!(alpha_ >= 0 && alpha_ <= 1))
      throw config_error(detail::concat("prioritized: alpha must be in [0, 1], got ", alpha_));
    if (!(epsilon_ >= 0 && epsilon_ <= most_priority))
      throw config_error(detail::concat("prioritized: epsilon must be in [0, ", most_priority,
                                        "], got ", epsilon_));
    check_beta(beta_.value());
    tree_ = detail::allocated([&] { return detail::sum_tree(size); },
                              "prioritized: there is no room for ", size, " items");
    tree_.fill(0, size_ = size, largest_);
  }

  /// Adds `count` new items at the end, with the largest priority so far. Throws config_error, and
  /// adds nothing, if the count is negative or does not fit into memory.
  void push(std::int64_t count) {
    if (count < 0) throw config_error(detail::concat("prioritized: cannot add ", count, " items"));
    detail::check_items("prioritized", size_, count);
    if (size_ + count > tree_.leaves())
      detail::allocated([&] { tree_.resize(std::max(size_ + count, 2 * tree_.leaves())); },
                        "prioritized: there is no room for ", count, " more items");
    tree_.fill(size_, count, largest_);
    size_ += count;
  }

  /// Sets new priorities, for example the magnitude of a TD error. `indices` is int64 [m],
  /// `priorities` is [m], not negative. If an item appears twice, its last priority counts. Throws
  /// shape_error if the shapes differ, and config_error if an index is out of range or a priority
  /// is outside [0, 1e300]. On an exception nothing changes.
  void update(const at::Tensor& indices, const at::Tensor& priorities) {
    const at::Tensor items = detail::checked_indices("prioritized", indices, size_);
    if (priorities.sizes() != indices.sizes())
      throw shape_error(detail::concat(
          "prioritized: priorities of shape ", detail::shape_text(priorities.sizes()),
          " for indices of shape ", detail::shape_text(indices.sizes())));
    const at::Tensor values = priorities.detach().to(at::kCPU, at::kDouble).contiguous();
    const auto* item = static_cast<const std::int64_t*>(items.data_ptr());
    const auto* value = static_cast<const double*>(values.data_ptr());
    for (std::int64_t i = 0; i < values.numel(); ++i)
      if (!(value[i] >= 0 && value[i] <= most_priority))
        throw config_error(detail::concat("prioritized: the priority of item ", item[i],
                                          " must be in [0, ", most_priority, "], got ", value[i]));
    for (std::int64_t i = 0; i < values.numel(); ++i) {
      const double mass = std::pow(value[i] + epsilon_, alpha_);
      tree_.set(item[i], mass);
      largest_ = std::max(largest_, mass);
    }
  }

  /// Draws n items. Throws config_error if there are no items, if no item has a priority above 0,
  /// if the sum of the priorities overflows a double, or if n does not fit into memory.
  drawn sample(std::int64_t n) {
    const double total = tree_.total();
    detail::check_draw("prioritized", n, total > 0 ? size_ : 0);
    if (!std::isfinite(total))
      throw config_error(
          "prioritized: the sum of the priorities overflows a double: scale them down");
    const detail::index_buffer indices("prioritized", n);
    const auto weights =
        detail::allocated([&] { return at::empty({n}, at::TensorOptions().dtype(at::kDouble)); },
                          "prioritized: there is no room for ", n, " weights");
    auto* weight = static_cast<double*>(weights.data_ptr());
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t item =
          tree_.find(total * ((static_cast<double>(i) + random_.real()) / static_cast<double>(n)));
      indices.data[i] = item;
      // (N P)^-beta divided by the largest weight, (N P_least)^-beta
      weight[i] = std::pow(tree_.least() / tree_.value(item), beta_.value());
    }
    return {indices.tensor, weights, {}, {}};
  }

  std::int64_t size() const { return size_; }
  /// Returns P(i) of each item, [N].
  at::Tensor probabilities() const {
    auto result = at::empty({size_}, at::TensorOptions().dtype(at::kDouble));
    auto* p = static_cast<double*>(result.data_ptr());
    for (std::int64_t i = 0; i < size_; ++i) p[i] = tree_.value(i) / tree_.total();
    return result;
  }

  double beta() const { return beta_.value(); }
  void step(double progress) {
    auto beta = beta_;
    beta.step(progress);
    check_beta(beta.value());
    beta_ = std::move(beta);
  }

  /// Saves the priorities, beta's schedule and the generator. The state does not hold alpha and
  /// epsilon; the caller sets them in the constructor.
  void save_state(state& out, const std::string& prefix) const {
    auto masses = at::empty({size_}, at::TensorOptions().dtype(at::kDouble));
    for (std::int64_t i = 0; i < size_; ++i)
      static_cast<double*>(masses.data_ptr())[i] = tree_.value(i);
    out.set(prefix + "masses", masses);
    // The rounding of the sums depends on the size of the tree, so the state holds the number of
    // leaves.
    out.set(prefix + "leaves", tree_.leaves());
    out.set(prefix + "largest", largest_);
    out.set(prefix + "random", random_.state());
    beta_.save_state(out, prefix + "beta.");
  }
  /// Throws state_error, and changes nothing, if the saved priorities are invalid or if beta has
  /// another schedule.
  void load_state(const state& in, const std::string& prefix) {
    const at::Tensor masses = detail::saved_list(in, prefix + "masses", at::kDouble);
    const auto leaves = in.integer(prefix + "leaves"), size = masses.numel();
    const double largest = in.number(prefix + "largest");
    detail::check_saved(prefix + "leaves", [&] { check_leaves(leaves, size); });
    // The first items have mass 1; later ones have the largest mass so far. So the largest is at
    // least 1.
    detail::check_saved(prefix + "largest",
                        [&] { check_mass("the largest", largest, 1, most_mass); });
    const auto* mass = static_cast<const double*>(masses.data_ptr());
    detail::check_saved(prefix + "masses", [&] {
      for (std::int64_t i = 0; i < size; ++i) check_mass("an item", mass[i], 0, largest);
    });
    detail::sum_tree tree(leaves);
    for (std::int64_t i = 0; i < size; ++i) tree.set(i, mass[i]);
    auto random = random_;
    random.set_state(in.integer<std::uint64_t>(prefix + "random"));
    auto beta = beta_;
    beta.load_state(in, prefix + "beta.");
    detail::check_saved(prefix + "beta.", [&] { check_beta(beta.value()); });
    tree_ = std::move(tree);
    size_ = size;
    largest_ = largest;
    random_ = random;
    beta_ = std::move(beta);
  }

 private:
  // most_mass is the bound of (priority + epsilon)^alpha, rounded up.
  static constexpr double most_priority = 1e300, most_mass = 1e301;

  /// The tree doubles its size when it is full.
  static void check_leaves(std::int64_t leaves, std::int64_t size) {
    if (leaves < size || leaves > 2 * size)
      throw config_error(detail::concat("prioritized: ", leaves, " places for ", size,
                                        " items, but there must be one to two places per item"));
  }
  static void check_mass(const char* whose, double mass, double least, double most) {
    if (!(mass >= least && mass <= most))
      throw config_error(detail::concat("prioritized: the mass of ", whose, " must be in [", least,
                                        ", ", most, "], got ", mass));
  }
  static void check_beta(double beta) {
    if (!(beta >= 0 && beta <= 1))
      throw config_error(detail::concat("prioritized: beta must be in [0, 1], got ", beta));
  }

  double alpha_, epsilon_;
  strength_schedule beta_;
  detail::splitmix64 random_;
  detail::sum_tree tree_;
  std::int64_t size_ = 0;
  double largest_ = 1;  // mass of the largest priority so far
};

}  // namespace retain
