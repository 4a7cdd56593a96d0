// SPDX-License-Identifier: MIT
// KL(p || q) between rows of float32 logits and its gradient on an NVIDIA GPU: one kernel forward
// and one backward, with one warp per row. See categorical_kl.hpp for the formulas. LibTorch's
// operations queue a dozen kernels for this, and at the sizes of policies the queueing takes most
// of the time.
#pragma once

#include <retain/kernels/cuda_kernel.hpp>

#if RETAIN_HAS_CUDA_KERNELS

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <cstdint>
#include <limits>

namespace retain::detail {

/// The kernels' parameter: logits [rows, actions], the five stored numbers of each row (kl_row),
/// and the divergence of each row. For the backward pass also: the incoming gradient of each row,
/// at distances of `incoming_step` numbers, and the addresses of the gradients, null for a gradient
/// that is not needed.
struct cuda_kl_arguments {
  const float *p, *q;
  float *kept, *divergences;
  const float* incoming;
  float *gradient_p, *gradient_q;
  std::int64_t rows, actions, incoming_step;
};

inline constexpr const char* cuda_kl_source = R"cuda(
struct arguments {
  const float *p, *q;
  float *kept, *divergences;
  const float* incoming;
  float *gradient_p, *gradient_q;
  long long rows, actions, incoming_step;
};

__device__ inline float largest(float x) {
  for (int apart = 16; apart > 0; apart /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, apart));
  return x;
}
__device__ inline float sum(float x) {
  for (int apart = 16; apart > 0; apart /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, apart);
  return x;
}

extern "C" __global__ void kl_forward(const arguments all) {
  const long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= all.rows) return;
  const float* __restrict__ p = all.p + row * all.actions;
  const float* __restrict__ q = all.q + row * all.actions;
  const int lane = threadIdx.x % 32, actions = (int)all.actions;
  float top_p = __int_as_float(0xFF800000), top_q = top_p;  // minus infinity
#pragma unroll 4
  for (int a = lane; a < actions; a += 32) {
    top_p = fmaxf(top_p, p[a]);
    top_q = fmaxf(top_q, q[a]);
  }
  top_p = largest(top_p);
  top_q = largest(top_q);
  float sum_p = 0, sum_q = 0, product = 0;
#pragma unroll 4
  for (int a = lane; a < actions; a += 32) {
    const float x = p[a] - top_p, y = q[a] - top_q, of_p = expf(x);
    sum_p += of_p;
    sum_q += expf(y);
    if (of_p != 0) product += of_p * (x - y);  // 0 (log 0 - ...) is 0
  }
  sum_p = sum(sum_p);
  sum_q = sum(sum_q);
  product = sum(product);
  if (lane > 0) return;
  const float log_p = logf(sum_p), log_q = logf(sum_q), divergence = product / sum_p - (log_p - log_q);
  float* kept = all.kept + 5 * row;
  kept[0] = top_p;
  kept[1] = log_p;
  kept[2] = top_q;
  kept[3] = log_q;
  kept[4] = divergence;
  all.divergences[row] = divergence;
}

extern "C" __global__ void kl_backward(const arguments all) {
  const long long row = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= all.rows) return;
  const float* __restrict__ p = all.p + row * all.actions;
  const float* __restrict__ q = all.q + row * all.actions;
  float* __restrict__ gradient_p = all.gradient_p ? all.gradient_p + row * all.actions : nullptr;
  float* __restrict__ gradient_q = all.gradient_q ? all.gradient_q + row * all.actions : nullptr;
  const float* kept = all.kept + 5 * row;
  const float top_p = kept[0], log_p = kept[1], top_q = kept[2], log_q = kept[3], divergence = kept[4];
  const float scale = all.incoming[row * all.incoming_step];
  const int actions = (int)all.actions;
#pragma unroll 4
  for (int a = threadIdx.x % 32; a < actions; a += 32) {
    const float x = p[a] - top_p - log_p, y = q[a] - top_q - log_q, of_p = expf(x);
    if (gradient_q) gradient_q[a] = scale * (expf(y) - of_p);
    if (gradient_p) gradient_p[a] = of_p != 0 ? scale * (of_p * (x - y - divergence)) : 0;
  }
}
)cuda";

/// Returns whether the kernels support logits with this number of actions on this device.
inline bool has_cuda_kl(std::int64_t actions, at::Device device) {
  const c10::DeviceGuard on(device);
  return actions <= std::numeric_limits<std::int32_t>::max() && tells_cuda_stream(device) &&
         cuda_kernel(cuda_kl_source, "kl_forward", {}, device) != nullptr &&
         cuda_kernel(cuda_kl_source, "kl_backward", {}, device) != nullptr;
}

/// Queues "kl_forward" or "kl_backward". Requires has_cuda_kl().
inline void cuda_kl(const char* which, const cuda_kl_arguments& arguments, at::Device device) {
  const c10::DeviceGuard on(device);
  constexpr std::int64_t rows_a_block = 4;
  launch_cuda(cuda_kernel(cuda_kl_source, which, {}, device),
              (arguments.rows + rows_a_block - 1) / rows_a_block, 32 * rows_a_block, arguments,
              device);
}

}  // namespace retain::detail

#endif  // RETAIN_HAS_CUDA_KERNELS
