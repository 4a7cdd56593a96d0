// SPDX-License-Identifier: MIT
// Lets an inner loop use AVX2 on processors that have it, chosen when the program runs: users of a
// header-only library compile it for the oldest processor they ship to.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#include <cstdint>

#define RETAIN_HAS_AVX2_TARGET 1
/// Before a function: compiled for AVX2, FMA and F16C, whatever the flags. Call it only where
/// retain::detail::has_avx2().
#define RETAIN_AVX2 __attribute__((target("avx2,fma,f16c")))
/// The same without fused multiply-add: results are those of the same loop compiled for any other
/// processor, bit for bit, as long as the program itself is not compiled for one that fuses.
#define RETAIN_AVX2_EXACT __attribute__((target("avx2,f16c")))
/// Before the body that both versions share, so that it is compiled into each.
#define RETAIN_INLINE_BODY inline __attribute__((always_inline))
#else
#define RETAIN_HAS_AVX2_TARGET 0
#define RETAIN_AVX2
#define RETAIN_AVX2_EXACT
#define RETAIN_INLINE_BODY inline
#endif

namespace retain::detail {

/// AVX2, FMA and F16C.
inline bool has_avx2() {
#if RETAIN_HAS_AVX2_TARGET
  // Every processor with AVX2 has F16C, which clang has no word for here.
  static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return found;
#else
  return false;
#endif
}

#if RETAIN_HAS_AVX2_TARGET

/// Which lanes of eight hold something where `left` numbers are left: all, some, or none.
RETAIN_AVX2 inline __m256i lanes_avx2(std::int64_t left) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

#endif

}  // namespace retain::detail
