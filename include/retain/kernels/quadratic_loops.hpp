// SPDX-License-Identifier: MIT
// The loop over the memory of one parameter, which computes sum F (theta - anchor)^2 and its
// gradient. There is a portable version and a version for AVX2. Both give bit-identical results.
#pragma once

#include <retain/kernels/instruction_set.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace retain::detail {

// the CUDA kernel uses the same numbers
enum class gradient_mode { none = 0, add = 1, assign = 2 };

template <class T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

#if RETAIN_HAS_AVX2_TARGET
/// widen converts eight numbers of a half type to float. narrow converts sixteen floats to the half
/// type and rounds to nearest.
RETAIN_AVX2_EXACT inline __m256 widen(const at::Half* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
RETAIN_AVX2_EXACT inline __m256 widen(const at::BFloat16* from) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))), 16));
}
RETAIN_AVX2_EXACT inline void narrow(__m256 low, __m256 high, at::Half* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 8),
                   _mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT));
}
RETAIN_AVX2_EXACT inline __m256i bfloat16_bits(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x),
                odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
  return _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7FC0),
                            _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
RETAIN_AVX2_EXACT inline void narrow(__m256 low, __m256 high, at::BFloat16* to) {
  const __m256i packed =
      _mm256_permute4x64_epi64(_mm256_packus_epi32(bfloat16_bits(low), bfloat16_bits(high)), 0xD8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), packed);
}
#endif

/// Processes one element for quadratic_body: adds F d^2 to `sum` and sets the gradient.
template <bool HasImportance, gradient_mode Mode, class T, class F>
RETAIN_INLINE_BODY void quadratic_element(const T* __restrict theta, const T* __restrict anchor,
                                          const F* __restrict importance, T* __restrict g,
                                          accumulate_t<T> factor, std::int64_t i,
                                          accumulate_t<T>& sum) {
  using real = accumulate_t<T>;
  const real d = static_cast<real>(theta[i]) - static_cast<real>(anchor[i]);
  real w = d;
  if constexpr (HasImportance) w *= static_cast<real>(importance[i]);
  sum += w * d;
  if constexpr (Mode == gradient_mode::add)
    g[i] = static_cast<T>(static_cast<real>(g[i]) + factor * w);
  if constexpr (Mode == gradient_mode::assign) g[i] = static_cast<T>(factor * w);
}

inline constexpr std::int64_t quadratic_block = 2048;
inline constexpr int quadratic_lanes = 32;

/// Returns sum F d^2 over n elements, d = theta - anchor, and adds (or assigns) factor * F * d to
/// g. Blocks of partial sums keep float accurate and let the compiler use vector registers.
template <bool HasImportance, gradient_mode Mode, class T, class F>
RETAIN_INLINE_BODY double quadratic_body(const T* __restrict theta, const T* __restrict anchor,
                                         const F* __restrict importance, T* __restrict g,
                                         accumulate_t<T> factor, std::int64_t n) {
  using real = accumulate_t<T>;
  double total = 0;
  for (std::int64_t start = 0; start < n; start += quadratic_block) {
    const std::int64_t end = std::min(n, start + quadratic_block);
    real sums[quadratic_lanes] = {};
    std::int64_t i = start;
    for (; i + quadratic_lanes <= end; i += quadratic_lanes)
      for (int lane = 0; lane < quadratic_lanes; ++lane)
        quadratic_element<HasImportance, Mode>(theta, anchor, importance, g, factor, i + lane,
                                               sums[lane]);
    for (; i < end; ++i)
      quadratic_element<HasImportance, Mode>(theta, anchor, importance, g, factor, i, sums[0]);
    real sum = 0;
    for (const real lane : sums) sum += lane;
    total += static_cast<double>(sum);
  }
  return total;
}

#if RETAIN_HAS_AVX2_TARGET
/// For float and double, which are limited by the memory bandwidth: the portable loop compiled for
/// AVX2. The result is bit-identical to that of quadratic_body without AVX2.
template <bool HasImportance, gradient_mode Mode, class T, class F>
RETAIN_AVX2_EXACT double quadratic_avx2(const T* theta, const T* anchor, const F* importance, T* g,
                                        accumulate_t<T> factor, std::int64_t n) {
  return quadratic_body<HasImportance, Mode>(theta, anchor, importance, g, factor, n);
}

/// For half types, whose conversions take most of the time. Here they stay in registers. The result
/// is bit-identical to that of quadratic_body.
template <bool HasImportance, gradient_mode Mode, class T>
  requires(sizeof(T) == 2)
RETAIN_AVX2_EXACT double quadratic_avx2(const T* theta, const T* anchor, const float* importance,
                                        T* g, float factor, std::int64_t n) {
  const __m256 pull = _mm256_set1_ps(factor);
  double total = 0;
  for (std::int64_t start = 0; start < n; start += quadratic_block) {
    const std::int64_t end = std::min(n, start + quadratic_block);
    __m256 sums[quadratic_lanes / 8];
    for (auto& sum : sums) sum = _mm256_setzero_ps();
    std::int64_t i = start;
    for (; i + quadratic_lanes <= end; i += quadratic_lanes) {
#pragma GCC unroll 2
      for (int pair = 0; pair < 2; ++pair) {
        __m256 force[2];
#pragma GCC unroll 2
        for (int k = 0; k < 2; ++k) {
          const std::int64_t j = i + 16 * pair + 8 * k;
          const __m256 d = _mm256_sub_ps(widen(theta + j), widen(anchor + j));
          __m256 w = d;
          if constexpr (HasImportance) w = _mm256_mul_ps(d, _mm256_loadu_ps(importance + j));
          sums[2 * pair + k] = _mm256_add_ps(sums[2 * pair + k], _mm256_mul_ps(w, d));
          force[k] = _mm256_mul_ps(pull, w);
          if constexpr (Mode == gradient_mode::add)
            force[k] = _mm256_add_ps(widen(g + j), force[k]);
        }
        if constexpr (Mode != gradient_mode::none) narrow(force[0], force[1], g + i + 16 * pair);
      }
    }
    float lanes[quadratic_lanes];
    for (int k = 0; k < quadratic_lanes / 8; ++k) _mm256_storeu_ps(lanes + 8 * k, sums[k]);
    for (; i < end; ++i)
      quadratic_element<HasImportance, Mode>(theta, anchor, importance, g, factor, i, lanes[0]);
    float sum = 0;
    for (const float lane : lanes) sum += lane;
    total += static_cast<double>(sum);
  }
  return total;
}
#endif

template <bool HasImportance, gradient_mode Mode, class T, class F>
double quadratic_kernel(const T* theta, const T* anchor, const F* importance, T* g,
                        accumulate_t<T> factor, std::int64_t n) {
#if RETAIN_HAS_AVX2_TARGET
  if (has_avx2())
    return quadratic_avx2<HasImportance, Mode>(theta, anchor, importance, g, factor, n);
#endif
  return quadratic_body<HasImportance, Mode>(theta, anchor, importance, g, factor, n);
}

}  // namespace retain::detail
