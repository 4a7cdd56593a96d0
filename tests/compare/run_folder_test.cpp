// SPDX-License-Identifier: MIT
// What a program writes, and what is read of it.
#include <cmath>
#include <filesystem>
#include <string>

#include "../../benchmarks/compare/results.hpp"
#include "../../examples/common/temporary_folder.hpp"
#include "../../examples/experiment/run_folder.hpp"
#include "../nethack/catch2.hpp"

namespace run_folder_test {
using namespace compare;

experiment::run_description described() {
  return {
      "maze",         "quick", "ewc@30", {{"ewc", {{"strength", 30}}}}, 4, {"maze", "--seed", "4"},
      {{"maze", "2"}}};
}

TEST_CASE("a run folder is read as it was written", "[compare]") {
  const temporary_folder folder;
  experiment::run_folder run(folder.path(), described(), {"far", "near"});
  run.log(0, {{"far", 1.0}, {"near", 0.0}});
  run.log(100, {{"near", 0.5}});
  CHECK(read_result(folder.path()).status == run_status::running);
  run.log(300, {{"far", 0.25}, {"near", 1.0}});
  CHECK_FALSE(experiment::run_folder::finished(folder.path()));
  run.finish(300, {{"far", 0.3}}, 2);
  CHECK(experiment::run_folder::finished(folder.path()));

  const auto read = read_result(folder.path());
  CHECK(read.task == "maze");
  CHECK(read.preset == "quick");
  CHECK(read.method == "ewc@30");
  CHECK(read.settings.at("ewc").at("strength") == 30);
  CHECK(read.seed == 4);
  CHECK(read.step == 300);
  CHECK(read.status == run_status::finished);
  CHECK(read.steps_per_second == 150);
  CHECK(read.versions.at("maze") == "2");
  CHECK(read.command.size() == 3);
  REQUIRE(read.curves.at("far").size() == 2);  // the empty cell is left out
  CHECK(value_of(read, "far") == 0.3);
  CHECK(value_of(read, "far:last") == 0.25);
  CHECK(value_of(read, "near") == 1);  // the evaluation does not have it
  CHECK(value_of(read, "near:lowest") == 0);
  CHECK(value_of(read, "near:highest") == 1);
  // (100 · (0 + 0.5) + 200 · (0.5 + 1)) / 2 / 300
  CHECK(value_of(read, "near:mean") == Approx(175.0 / 300));
  CHECK(std::isnan(value_of(read, "none")));
}

TEST_CASE("a run that goes on keeps its rows up to the checkpoint", "[compare]") {
  const temporary_folder folder;
  {
    experiment::run_folder run(folder.path(), described(), {"far"});
    for (const int step : {0, 10, 20, 30}) run.log(step, {{"far", step}});
    run.finish(30, {}, 1);
  }
  experiment::run_folder run(folder.path(), described(), {"far"}, 20);
  CHECK_FALSE(experiment::run_folder::finished(folder.path()));
  run.log(30, {{"far", 99}});
  const auto far = read_result(folder.path()).curves.at("far");
  REQUIRE(far.size() == 4);
  CHECK(far[2].value == 20);
  CHECK(far[3].value == 99);
  CHECK_THROWS_WITH(run.finish(30, {{"far", std::nan("")}}, 1), ContainsSubstring("not finite"));
}

TEST_CASE("metrics may be long: step, measure, value", "[compare]") {
  const temporary_folder folder;
  write_file(folder / "metrics.csv", "measure,step,value\nfar,0,1\nnear,0,0\nfar,5,.5\n");
  const auto curves = read_curves(folder / "metrics.csv");
  REQUIRE(curves.at("far").size() == 2);
  CHECK(curves.at("far")[1].value == .5);
  CHECK(curves.at("near").size() == 1);
}

TEST_CASE("damaged run folders are refused with their name", "[compare]") {
  const temporary_folder folder;
  write_file(folder / "metrics.csv", "step,a\n5,1\n4,1\n");
  CHECK_THROWS_WITH(read_curves(folder / "metrics.csv"), ContainsSubstring("do not rise"));
  write_file(folder / "metrics.csv", "time,a\n5,1\n");
  CHECK_THROWS_WITH(read_curves(folder / "metrics.csv"), ContainsSubstring("no column 'step'"));
  write_file(folder / "evaluation.json", "{\"values\": ");
  CHECK_THROWS_WITH(read_result(folder.path()),
                    ContainsSubstring("evaluation.json is not valid JSON"));
  write_file(folder / "evaluation.json", "{\"score\": 3}");
  CHECK_THROWS_WITH(read_result(folder.path()), ContainsSubstring("has no \"values\""));
  write_file(folder / "evaluation.json",
             R"({"values": {"a": "three"}, "task": "t", "method": "m"})");
  CHECK_THROWS_WITH(read_result(folder.path()), ContainsSubstring("damaged"));
  write_file(folder / "evaluation.json", R"({"values": {"a": 3}})");
  CHECK_THROWS_WITH(read_result(folder.path()), ContainsSubstring("needs \"task\""));
}

TEST_CASE("evaluations of today's programs are translated", "[compare]") {
  const auto pyramid = translate(json::parse(R"({
    "far": {"return": 0.5, "rooms": 2, "steps": 244, "success": 0.25}, "games": 256, "method": "ewc",
    "preset": "quick", "seed": 3, "start": {"return": 2, "rooms": 1, "steps": 250, "success": 1},
    "steps": 1503232, "steps_per_second": 80000,
    "teacher": {"file": "t", "room": 7, "seed": 3, "success": 0.8, "task": "coverage-gap"},
    "world": {"map": "standard", "step_cap": 0, "sticky": 0.25}})"));
  REQUIRE(pyramid.known);
  CHECK(pyramid.task == "standard");
  CHECK(pyramid.preset == "quick");
  CHECK(pyramid.method == "ewc");
  CHECK(pyramid.seed == 3);
  CHECK(pyramid.step == 1503232);
  CHECK(pyramid.values.at("far/success") == 0.25);
  CHECK(pyramid.values.at("start/return") == 2);

  const auto robot = translate(json::parse(R"({
    "episodes": 100, "fisher": "gaussian", "method": "bc", "seed": 1, "steps": 40000,
    "stages": ["push", "unplug", "push-wall"],
    "success": {"all": 0.98, "push": 0.99, "push-wall": 1.0, "unplug": 0.5}})"));
  REQUIRE(robot.known);
  CHECK(robot.task == "3-stages");
  CHECK(robot.values.at("success/all") == 0.98);

  const auto nethack = translate(json::parse(R"({
    "name": "ks seed 2", "turns": 2000, "monitor": {"kl/far": 0.5},
    "training": {"method": "ks", "recipe": "quick", "seed": 2, "steps": 400000, "turns": 300},
    "starts": {"new": {"games": [[1, "new", 100, 50, 3, 900, 2000, "death"],
                                 [2, "new", 300, 50, 5, 900, 2000, "stuck"]]}}})"));
  REQUIRE(nethack.known);
  CHECK(nethack.task == "300-turns");
  CHECK(nethack.values.at("score/new") == 200);
  CHECK(nethack.values.at("depth/new") == 4);
  CHECK(nethack.values.at("stuck/new") == 0.5);
  CHECK(nethack.values.at("kl/far") == 0.5);

  CHECK_FALSE(translate(json::parse(R"({"score": 1})")).known);
}

TEST_CASE("a seed is counted once", "[compare]") {
  const temporary_folder folder;
  for (const auto* name : {"a", "b"})
    experiment::run_folder(folder / name, described(), {"far"}).finish(1, {{"far", 1}}, 1);
  CHECK_THROWS_WITH(read_results({folder.path()}),
                    ContainsSubstring("two runs of ewc@30 on maze, seed 4"));
  CHECK(read_results({folder / "a"}).size() == 1);
  CHECK(read_results({folder / "a", folder / "a"}).size() == 1);  // one folder named twice
  CHECK_THROWS_WITH(read_results({folder / "c"}), ContainsSubstring("there is no folder"));
}

}  // namespace run_folder_test
