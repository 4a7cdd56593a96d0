// SPDX-License-Identifier: MIT
// Lets the compiler use the vector instructions of the machine on which the program runs.
#pragma once

/// Write this macro in front of a function with plain loops. The function is then compiled for
/// several instruction sets, and the best version is selected at program start. The macro is empty
/// with sanitizers, which do not support this selection, and with clang, which uses another syntax.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define RETAIN_VECTORIZE \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RETAIN_VECTORIZE
#endif
