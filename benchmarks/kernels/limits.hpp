// SPDX-License-Identifier: MIT
// The limits of the machine: memory bandwidth and the speed of matrix products. They are measured
// together with each benchmark that is compared with them.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdint>

namespace kernels {

/// The memory limit of the CPU: the STREAM triad a = b + s c (McCalpin 1995) on arrays that are
/// much larger than the caches. A store first reads the cache line ("write allocate"), so an
/// element moves 16 bytes: two reads, one read for ownership, one write.
class triad {
 public:
  static constexpr std::int64_t elements = std::int64_t{1} << 25;
  static constexpr double bytes = 16.0 * elements;

  triad() : a_(at::zeros({elements})), b_(at::rand({elements})), c_(at::rand({elements})) {}
  void operator()() const {
    auto* a = static_cast<float*>(a_.data_ptr());
    const auto *b = static_cast<const float*>(b_.data_ptr()),
               *c = static_cast<const float*>(c_.data_ptr());
    at::parallel_for(0, elements, std::int64_t{1} << 18, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) a[i] = b[i] + 0.5f * c[i];
    });
  }

 private:
  at::Tensor a_, b_, c_;
};

/// The memory limit of a GPU: a copy within the GPU's memory that is much larger than the caches.
/// Every byte is read and written.
class device_copy {
 public:
  static constexpr std::int64_t elements = std::int64_t{1} << 28;
  static constexpr double bytes = 8.0 * elements;

  explicit device_copy(at::Device device)
      : from_(at::rand({elements}, device)), to_(at::empty({elements}, device)) {}
  void operator()() const { to_.copy_(from_); }

 private:
  at::Tensor from_, to_;
};

/// The limit for matrix products: a product of two square float32 matrices with LibTorch's BLAS.
class matrix_product {
 public:
  explicit matrix_product(at::Device device)
      : size_(device.is_cpu() ? 1024 : 8192),
        a_(at::rand({size_, size_}, device)),
        b_(at::rand({size_, size_}, device)),
        c_(at::empty_like(a_)) {}
  void operator()() const { at::mm_out(c_, a_, b_); }
  double operations() const { return 2.0 * static_cast<double>(size_ * size_ * size_); }

 private:
  std::int64_t size_;
  at::Tensor a_, b_;
  mutable at::Tensor c_;
};

}  // namespace kernels
