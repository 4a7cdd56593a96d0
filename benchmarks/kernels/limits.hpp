// SPDX-License-Identifier: MIT
// The machine's own limits, measured beside what is held against them: how fast memory moves, how fast matrices multiply.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdint>

namespace kernels {

/// The STREAM triad a = b + s c (McCalpin 1995) on arrays far larger than the caches. A store reads its line first ("write allocate"), so an
/// element moves 16 bytes: two reads, one read for ownership, one write.
class triad {
 public:
  static constexpr std::int64_t elements = std::int64_t{1} << 25;
  static constexpr double bytes = 16.0 * elements;

  triad() : a_(at::zeros({elements})), b_(at::rand({elements})), c_(at::rand({elements})) {}
  void operator()() const {
    auto* a = static_cast<float*>(a_.data_ptr());
    const auto *b = static_cast<const float*>(b_.data_ptr()), *c = static_cast<const float*>(c_.data_ptr());
    at::parallel_for(0, elements, std::int64_t{1} << 18, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) a[i] = b[i] + 0.5f * c[i];
    });
  }

 private:
  at::Tensor a_, b_, c_;
};

/// A product of two square float32 matrices, as LibTorch has it from the BLAS.
class matrix_product {
 public:
  static constexpr std::int64_t size = 1024;
  static constexpr double operations = 2.0 * size * size * size;

  matrix_product() : a_(at::rand({size, size})), b_(at::rand({size, size})), c_(at::empty({size, size})) {}
  void operator()() const { at::mm_out(c_, a_, b_); }

 private:
  at::Tensor a_, b_;
  mutable at::Tensor c_;
};

}  // namespace kernels
