// SPDX-License-Identifier: MIT
// What the guard of attach() remembers: which penalty gradients are in `.grad`, and which penalties
// are attached to which parameters.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/variable.h>

#include <cstdint>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

namespace retain::detail {

/// Records the penalty gradient that the guard added to the `.grad` of one parameter. `stands`
/// returns whether this penalty gradient is still in `.grad`. This is the case if the parameter and
/// its storage have not changed since then, and if only backward passes have changed `.grad`.
/// Reading these values does not synchronize with a device.
class pull_record {
 public:
  /// Returns whether nothing has changed since the last call of `left`. `gradient` is `.grad`
  /// before the running backward pass adds to it.
  bool stands(const at::Tensor& theta, const at::Tensor& gradient) const {
    if (!added_ || !gradient.defined() || theta._version() != version_ ||
        theta.data_ptr() != storage_)
      return false;
    if (!followed_) return true;
    if (gradient.layout() != at::kStrided) return false;
    // a hook that runs after the guard's hook may have replaced the tensor
    if (gradient.data_ptr() != gradient_) return made_;
    return gradient._version() == gradient_version_;
  }

  /// Records what `.grad` will be after `incoming` has been added to `gradient`. If `gradient` is
  /// undefined, `incoming` itself becomes `.grad`. If `gradient` is defined, autograd adds to it in
  /// place. With create_graph, `.grad` becomes a new tensor; then only the parameter is tracked.
  void left(const at::Tensor& theta, const at::Tensor& gradient, const at::Tensor& incoming) {
    const at::Tensor& result = gradient.defined() ? gradient : incoming;
    added_ = true;
    version_ = theta._version();
    storage_ = theta.data_ptr();
    followed_ = !at::GradMode::is_enabled() && result.layout() == at::kStrided;
    if (!followed_) return;
    made_ = !gradient.defined();
    gradient_ = result.data_ptr();
    gradient_version_ = result._version() + (made_ ? 0 : 1);
  }

  void forget() { added_ = false; }

 private:
  bool added_ = false, followed_ = false, made_ = false;
  std::int64_t version_ = 0, gradient_version_ = 0;
  const void *storage_ = nullptr, *gradient_ = nullptr;
};

/// The pairs of a penalty and a parameter that a guard connects, so that no second guard adds the
/// same gradient again.
class guarded_pairs {
 public:
  using pair = std::pair<const void*, const at::TensorImpl*>;

  static bool add(const std::vector<pair>& pairs) {
    auto& known = instance();
    const std::lock_guard lock(known.mutex_);
    for (const auto& p : pairs)
      if (known.pairs_.count(p)) return false;
    known.pairs_.insert(pairs.begin(), pairs.end());
    return true;
  }
  static void remove(const std::vector<pair>& pairs) {
    auto& known = instance();
    const std::lock_guard lock(known.mutex_);
    for (const auto& p : pairs) known.pairs_.erase(p);
  }

 private:
  static guarded_pairs& instance() {
    // never destroyed, because a guard may be static and end later
    static auto& one = *new guarded_pairs;
    return one;
  }
  std::mutex mutex_;
  std::set<pair> pairs_;
};

/// Returns whether the current backward pass of this thread returns the gradient of `leaf` to its
/// caller, as autograd::grad does, instead of adding the gradient to `.grad`.
inline bool handed_out(const at::Tensor& leaf) {
  const auto* nodes = torch::autograd::get_current_graph_task_exec_info();
  if (!nodes || nodes->empty()) return false;
  const auto accumulator = torch::autograd::impl::try_get_grad_accumulator(leaf);
  if (!accumulator) return false;
  const auto found = nodes->find(accumulator.get());
  return found != nodes->end() && found->second.captures_ != nullptr;
}

}  // namespace retain::detail
