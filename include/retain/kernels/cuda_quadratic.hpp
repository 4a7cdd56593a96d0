// SPDX-License-Identifier: MIT
// sum_i scale_i sum F_i d_i^2 with d_i = theta_i - anchor_i, and factor * scale_i * F_i d_i into
// the gradients, on an NVIDIA GPU. One pass over theta, anchor, F and the gradient handles all
// tensors, up to 72 per launch, and is bound by memory bandwidth. Blocks of 8192 elements are
// summed in float (in double for double), and their sums in double. The order of the sums is fixed.
#pragma once

#include <retain/kernels/cuda_kernel.hpp>

#if RETAIN_HAS_CUDA_KERNELS

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace retain::detail {

/// A tensor in the kernel's parameter. `importance` is null if every weight counts 1.
struct cuda_quadratic_tensor {
  const void *theta, *anchor, *importance;
  void* gradient;
  std::int64_t count;
  double scale;
  std::uint32_t first_block, aligned;
};

struct cuda_quadratic_arguments {
  static constexpr int most = 72;  // fits into the 4096 bytes of a kernel's parameters
  double* partial;
  double factor;
  std::int32_t count;
  cuda_quadratic_tensor tensors[most];
};

inline constexpr std::int64_t cuda_quadratic_chunk = 8192;
inline constexpr unsigned cuda_quadratic_threads = 256;

/// The source. Compile it with -Dnumber=<type of theta>, -Dreal=<type of F and of the arithmetic>
/// and -Dgradient_mode=<0 none, 1 add, 2 assign>.
inline constexpr const char* cuda_quadratic_source = R"cuda(
struct float16 { unsigned short bits; };
struct bfloat16 { unsigned short bits; };

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(bfloat16 x) { return __uint_as_float((unsigned)x.bits << 16); }
__device__ inline float widen(float16 x) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
  return wide;
}
__device__ inline void narrow(float x, float& to) { to = x; }
__device__ inline void narrow(double x, double& to) { to = x; }
__device__ inline void narrow(float x, float16& to) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }
__device__ inline void narrow(float x, bfloat16& to) {
  const unsigned bits = __float_as_uint(x);
  to.bits = x != x ? 0x7FC0 : (unsigned short)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

struct tensor {
  const number *theta, *anchor;
  const real* importance;
  number* gradient;
  long long count;
  double scale;
  unsigned first_block, aligned;
};
struct arguments {
  double* partial;
  double factor;
  int count;
  tensor tensors[72];
};

constexpr int chunk = 8192, threads = 256, width = 16 / sizeof(number);
struct alignas(16) numbers { number at[width]; };
struct alignas(16) reals { real at[width]; };

template <bool has_importance>
__device__ inline real step(number theta, number anchor, real importance, real pull, number& gradient) {
  const real d = widen(theta) - widen(anchor);
  const real w = has_importance ? d * importance : d;
  if (gradient_mode == 1) narrow(widen(gradient) + pull * w, gradient);
  if (gradient_mode == 2) narrow(pull * w, gradient);
  return w * d;
}

template <bool has_importance>
__device__ inline real walk(const number* __restrict__ theta, const number* __restrict__ anchor, const real* __restrict__ importance,
                            number* __restrict__ gradient, real pull, int count, bool whole) {
  real sum = 0;
  if (whole) {
#pragma unroll 4
    for (int i = threadIdx.x * width; i < chunk; i += threads * width) {
      const numbers a = *(const numbers*)(theta + i), b = *(const numbers*)(anchor + i);
      reals f;
      numbers g;
      if (has_importance) f = *(const reals*)(importance + i);
      if (gradient_mode == 1) g = *(const numbers*)(gradient + i);
#pragma unroll
      for (int k = 0; k < width; ++k) sum += step<has_importance>(a.at[k], b.at[k], has_importance ? f.at[k] : real(1), pull, g.at[k]);
      if (gradient_mode != 0) *(numbers*)(gradient + i) = g;
    }
  } else {
    for (int i = threadIdx.x; i < count; i += threads) {
      number g;
      if (gradient_mode == 1) g = gradient[i];
      sum += step<has_importance>(theta[i], anchor[i], has_importance ? importance[i] : real(1), pull, g);
      if (gradient_mode != 0) gradient[i] = g;
    }
  }
  return sum;
}

extern "C" __global__ void __launch_bounds__(threads) quadratic(const arguments all) {
  int mine = 0;
  // the last tensor that begins at this block or before it
  for (int high = all.count - 1; mine < high;) {
    const int middle = (mine + high + 1) / 2;
    if (all.tensors[middle].first_block <= blockIdx.x) mine = middle;
    else high = middle - 1;
  }
  const long long from = (long long)(blockIdx.x - all.tensors[mine].first_block) * chunk, left = all.tensors[mine].count - from;
  const int count = left < chunk ? (int)left : chunk;
  const double scale = all.tensors[mine].scale;
  const real pull = (real)(all.factor * scale);
  const bool whole = all.tensors[mine].aligned && count == chunk;
  const number *theta = all.tensors[mine].theta + from, *anchor = all.tensors[mine].anchor + from;
  number* gradient = gradient_mode != 0 ? all.tensors[mine].gradient + from : nullptr;
  const real* importance = all.tensors[mine].importance;
  double sum = importance ? walk<true>(theta, anchor, importance + from, gradient, pull, count, whole)
                          : walk<false>(theta, anchor, nullptr, gradient, pull, count, whole);

  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xFFFFFFFFu, sum, offset);
  __shared__ double warps[threads / 32];
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < threads / 32; ++w) sum += warps[w];
    all.partial[blockIdx.x] = scale * sum;
  }
}
)cuda";

inline std::int64_t blocks_for_cuda(std::int64_t count) {
  return (count + cuda_quadratic_chunk - 1) / cuda_quadratic_chunk;
}

/// Returns whether the kernel can read 16 bytes at a time.
inline bool aligned_for_cuda(const cuda_quadratic_tensor& t) {
  const auto address = [](const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer);
  };
  return (address(t.theta) | address(t.anchor) | address(t.importance) | address(t.gradient)) %
             16 ==
         0;
}

/// Queues the kernel and returns the sum, on the device, as a 0-dim float64 tensor. `mode` is 0 for
/// none, 1 for add, 2 for assign. Returns an undefined tensor and does nothing if the kernel is not
/// available. This function sets `first_block` and `aligned` of the tensors.
inline at::Tensor cuda_quadratic(std::vector<cuda_quadratic_tensor> tensors, at::ScalarType type,
                                 int mode, double factor, at::Device device) {
  const c10::DeviceGuard on(device);
  const std::string number = type == at::kDouble     ? "double"
                             : type == at::kHalf     ? "float16"
                             : type == at::kBFloat16 ? "bfloat16"
                                                     : "float";
  const auto kernel =
      cuda_kernel(cuda_quadratic_source, "quadratic",
                  {"-Dnumber=" + number, type == at::kDouble ? "-Dreal=double" : "-Dreal=float",
                   "-Dgradient_mode=" + std::to_string(mode)},
                  device);
  if (kernel == nullptr || !tells_cuda_stream(device)) return {};

  std::int64_t blocks = 0;
  for (const auto& t : tensors) blocks += blocks_for_cuda(t.count);
  const auto partial = at::empty({blocks}, at::TensorOptions().dtype(at::kDouble).device(device));
  auto* next_partial = static_cast<double*>(partial.data_ptr());
  for (std::size_t from = 0; from < tensors.size(); from += cuda_quadratic_arguments::most) {
    cuda_quadratic_arguments arguments{next_partial, factor, 0, {}};
    std::uint32_t begun = 0;
    for (std::size_t i = from; i < std::min(tensors.size(), from + cuda_quadratic_arguments::most);
         ++i) {
      if (tensors[i].count == 0) continue;
      tensors[i].first_block = begun;
      tensors[i].aligned = aligned_for_cuda(tensors[i]) ? 1 : 0;
      arguments.tensors[arguments.count++] = tensors[i];
      begun += static_cast<std::uint32_t>(blocks_for_cuda(tensors[i].count));
    }
    launch_cuda(kernel, begun, cuda_quadratic_threads, arguments, device);
    next_partial += begun;
  }
  return partial.sum();
}

}  // namespace retain::detail

#endif  // RETAIN_HAS_CUDA_KERNELS
