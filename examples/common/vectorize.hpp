// SPDX-License-Identifier: MIT
// Lets the compiler use the wide registers of the machine that the program runs on.
#pragma once

/// Before a function of plain loops: compiled for several instruction sets, the best is chosen when
/// the program starts. The sanitizers cannot instrument how that choice is made, and clang spells
/// it differently: there it is nothing.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define RETAIN_VECTORIZE \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RETAIN_VECTORIZE
#endif
