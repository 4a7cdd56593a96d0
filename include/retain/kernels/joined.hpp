// SPDX-License-Identifier: MIT
// Conditions for joining several operations in one node of the autograd graph.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace retain::detail {

/// While an object of this class exists, this thread's operations are separate nodes of the graph.
/// Code that walks the graph needs this.
class separate_nodes {
 public:
  separate_nodes() { ++living(); }
  ~separate_nodes() { --living(); }
  separate_nodes(const separate_nodes&) = delete;
  separate_nodes& operator=(const separate_nodes&) = delete;
  static bool wanted() { return living() > 0; }

 private:
  static int& living() {
    thread_local int count = 0;
    return count;
  }
};

/// Returns whether nothing in this thread intercepts single operations: no tracing, no autocasting
/// (which is on if its key is not excluded) and no transformation of functions.
inline bool unobserved() {
  const auto& keys = c10::impl::tls_local_dispatch_key_set();
  return (keys.included_ - c10::default_included_set).empty() &&
         (c10::default_excluded_set - keys.excluded_).empty();
}

/// Returns whether x may be an input of a joined node: x has no forward-mode derivative (LibTorch
/// has level 0 only), is strided, and was not made in inference mode if gradients are recorded.
inline bool fits_joined(const at::Tensor& x) {
  return x.defined() && x.layout() == at::kStrided && !x._fw_grad(0).defined() &&
         (!x.is_inference() || !at::GradMode::is_enabled());
}

/// Returns whether operations on x may be joined in one node: no separate_nodes object exists,
/// nothing intercepts single operations, and x fits. Check every input of the node, also the
/// weights: a custom node throws if an input has a forward-mode derivative, and a trace records the
/// node's result as a constant.
inline bool may_join(const at::Tensor& x) {
  return !separate_nodes::wanted() && unobserved() && fits_joined(x);
}

/// Returns whether operations on several tensors may be joined.
inline bool may_join_each(at::TensorList tensors) {
  if (separate_nodes::wanted() || !unobserved()) return false;
  for (const auto& tensor : tensors)
    if (!fits_joined(tensor)) return false;
  return true;
}

/// Like may_join_each(), for a node that sets its own types: autocasting may be on, because it does
/// not change them.
inline bool may_join_own_types(at::TensorList tensors) {
  const c10::impl::ExcludeDispatchKeyGuard not_for_autocasting(c10::default_excluded_set);
  return may_join_each(tensors);
}

}  // namespace retain::detail
