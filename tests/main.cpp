// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>

#include "skipped.hpp"

#undef CHECK
#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

int main(int argc, char** argv) {
  at::set_num_threads(1);  // spinning threads on busy cores make small operations many times slower
  return report_skipped(Catch::Session().run(argc, argv));
}
