// SPDX-License-Identifier: MIT
#include "../../examples/common/table.hpp"

#include <limits>
#include "support.hpp"

namespace common_table_test {

TEST_CASE("a number stands with its decimals; what rounds to 0 has no sign", "[table]") {
  CHECK(decimals(1.25) == "1");
  CHECK(decimals(-1.256, 2) == "-1.26");
  CHECK(decimals(-0.004, 2) == "0.00");
  CHECK(decimals(-0.4) == "0");
  CHECK(decimals(-0.0, 1) == "0.0");
  CHECK(decimals(-0.006, 2) == "-0.01");
  CHECK(decimals(-100, 1) == "-100.0");
  CHECK(decimals(std::numeric_limits<double>::quiet_NaN(), 2) == "–");
  CHECK(range_text(-0.001, 0.5, 2) == "0.00 … 0.50");
  CHECK(range_text(0, std::numeric_limits<double>::infinity(), 2) == "–");
}

TEST_CASE(
    "a table is Markdown with its columns under one another, and CSV with commas and quotes quoted",
    "[table]") {
  text_table table({"method", "score ± error"});
  table.add({"ewc", "12 ± 3"});
  table.add({"a, \"b\""});  // a row that is short
  CHECK(table.size() == 2);
  CHECK(table.markdown() == "| method | score ± error |\n"
                            "|:-------|--------------:|\n"
                            "| ewc    |        12 ± 3 |\n"
                            "| a, \"b\" |               |\n");
  CHECK(table.csv() == "method,score ± error\newc,12 ± 3\n\"a, \"\"b\"\"\",\n");
}

}  // namespace common_table_test
