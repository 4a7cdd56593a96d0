// SPDX-License-Identifier: MIT
// Computes sum_i scale_i * (sum F_i (theta_i - anchor_i)^2 + constant_i) and its gradient over a
// list of parameters. All weight-space penalties use this code. On the CPU and on NVIDIA GPUs, one
// pass reads theta, anchor and F and updates .grad; its speed is limited by the memory bandwidth.
// For other devices and for strided or sparse tensors, LibTorch's operations are used. This code
// never waits for a device.
#pragma once

#include <retain/kernels/cuda_quadratic.hpp>
#include <retain/kernels/plain_floats.hpp>
#include <retain/kernels/quadratic_loops.hpp>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace retain::detail {

/// One parameter of the penalty. An undefined `importance` means 1 for every weight.
struct quadratic_item {
  at::Tensor theta;
  at::Tensor anchor;
  at::Tensor importance;
  double scale = 1.0;
  double constant = 0.0;
};

/// Returns the type of the arithmetic for a parameter's type: double for double, else float.
inline at::ScalarType real_type(const at::Tensor& theta) {
  return theta.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// Whether a tensor's memory holds its numbers. False for a lazily negated tensor and for lazy
/// zeros.
inline bool in_memory(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && !tensor.is_neg() && !tensor._is_zerotensor();
}

/// Whether both tensors have the same memory order, so that a kernel can treat them as flat arrays.
inline bool flat_alike(const at::Tensor& a, const at::Tensor& b) {
  return in_memory(b) && b.device() == a.device() && a.strides() == b.strides();
}
inline bool fusible(const quadratic_item& item, const at::Tensor& gradient) {
  const auto type = item.theta.scalar_type();
  const bool known =
      type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
  const bool reduced = type == at::kHalf || type == at::kBFloat16;
  return known && in_memory(item.theta) && item.theta.is_non_overlapping_and_dense() &&
         flat_alike(item.theta, item.anchor) && item.anchor.scalar_type() == type &&
         (!item.importance.defined() ||
          (flat_alike(item.theta, item.importance) &&
           item.importance.scalar_type() == (reduced ? at::kFloat : type))) &&
         (!gradient.defined() ||
          (flat_alike(item.theta, gradient) && gradient.scalar_type() == type));
}

template <gradient_mode Mode, class T>
double fused_chunk(const quadratic_item& item, const at::Tensor& gradient, double factor,
                   std::int64_t from, std::int64_t count) {
  using importance_t = accumulate_t<T>;
  const T* theta = static_cast<const T*>(item.theta.data_ptr()) + from;
  const T* anchor = static_cast<const T*>(item.anchor.data_ptr()) + from;
  T* g = Mode == gradient_mode::none ? nullptr : static_cast<T*>(gradient.data_ptr()) + from;
  const auto f = static_cast<accumulate_t<T>>(factor * item.scale);
  if (item.importance.defined())
    return quadratic_kernel<true, Mode>(
        theta, anchor, static_cast<const importance_t*>(item.importance.data_ptr()) + from, g, f,
        count);
  return quadratic_kernel<false, Mode>(theta, anchor, static_cast<const importance_t*>(nullptr), g,
                                       f, count);
}

template <gradient_mode Mode>
double fused_chunk(const quadratic_item& item, const at::Tensor& gradient, double factor,
                   std::int64_t from, std::int64_t count) {
  switch (item.theta.scalar_type()) {
    case at::kDouble: return fused_chunk<Mode, double>(item, gradient, factor, from, count);
    case at::kHalf: return fused_chunk<Mode, at::Half>(item, gradient, factor, from, count);
    case at::kBFloat16: return fused_chunk<Mode, at::BFloat16>(item, gradient, factor, from, count);
    default: return fused_chunk<Mode, float>(item, gradient, factor, from, count);
  }
}

/// Processes one tensor with LibTorch's operations. The value stays on the device, in float64. Half
/// types are computed in float, as in the kernel, because an importance of 1e-8 would underflow in
/// a half type.
template <gradient_mode Mode>
at::Tensor unfused(const quadratic_item& item, at::Tensor& gradient, double factor) {
  const auto type = item.theta.scalar_type(), real = real_type(item.theta);
  const at::Tensor d = item.theta.detach().to(real) - item.anchor.to(real);
  const at::Tensor w = item.importance.defined() ? d * item.importance : d;
  if constexpr (Mode == gradient_mode::add) {
    if (gradient.layout() != at::kStrided) gradient = gradient.to_dense();
    if (type == real)
      gradient.add_(w, factor * item.scale);
    else
      gradient.add_((w * (factor * item.scale)).to(type));
  }
  if constexpr (Mode == gradient_mode::assign) gradient = (w * (factor * item.scale)).to(type);
  return at::mul(w, d).sum(at::kDouble) * item.scale;
}

#if RETAIN_HAS_CUDA_KERNELS
/// Processes tensors of one GPU and one type with the CUDA kernel. Returns an undefined tensor and
/// changes nothing if the kernel is not available.
template <gradient_mode Mode>
at::Tensor fused_on_cuda(const std::vector<quadratic_item>& items,
                         const std::vector<std::size_t>& which,
                         const std::vector<at::Tensor>& gradients, double factor) {
  std::vector<cuda_quadratic_tensor> tensors;
  for (const auto i : which) {
    const auto& item = items[i];
    tensors.push_back({item.theta.data_ptr(), item.anchor.data_ptr(),
                       item.importance.defined() ? item.importance.data_ptr() : nullptr,
                       Mode == gradient_mode::none ? nullptr : gradients[i].data_ptr(),
                       item.theta.numel(), item.scale, 0, 0});
  }
  const auto& first = items[which.front()].theta;
  return cuda_quadratic(std::move(tensors), first.scalar_type(), static_cast<int>(Mode), factor,
                        first.device());
}
#endif

/// Returns sum_i scale_i (sum F_i d_i^2 + constant_i) as a 0-dim float64 tensor. Depending on Mode,
/// factor * scale_i * F_i d_i is added to `gradients[i]` or assigned to it. After an addition, the
/// version counter of the gradient is incremented, as by an in-place operation. The order of the
/// sums does not depend on the number of threads.
template <gradient_mode Mode>
at::Tensor quadratic_pass(const std::vector<quadratic_item>& items,
                          std::vector<at::Tensor>& gradients, double factor) {
  struct chunk {
    std::size_t item;
    std::int64_t from, count;
  };
  constexpr std::int64_t chunk_size = 1 << 18;
  std::vector<chunk> chunks;
  std::vector<std::size_t> fused;
  at::Tensor elsewhere, none;
  const auto add_elsewhere = [&](const at::Tensor& value) {
    elsewhere = elsewhere.defined() ? elsewhere + value.to(elsewhere.device()) : value;
  };
  const auto gradient_of = [&](std::size_t i) -> at::Tensor& {
    return Mode == gradient_mode::none ? none : gradients[i];
  };
  const auto by_operations = [&](std::size_t i) {
    add_elsewhere(unfused<Mode>(items[i], gradient_of(i), factor));
  };
#if RETAIN_HAS_CUDA_KERNELS
  std::map<std::pair<c10::DeviceIndex, at::ScalarType>, std::vector<std::size_t>> on_gpus;
#endif
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto& theta = items[i].theta;
    const bool fits = fusible(items[i], gradient_of(i));
    if (fits && theta.device().is_cpu()) {
      fused.push_back(i);
      for (std::int64_t from = 0, n = theta.numel(); from < n; from += chunk_size)
        chunks.push_back({i, from, std::min(chunk_size, n - from)});
#if RETAIN_HAS_CUDA_KERNELS
    } else if (fits && theta.is_cuda()) {
      on_gpus[{theta.device().index(), theta.scalar_type()}].push_back(i);
#endif
    } else {
      by_operations(i);
    }
  }
#if RETAIN_HAS_CUDA_KERNELS
  for (const auto& [place, which] : on_gpus)
    if (const auto value = fused_on_cuda<Mode>(items, which, gradients, factor); value.defined()) {
      add_elsewhere(value);
      fused.insert(fused.end(), which.begin(), which.end());
    } else {
      std::for_each(which.begin(), which.end(), by_operations);
    }
#endif
  std::vector<double> partial(chunks.size());
  at::parallel_for(
      0, static_cast<std::int64_t>(chunks.size()), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t c = begin; c < end; ++c) {
          const auto& [i, from, count] = chunks[static_cast<std::size_t>(c)];
          partial[static_cast<std::size_t>(c)] =
              items[i].scale * fused_chunk<Mode>(items[i], gradient_of(i), factor, from, count);
        }
      });
  if constexpr (Mode == gradient_mode::add)
    for (const auto i : fused) written(gradients[i]);
  double sum = 0;
  for (const double value : partial) sum += value;
  for (const auto& item : items) sum += item.scale * item.constant;
  if (elsewhere.defined()) return sum == 0 ? elsewhere : elsewhere + sum;
  return at::scalar_tensor(sum, at::TensorOptions().dtype(at::kDouble));
}

}  // namespace retain::detail
