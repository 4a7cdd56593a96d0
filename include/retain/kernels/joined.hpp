// SPDX-License-Identifier: MIT
// Where several operations may stand in the autograd graph as one node.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace retain::detail {

/// While one lives, this thread's operations stand in the graph one by one: for those who walk it.
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

/// Whether nobody listens to each operation of this thread: tracing, autocasting (which is on where
/// its key is not excluded) or a transformation of functions.
inline bool unobserved() {
  const auto& keys = c10::impl::tls_local_dispatch_key_set();
  return (keys.included_ - c10::default_included_set).empty() &&
         (c10::default_excluded_set - keys.excluded_).empty();
}

/// Whether x fits a joined node: it has no forward-mode derivative (of which LibTorch keeps level 0
/// only), is strided, and was not made in inference mode if a graph is to hold it.
inline bool fits_joined(const at::Tensor& x) {
  return x.defined() && x.layout() == at::kStrided && !x._fw_grad(0).defined() &&
         (!x.is_inference() || !at::GradMode::is_enabled());
}

/// Whether operations on x may be joined: nobody walks their graph or listens to each, and x fits.
/// Asked of every tensor that goes into the node, weights too: a custom node throws where one of
/// its inputs has a forward-mode derivative, and a trace keeps what it answers as a constant.
inline bool may_join(const at::Tensor& x) {
  return !separate_nodes::wanted() && unobserved() && fits_joined(x);
}

/// The same of several tensors.
inline bool may_join_each(at::TensorList tensors) {
  if (separate_nodes::wanted() || !unobserved()) return false;
  for (const auto& tensor : tensors)
    if (!fits_joined(tensor)) return false;
  return true;
}

/// The same for a node that sets its own types: autocasting may be on, and has nothing to cast
/// there.
inline bool may_join_own_types(at::TensorList tensors) {
  const c10::impl::ExcludeDispatchKeyGuard not_for_autocasting(c10::default_excluded_set);
  return may_join_each(tensors);
}

}  // namespace retain::detail
