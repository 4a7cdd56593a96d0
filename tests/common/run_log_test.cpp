// SPDX-License-Identifier: MIT
#include "../../examples/common/run_log.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "../../examples/common/temporary_folder.hpp"
#include "support.hpp"

namespace common_run_log_test {

namespace {

using numbers = std::map<std::string, double>;
using words = std::vector<std::string>;

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("a log is on the disk row by row, and goes on without what is played again",
          "[run_log]") {
  const temporary_folder folder;
  const auto path = folder / "metrics.csv";
  {
    run_log log(path, {"global_step", "a", "b"});
    CHECK(log.last_step() == -1);
    log.add(0, numbers{{"b", 0.5}});
    log.add(100, numbers{{"a", 1.0}, {"b", 2.0}});
    CHECK(text_of(path) == "global_step,a,b\n0,,0.5\n100,1,2\n");
    log.add(200, words{"x", "y"});
  }
  {
    run_log log(path, {"global_step", "a", "b"}, 100);  // the checkpoint is of step 100
    CHECK(log.last_step() == 100);
    log.add(200, words{"again", ""});
  }
  CHECK(text_of(path) == "global_step,a,b\n0,,0.5\n100,1,2\n200,again,\n");
  CHECK_THROWS_WITH((run_log(path, {"global_step", "c"}, 100)), ContainsSubstring("other columns"));
  CHECK(text_of(path).size() > 40);  // and is left as it was
  {
    const run_log anew(path, {"global_step", "c"});
  }
  CHECK(text_of(path) == "global_step,c\n");
  CHECK_THROWS_WITH((run_log(folder / "gone.csv", {"global_step"}, 100)),
                    ContainsSubstring("gone.csv") && ContainsSubstring("start a new run"));
}

}  // namespace common_run_log_test
