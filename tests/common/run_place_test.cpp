// SPDX-License-Identifier: MIT
#include "../../examples/common/run_place.hpp"

#include <filesystem>
#include <fstream>

#include "../../examples/common/temporary_folder.hpp"
#include "support.hpp"

namespace common_run_place_test {

TEST_CASE("a folder says whether a run begins in it or goes on, and none is lost unasked",
          "[run_place]") {
  const temporary_folder folder;
  run_place place{folder.path()};
  CHECK_FALSE(place.decide());
  place.resume = true;
  CHECK_THROWS_WITH(place.decide(), ContainsSubstring("no checkpoint"));

  std::ofstream(folder / "config.json") << "{}";
  std::ofstream(place.checkpoint()) << "a";
  std::ofstream(place.evaluation()) << "{}";
  CHECK_THROWS_WITH(place.decide(), ContainsSubstring("metrics.csv is missing"));
  std::ofstream(folder / "metrics.csv") << "global_step\n0\n";
  CHECK(place.decide());
  place.resume = false;
  CHECK_THROWS_WITH(place.decide(),
                    ContainsSubstring("--resume-if-possible") && ContainsSubstring("--overwrite"));
  place.resume_if_possible = true;
  CHECK(place.decide());

  // What goes on keeps its checkpoint; what it said of its end is not true any more.
  place.clear(true);
  CHECK(std::filesystem::exists(place.checkpoint()));
  CHECK_FALSE(std::filesystem::exists(place.evaluation()));

  // What begins anew must not be taken for the old run if it is stopped before it is saved.
  std::ofstream(place.evaluation()) << "{}";
  for (const auto* made : {"policy.pt", "policy-2000.pt", "games.csv", "teacher.pt"})
    std::ofstream(folder / made) << "a";
  place.resume_if_possible = false;
  place.overwrite = true;
  CHECK_FALSE(place.decide());
  place.clear(false);
  for (const auto* made : {"policy.pt", "policy-2000.pt", "games.csv"})
    CHECK_FALSE(std::filesystem::exists(folder / made));
  CHECK(std::filesystem::exists(folder / "teacher.pt"));
  CHECK_FALSE(std::filesystem::exists(place.checkpoint()));
  CHECK_FALSE(std::filesystem::exists(place.evaluation()));

  std::ofstream(place.evaluation()) << "{}";
  CHECK_NOTHROW(run_place{folder / "nowhere yet"}.clear(false));
  place = {.folder = folder.path(), .resume_if_possible = true};
  CHECK_THROWS_WITH(place.decide(),
                    ContainsSubstring("finished") && ContainsSubstring("--overwrite"));
}

TEST_CASE("a run does not go on to an end that lies behind it", "[run_place]") {
  const run_place place{"runs/some"};
  CHECK_NOTHROW(place.check_steps(3000, 3000));
  CHECK_THROWS_WITH(place.check_steps(3000, 2999),
                    ContainsSubstring("runs/some") && ContainsSubstring("--steps 3000"));
  // 4096 steps at once: the end of 3000 is 4096.
  CHECK_NOTHROW(place.check_steps(4096, 3000, 4096));
  CHECK_THROWS(place.check_steps(8192, 3000, 4096));
}

}  // namespace common_run_place_test
