// SPDX-License-Identifier: MIT
// Lets an inner loop use AVX2 on processors that support it. The choice is made at run time,
// because users of a header-only library compile it for the oldest processor that they support.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#include <cstdint>

#define RETAIN_HAS_AVX2_TARGET 1
/// Put this before a function to compile it for AVX2, FMA and F16C, whatever the compiler's flags.
/// The function may be called only if retain::detail::has_avx2() is true.
#define RETAIN_AVX2 __attribute__((target("avx2,fma,f16c")))
/// Like RETAIN_AVX2, without fused multiply-add. The results are bit-identical to those of the same
/// loop compiled for any other processor, unless the program itself is compiled with fused
/// multiply-add.
#define RETAIN_AVX2_EXACT __attribute__((target("avx2,f16c")))
/// Put this before a function body that both versions share, so that it is compiled into each.
#define RETAIN_INLINE_BODY inline __attribute__((always_inline))
#else
#define RETAIN_HAS_AVX2_TARGET 0
#define RETAIN_AVX2
#define RETAIN_AVX2_EXACT
#define RETAIN_INLINE_BODY inline
#endif

namespace retain::detail {

/// Returns whether the processor supports AVX2, FMA and F16C.
inline bool has_avx2() {
#if RETAIN_HAS_AVX2_TARGET
  // Every processor with AVX2 has F16C. clang cannot test for F16C here.
  static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return found;
#else
  return false;
#endif
}

#if RETAIN_HAS_AVX2_TARGET

/// Returns a mask of the lanes that hold a number if `left` numbers remain: all of eight, some, or
/// none.
RETAIN_AVX2 inline __m256i lanes_avx2(std::int64_t left) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

#endif

}  // namespace retain::detail
