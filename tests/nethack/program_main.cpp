// SPDX-License-Identifier: MIT
#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

#include "../skipped.hpp"

int main(int argc, char** argv) { return report_skipped(Catch::Session().run(argc, argv)); }
