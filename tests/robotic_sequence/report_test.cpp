// SPDX-License-Identifier: MIT
// What the report makes of runs whose numbers are known, and what a sweep starts.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "../../examples/common/files.hpp"
#include "../../examples/common/temporary_folder.hpp"
#include "../nethack/catch2.hpp"
#include "command_sweep.hpp"
#include "report.hpp"

namespace robotic_sequence_report_test {

namespace {

using curves_of = std::map<std::string, std::string>;

/// Runs of 8000 steps, evaluated at 0, 1000, 2000, 4000 and 8000 steps: widths of 1, 1, 2 and 4
/// thousand.
struct folder : temporary_folder {
  /// `tenths`: by stage, five digits: tenths of success. A stage that is not named fails
  /// throughout. The last digit is the end's too.
  void add(const std::string& method, long seed, const curves_of& tenths, int stages = 4,
           const std::string& fisher = "gaussian") const {
    const std::vector<std::string> sequence{"window", "faucet", "press",
                                            "push",   "unplug", "push-wall"};
    const std::vector<std::string> tail(sequence.end() - stages, sequence.end());
    auto measured = tail;
    measured.emplace_back("all");
    const auto digits = [&](const std::string& stage) {
      return tenths.contains(stage) ? tenths.at(stage) : std::string("00000");
    };
    std::ostringstream rows;
    rows << "global_step";
    for (const auto& stage : measured) rows << ",success/" << stage;
    rows << ",charts/SPS\n";
    const std::vector<int> steps{0, 1000, 2000, 4000, 8000};
    for (std::size_t i = 0; i < steps.size(); ++i) {
      rows << steps[i];
      for (const auto& stage : measured) rows << ",0." << digits(stage)[i];
      rows << ",\n";
    }
    auto success = nlohmann::json::object();
    for (const auto& stage : measured) success[stage] = (digits(stage)[4] - '0') / 10.0;
    const auto place =
        path() / "runs" / (std::to_string(stages) + method + fisher + std::to_string(seed));
    write_file(place / "metrics.csv", rows.str());
    write_json(
        place / "evaluation.json",
        {{"method", method},
         {"fisher", fisher},
         {"stages", tail},
         {"seed", seed},
         {"steps", 8000},
         {"steps_per_second", 500.0},
         {"episodes", 100},
         {"teacher",
          {{"file", "t"},
           {"seed", seed},
           {"success", {{"unplug", 0.9}, {"push-wall", 0.94 + 0.01 * static_cast<double>(seed)}}}}},
         {"success", success}});
  }
};

std::string text_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool has(const std::vector<std::string>& words, const std::vector<std::string>& part) {
  return std::search(words.begin(), words.end(), part.begin(), part.end()) != words.end();
}

}  // namespace

TEST_CASE("a report's numbers are those of its runs", "[robotic_sequence][report]") {
  const folder made;
  // Areas in thousands of steps. 8 0 2 4 8: 0.4 + 0.1 + 0.6 + 2.4 = 3.5 of 8. 0 0 0 4 6: 0.4 + 2.0
  // = 2.4 of 8.
  made.add("bc", 1, {{"unplug", "88888"}, {"push-wall", "80248"}, {"all", "00046"}});
  // 0.4 + 1.6 = 2.0 of 8
  made.add("bc", 2, {{"unplug", "88888"}, {"push-wall", "80248"}, {"all", "00044"}});
  // unplug: 0.6 + 0.2 = 0.8 of 8; all: 0.8 of 8
  made.add("none", 1, {{"unplug", "84000"}, {"all", "00004"}});
  made.add("none", 2, {{"unplug", "84000"}, {"all", "00044"}});
  made.add("scratch", 1, {{"all", "00004"}});  // 0.8 of 8
  made.add("scratch", 2, {{"all", "00008"}});  // 1.6 of 8
  const auto runs = robotic_sequence::read_runs({made.path()});
  REQUIRE(runs.size() == 6);
  const auto groups = robotic_sequence::group_runs(runs);
  REQUIRE(groups.size() == 1);
  const auto& group = groups[0];
  CHECK(group.title == "press, push, unplug, push-wall; 8000 steps");
  CHECK(group.new_stages() == 2);
  REQUIRE(group.methods.size() == 3);
  CHECK(group.methods[0].first == "scratch");
  CHECK(group.methods[1].first == "none");
  const auto& none = group.methods[1].second;
  const auto& bc = group.methods[2].second;

  CHECK(robotic_sequence::mean_success(*bc[0], "push-wall") == Approx(3.5 / 8));
  CHECK(robotic_sequence::lowest_success(*bc[0], "push-wall") == Approx(0.0).margin(1e-12));
  CHECK(robotic_sequence::end_success(*bc[0], "push-wall") == Approx(0.8));
  CHECK(robotic_sequence::mean_success(*none[0], "unplug") == Approx(0.1));
  CHECK(robotic_sequence::mean_success(*bc[0], "all") == Approx(0.3));
  CHECK(std::isnan(robotic_sequence::mean_success(*bc[0], "window")));

  CHECK(group.from_scratch.at("all") == Approx(0.15));
  CHECK(group.from_scratch.at("unplug") == Approx(0.0).margin(1e-12));
  CHECK(group.forward_transfer(*bc[0], "all") == Approx((0.3 - 0.15) / 0.85));
  CHECK(group.forward_transfer(*none[0], "all") == Approx((0.1 - 0.15) / 0.85));
  CHECK(group.forward_transfer(*bc[0], "unplug") == Approx(0.8));

  // 0.3 − 0.1 and 0.25 − 0.25
  const auto differences = robotic_sequence::seed_differences(bc, none);
  REQUIRE(differences.size() == 2);
  CHECK(differences[0] == Approx(0.2));
  CHECK(differences[1] == Approx(0.0).margin(1e-12));

  const auto text = robotic_sequence::write_report(runs, made.path() / "report");
  CHECK_THAT(text, ContainsSubstring("500 steps/s") &&
                       ContainsSubstring("push-wall 0.95 to 0.96, unplug 0.90 to 0.90") &&
                       ContainsSubstring("100 episodes"));
  CHECK_THAT(text, ContainsSubstring("0.44 [0.44 … 0.44]") &&
                       ContainsSubstring("0.80 [0.80 … 0.80]") &&
                       ContainsSubstring("+0.10 [0.00 … 0.20], 1/2"));
  CHECK_THAT(text,
             ContainsSubstring("0.30, 0.25 ") && !ContainsSubstring("before the known stages"));
  const auto csv = text_of(made.path() / "report" / "runs.csv");
  CHECK_THAT(csv, ContainsSubstring("stages,method,seed,steps,steps_per_second,press_lowest,press_"
                                    "mean,press_end,press_transfer,push_lowest"));
  // press, push: failed throughout, in scratch's runs too; unplug, push-wall and the whole as above
  CHECK_THAT(csv, ContainsSubstring("4,bc,1,8000,500,0.0000,0.0000,0.0000,0.0000,0.0000,0.0000,0."
                                    "0000,0.0000,0.8000,0.8000,0.8000,0.8000,"
                                    "0.0000,0.4375,0.8000,0.4375,0.0000,0.3000,0.6000,0.1765\n"));
  for (const auto* file : {"report.md", "curves-4-stages-8000.dat", "curves-4-stages-8000.gp",
                           "points-4-stages-8000.gp"})
    CHECK(std::filesystem::exists(made.path() / "report" / file));

  // From its file alone, and from that together with further runs.
  const auto lines = made.path() / "report" / "runs.jsonl";
  CHECK(robotic_sequence::write_report(robotic_sequence::read_runs({lines}),
                                       made.path() / "again") == text);
  CHECK(text_of(made.path() / "again" / "runs.csv") == csv);
  CHECK(text_of(made.path() / "again" / "runs.jsonl") == text_of(lines));
  const folder more;
  more.add("bc", 7, {{"all", "01234"}});
  CHECK(robotic_sequence::read_runs({lines, more.path()}).size() == runs.size() + 1);
  CHECK_THROWS_WITH(robotic_sequence::read_runs({lines, made.path() / "runs"}),
                    ContainsSubstring("runs.jsonl, line"));
  write_file(made.path() / "no.jsonl", text_of(lines) + "{\"method\": \"l2\"}\n");
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path() / "no.jsonl"}),
                    ContainsSubstring("no.jsonl, line " + std::to_string(runs.size() + 1)));
  auto cut = nlohmann::json::parse(text_of(lines).substr(0, text_of(lines).find('\n')));
  cut["training"]["success/all"].erase(4);
  write_file(made.path() / "no.jsonl", cut.dump());
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path() / "no.jsonl"}),
                    ContainsSubstring("'success/all' has 4 values for 5 steps"));
  write_file(made.path() / "no.jsonl", "hello\n");
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path() / "no.jsonl"}),
                    ContainsSubstring("line 1 is not a run"));
}

TEST_CASE("sequences of several lengths are told apart, and compared by their new stages",
          "[robotic_sequence][report]") {
  const folder made;
  for (const int stages : {4, 3}) {
    made.add("scratch", 1, {}, stages);
    made.add("ewc", 1, {{"unplug", stages == 3 ? "77777" : "55555"}, {"push-wall", "33333"}},
             stages);
    made.add("ewc", 1, {{"unplug", "22222"}, {"push-wall", "11111"}}, stages, "continual-world");
  }
  made.add("em", 1, {{"unplug", "99999"}, {"push-wall", "88888"}}, 4);
  const auto runs = robotic_sequence::read_runs({made.path()});
  const auto groups = robotic_sequence::group_runs(runs);
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].title == "push, unplug, push-wall; 8000 steps");
  CHECK(groups[0].new_stages() == 1);
  REQUIRE(groups[1].methods.size() == 4);
  CHECK(groups[1].methods[1].first == "ewc");
  CHECK(groups[1].methods[2].first == "ewc-cw");
  CHECK(groups[1].methods[3].first == "em");
  const auto text = robotic_sequence::write_report(runs, made.path() / "report");
  const auto table = text.substr(text.find("## New stages; 8000 steps"));
  CHECK_THAT(table, ContainsSubstring("| unplug: new stages |  ewc | ewc-cw |   em |\n"));
  CHECK_THAT(table, ContainsSubstring("| 1                  | 0.70 |   0.20 |    – |\n| 2          "
                                      "        | 0.50 |   0.20 | 0.90 |\n"));
  CHECK_THAT(table, ContainsSubstring("| 1                     | 0.30 |   0.10 |    – |\n| 2       "
                                      "              | 0.30 |   0.10 | 0.80 |\n"));
  CHECK_THAT(text_of(made.path() / "report" / "runs.csv"),
             ContainsSubstring("\n3,scratch,1,8000,500,,,,,0.0000,"));
}

TEST_CASE("without runs from scratch there is no forward transfer, and the report says so",
          "[robotic_sequence][report]") {
  const folder made;
  made.add("none", 1, {{"unplug", "88888"}});
  const auto runs = robotic_sequence::read_runs({made.path()});
  const auto groups = robotic_sequence::group_runs(runs);
  CHECK(std::isnan(groups[0].forward_transfer(runs[0], "unplug")));
  CHECK_THAT(robotic_sequence::write_report(runs, made.path() / "report"),
             ContainsSubstring("No forward transfer") && !ContainsSubstring("nan"));
}

TEST_CASE("what is no run is named", "[robotic_sequence][report]") {
  const folder made;
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path()}),
                    ContainsSubstring("robotic_sequence sweep"));
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path() / "nowhere"}),
                    ContainsSubstring("nowhere"));
  write_file(made.path() / "evaluation.json", "{\"method\": \"l2\"}");
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path()}),
                    ContainsSubstring("evaluation.json"));
}

TEST_CASE("a seed that would count twice is named with both folders",
          "[robotic_sequence][report]") {
  const folder made;
  const std::string text =
      R"({"method": "ewc", "fisher": "gaussian", "stages": ["push", "unplug", "push-wall"], "seed": 3, "steps": 10, "episodes": 2,
    "success": {"push": 1, "unplug": 1, "push-wall": 1, "all": 1}})";
  for (const auto* name : {"one", "other"}) {
    write_file(made.path() / name / "evaluation.json", text);
    write_file(made.path() / name / "metrics.csv", "global_step,success/all\n0,1\n10,1\n");
  }
  CHECK(robotic_sequence::read_runs({made.path() / "one"}).size() == 1);
  // without it the run would be left out of every mean
  std::filesystem::remove(made.path() / "one" / "metrics.csv");
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path() / "one"}),
                    ContainsSubstring("/one") && ContainsSubstring("metrics.csv"));
  write_file(made.path() / "one" / "metrics.csv", "global_step,success/all\n0,1\n10,1\n");
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path()}), ContainsSubstring("seed 3") &&
                                                                    ContainsSubstring("/one") &&
                                                                    ContainsSubstring("/other"));
}

TEST_CASE("runs that are not alike are no means over seeds", "[robotic_sequence][report]") {
  const folder made;
  for (const long seed : {1L, 2L}) made.add("bc", seed, {{"all", "01234"}});
  const auto set = [&](long seed, const std::string& part, const nlohmann::json& values) {
    const auto file =
        made.path() / "runs" / ("4bcgaussian" + std::to_string(seed)) / "evaluation.json";
    auto text = read_json(file);
    text[part] = values;
    write_json(file, text);
  };
  set(1, "retention", {{"bc", 1.0}, {"memory", 500}});
  CHECK_NOTHROW(robotic_sequence::read_runs({made.path()}));  // of the other it is not known
  set(2, "retention", {{"bc", 1.0}});
  set(2, "settings", {{"value_bound", 10.0}});
  // One that does not say stands between two that differ.
  made.add("bc", 3, {{"all", "01234"}});
  set(3, "settings", {{"value_bound", 20.0}});
  set(2, "settings", nlohmann::json::object());
  set(1, "settings", {{"value_bound", 10.0}});
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path()}),
                    ContainsSubstring("4bcgaussian1") && ContainsSubstring("4bcgaussian3"));
  remove_folder(made.path() / "runs" / "4bcgaussian3");
  set(1, "settings", nlohmann::json::object());
  set(2, "settings", {{"value_bound", 10.0}});
  const auto alike = robotic_sequence::read_runs({made.path()});
  REQUIRE(alike.size() == 2);
  robotic_sequence::write_report(alike, made.path() / "report");
  set(2, "retention", {{"bc", 2.0}});
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path()}),
                    ContainsSubstring("retention/bc is 1.0 and 2.0") &&
                        ContainsSubstring("4bcgaussian1") && ContainsSubstring("4bcgaussian2"));
  set(2, "retention", {{"bc", 1.0}});
  // The lines of a report say it too.
  const auto lines = made.path() / "report" / "runs.jsonl";
  CHECK_NOTHROW(robotic_sequence::read_runs({lines}));
  set(1, "seed", 3);
  set(1, "settings", {{"value_bound", 20.0}});
  CHECK_THROWS_WITH(robotic_sequence::read_runs({lines, made.path() / "runs" / "4bcgaussian1"}),
                    ContainsSubstring("settings/value_bound is"));
}

TEST_CASE("a run whose log lost a part is left out by name", "[robotic_sequence][report]") {
  const folder made;
  made.add("bc", 1, {{"all", "01234"}});
  const auto log = made.path() / "runs" / "4bcgaussian1" / "metrics.csv";
  const auto whole = text_of(log);
  const auto header = whole.substr(0, whole.find('\n') + 1), rows = whole.substr(header.size());
  write_file(log, header + rows.substr(rows.find('\n') + 1));
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path()}),
                    ContainsSubstring("metrics.csv") && ContainsSubstring("from step 0 to 8000"));
  write_file(log, whole.substr(0, whole.rfind('\n', whole.size() - 2) + 1));
  CHECK_THROWS_WITH(robotic_sequence::read_runs({made.path()}),
                    ContainsSubstring("from step 0 to 8000"));
}

TEST_CASE("the interval of forward transfer draws a method's seeds and those from scratch together",
          "[robotic_sequence][report]") {
  const folder made;
  // Seed 1 is hard, seed 2 easy, for both: areas .1 and .5 beside .2 and .6. Of two seeds a draw
  // has one of four means.
  made.add("scratch", 1, {{"all", "11111"}});
  made.add("scratch", 2, {{"all", "55555"}});
  made.add("none", 1, {{"all", "22222"}});
  made.add("none", 2, {{"all", "66666"}});
  made.add("none", 3, {{"all", "99999"}});  // no run from scratch has its seed
  const auto runs = robotic_sequence::read_runs({made.path()});
  const auto text = robotic_sequence::write_report(runs, made.path() / "report");
  // (.4 − .3) / .7; at the ends (.2 − .1) / .9 and (.6 − .5) / .5
  CHECK_THAT(text, ContainsSubstring("0.14 [0.11 … 0.20]"));
}

TEST_CASE("what is named twice is done once", "[robotic_sequence][sweep]") {
  robotic_sequence::sweep_command command;
  command.seeds = {"1-2", "2"};
  command.methods = {"bc", "none", "bc"};
  command.stages = {4, 4};
  CHECK(robotic_sequence::detail::sweep_jobs(command).size() == 2 * (1 + 2));
}

TEST_CASE("a sweep has a teacher a seed, shared by all lengths, and each method from it",
          "[robotic_sequence][sweep]") {
  robotic_sequence::sweep_command command;
  command.out = "there";
  command.methods = {"scratch", "ewc", "ewc-cw"};
  command.stages = {3, 4};
  command.seeds = {"1-2"};
  command.extra = {"--ewc-strength=30"};
  const auto jobs = robotic_sequence::detail::sweep_jobs(command);
  REQUIRE(jobs.size() == 2 * (1 + 2 * 3));
  CHECK(jobs[0].name == "teacher-seed1");
  CHECK(has(jobs[0].command, {"pretrain", "--out", "there/teacher-seed1", "--seed", "1", "--accept",
                              "0.9000", "--attempts", "3", "--resume-if-possible"}));
  CHECK_FALSE(has(jobs[0].command, {"--steps"}));
  CHECK(jobs[7].name == "teacher-seed2");
  const auto& last = jobs.back();
  CHECK(last.product == "there/runs/4-stages-ewc-cw-seed2/evaluation.json");
  CHECK(last.after == std::vector<std::string>{"teacher-seed2"});
  CHECK(has(last.command, {"finetune", "--teacher", "there/teacher-seed2/teacher.pt", "--stages",
                           "4", "--seed", "2", "--steps", "80000"}));
  CHECK(has(last.command, {"--retain", "ewc", "--fisher", "continual-world", "--ewc-strength=30"}));
  CHECK(has(jobs[1].command, {"--from-scratch"}));
  CHECK_FALSE(has(jobs[1].command, {"--retain"}));
  CHECK_FALSE(has(jobs[2].command, {"--fisher"}));
  command.teacher_steps = 5000;
  CHECK(has(robotic_sequence::detail::sweep_jobs(command)[0].command, {"--steps", "5000"}));
}

TEST_CASE("a sweep's folder holds runs that can be compared", "[robotic_sequence][sweep]") {
  const folder made;
  robotic_sequence::sweep_command command;
  command.out = made.path().string();
  const auto check = [&] {
    check_same_sweep(command.out, robotic_sequence::detail::common_options(command));
  };
  check();
  command.methods = {"ks"};
  command.stages = {6};
  CHECK_NOTHROW(check());
  command.steps = 40'000;
  CHECK_THROWS_WITH(check(),
                    ContainsSubstring("80000") && ContainsSubstring("another folder with --out"));
}

}  // namespace robotic_sequence_report_test
