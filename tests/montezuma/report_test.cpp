// SPDX-License-Identifier: MIT
// What the report makes of runs whose numbers are known.
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "../../examples/common/files.hpp"
#include "../../examples/common/temporary_folder.hpp"
#include "../nethack/catch2.hpp"
#include "report.hpp"

namespace montezuma_report_test {

namespace {

struct folder : temporary_folder {
  void add(const std::string& method, long seed, const std::string& success,
           const std::string& reward, double end) const {
    const auto place = path() / "runs" / (method + std::to_string(seed));
    std::ostringstream rows;
    rows << "global_step,far/success,start/return,far/kl\n";
    for (std::size_t i = 0; i < success.size(); ++i)
      rows << i * 1000 << ",0." << success[i] << ',' << reward[i]
           << (method == "scratch" ? ",\n" : ",0.5\n");
    write_file(place / "metrics.csv", rows.str());
    write_json(
        place / "evaluation.json",
        {{"method", method},
         {"preset", "quick"},
         {"world", {{"map", "standard"}, {"sticky", 0.25}, {"step_cap", 0}}},
         {"seed", seed},
         {"steps", 3000},
         {"steps_per_second", 1000.0},
         {"games", 64},
         {"teacher", {{"room", 7}, {"success", 0.8}, {"file", "t"}, {"seed", 1}}},
         {"far", {{"success", end}, {"return", 2.0}, {"rooms", 1.0}, {"steps", 9.0}}},
         {"start", {{"success", 1.0}, {"return", 4 * end}, {"rooms", 2.0}, {"steps", 9.0}}}});
  }
};

}  // namespace

TEST_CASE(
    "runs of different worlds are in no table together, and one without measurements is named",
    "[montezuma][report]") {
  const folder made;
  made.add("none", 1, "888", "246", 0.75);
  made.add("none", 2, "888", "246", 0.75);
  CHECK(montezuma::read_runs({made.path()}).size() == 2);
  const auto evaluation = [&] {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(made.path()))
      if (entry.path().filename() == "evaluation.json") return entry.path();
    return std::filesystem::path();
  }();
  const auto file = read_json(evaluation);
  auto other = file;
  other["world"]["sticky"] = 0.0;
  write_json(evaluation, other);
  CHECK_THROWS_WITH(montezuma::read_runs({made.path()}), ContainsSubstring("sticky"));
  write_json(evaluation, file);
  std::filesystem::remove(evaluation.parent_path() / "metrics.csv");
  CHECK_THROWS_WITH(
      montezuma::read_runs({made.path()}),
      ContainsSubstring(evaluation.parent_path().string()) && ContainsSubstring("far/success"));
}

TEST_CASE("a report's numbers are those of its runs", "[montezuma][report]") {
  const folder made;
  made.add("ewc", 1, "888", "246", 0.75);
  made.add("ewc", 2, "868", "246", 0.5);
  made.add("none", 1, "820", "222", 0.25);
  made.add("none", 2, "840", "228", 0);
  made.add("scratch", 1, "000", "012", 0);
  const auto runs = montezuma::read_runs({made.path()});
  REQUIRE(runs.size() == 5);
  const auto groups = montezuma::group_runs(runs);
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].title == "standard map, quick preset");
  REQUIRE(groups[0].methods.size() == 3);
  CHECK(groups[0].methods[0].first == "scratch");
  CHECK(groups[0].methods[1].first == "none");
  const auto& none = *groups[0].methods[1].second[0];
  const auto number = [&](std::size_t which) { return montezuma::measures()[which].of(none); };
  CHECK(number(montezuma::far_lowest) == Approx(0.0).margin(1e-12));
  CHECK(number(montezuma::far_mean) == Approx((0.8 + 0.2 + 0.0) / 3));
  CHECK(number(montezuma::far_end) == Approx(0.25));
  CHECK(number(montezuma::return_mean) == Approx(2.0));
  CHECK(number(montezuma::return_end) == Approx(1.0));
  const auto differences =
      montezuma::seed_differences(groups[0].methods[2].second, groups[0].methods[1].second,
                                  montezuma::measures()[montezuma::return_mean]);
  CHECK(differences == std::vector<double>{2.0, 0.0});

  const auto text = montezuma::write_report(runs, made.path() / "report");
  CHECK_THAT(text, ContainsSubstring("| none ") && ContainsSubstring("+1.00 [0.00 … 2.00], 1/2") &&
                       ContainsSubstring("0.25, 0.00"));
  for (const auto* file :
       {"report.md", "runs.csv", "curves-standard-quick.dat", "points-standard-quick.gp"})
    CHECK(std::filesystem::exists(made.path() / "report" / file));
}

TEST_CASE("the panels of the real game show the return from the teacher's places, if there is one",
          "[montezuma][report]") {
  const auto panels = [](const std::string& map, bool places) {
    montezuma::finished_run run;
    run.map = map;
    run.far_room = 7;
    run.curves = {{"global_step", {0, 1}}, {"far/success", {1, 0.5}}, {"start/return", {0, 2}}};
    if (places) run.curves["places/return"] = {400, 300};
    std::string columns;
    for (const auto& each : montezuma::detail::panels_of(run))
      columns += each.column + " to " + each.highest + ", ";
    return columns;
  };
  CHECK(panels("standard", false) == "far/success to 1, start/return to 8, start/rooms to 8, ");
  CHECK(panels("ale", false) == "far/success to 1, start/return to *, start/rooms to *, ");
  CHECK(panels("ale", true) == "far/success to 1, places/return to *, start/return to *, ");
  montezuma::finished_run zero, some;
  zero.curves = {{"global_step", {0, 1}}, {"start/return", {0, 0}}};
  some.curves = {{"global_step", {0, 1}}, {"start/return", {20, 10}}};
  const montezuma::detail::curve_panel any{"start/return", "", "", "*"},
      fixed{"start/return", "", "", "8"};
  const auto highest = [](const auto& panel, std::vector<const montezuma::finished_run*> runs) {
    return montezuma::detail::highest_of({"", "", {{"none", {runs[0]}}, {"bc", {runs.back()}}}},
                                         panel);
  };
  CHECK(highest(any, {&zero, &some}) == "21.00");
  CHECK(highest(any, {&zero}) == "1");
  CHECK(highest(fixed, {&zero, &some}) == "8");
}

TEST_CASE("what is no run is named", "[montezuma][report]") {
  const folder made;
  CHECK_THROWS_WITH(montezuma::read_runs({made.path()}), ContainsSubstring("montezuma sweep"));
  CHECK_THROWS_WITH(montezuma::read_runs({made.path() / "nowhere"}), ContainsSubstring("nowhere"));
  write_file(made.path() / "evaluation.json", "{\"method\": \"ewc\"}");
  CHECK_THROWS_WITH(montezuma::read_runs({made.path()}), ContainsSubstring("evaluation.json"));
}

}  // namespace montezuma_report_test
