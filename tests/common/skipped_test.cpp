// SPDX-License-Identifier: MIT
#include "../skipped.hpp"

#include "support.hpp"

namespace common_skipped_test {

TEST_CASE("what is missing is said where no test failed, and never hides one that did",
          "[skipped]") {
  CHECK(skipped_lines(0, {"no GPU", "no ROM"}) == "SKIPPED: no GPU\nSKIPPED: no ROM\n");
  CHECK(skipped_lines(1, {"no GPU"}).empty());
  CHECK(skipped_lines(0, {}).empty());
}

}  // namespace common_skipped_test
