// SPDX-License-Identifier: MIT
// The experiment file: what is read, and what an error says.
#include <memory>
#include <string>
#include <vector>

#include "../../benchmarks/compare/plan.hpp"
#include "../../benchmarks/compare/read_experiment.hpp"
#include "../nethack/catch2.hpp"

namespace experiment_test {
using namespace compare;

const std::string good = R"({
  // a comment
  "programs": {
    "agent": {
      "run": ["/bin/true", "--seed", "{seed}", "--steps", "{steps}", "--out", "{out}", "--from", "{teacher}"],
      "terms": ["--retain", "{terms}"],
      "setting": ["--{term}-{setting}", "{value}"],
      "teacher": "clone"
    }
  },
  "teachers": {
    "expert": {"run": ["/bin/true", "--seed", "{seed}", "--out", "{out}"], "product": "e.pt", "each": "all", "seed": 9},
    "clone": {"run": ["/bin/true", "{teacher}", "{out}"], "product": "c.pt", "teacher": "expert"}
  },
  "tasks": {"easy": {"program": "agent"}, "hard": {"program": "agent", "options": ["--hard"]}},
  "methods": {
    "none": {},
    "ewc": {"terms": {"ewc": {"strength": {"tune": [3, 30]}}}},
    "bc+ks": {"terms": {"bc": {"strength": 0.003}, "ks": {"strength": {"tune": [1e-05, 2]}, "factor": 1}}, "options": ["--more"]}
  },
  "seeds": "1-3, 7",
  "steps": 500,
  "tuning": {"seeds": [101], "measure": "far/success:mean"},
  "measures": {"far/success": {"side": "FAR", "range": [0, 1]}}
})";

experiment_plan parsed(const std::string& text) {
  return read_experiment(located(std::make_shared<located_file>(parse_located(text, "x.json"))),
                         "x.json");
}

std::string changed(std::string text, const std::string& what, const std::string& by) {
  const auto at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), by);
}

std::string error_of(const std::string& text) {
  try {
    parsed(text);
  } catch (const file_error& error) {
    return error.what();
  }
  return "no error";
}

TEST_CASE("an experiment becomes the commands of its runs", "[compare]") {
  const auto plan = parsed(good);
  CHECK(plan.seeds == std::vector<std::int64_t>{1, 2, 3, 7});
  planner units(plan, "/o", {});
  const auto all = units.comparison(
      {7}, [](const task&, const method& how) { return how.candidate(how.candidates() - 1); });
  // one expert for all, one clone a seed, two tasks of three methods
  REQUIRE(all.size() == 8);
  CHECK(all[0].name == "teachers/expert");
  CHECK(all[0].command ==
        std::vector<std::string>{"/bin/true", "--seed", "9", "--out", "/o/teachers/expert"});
  CHECK(all[1].name == "teachers/clone/seed7");
  CHECK(all[1].command == std::vector<std::string>{"/bin/true", "/o/teachers/expert/e.pt",
                                                   "/o/teachers/clone/seed7"});
  CHECK(all[1].after == std::vector<std::size_t>{0});
  CHECK(all[2].name == "runs/easy/none/seed7");
  CHECK(all[2].after == std::vector<std::size_t>{1});
  CHECK(all[7].name == "runs/hard/bc+ks/seed7");
  CHECK(all[7].command == std::vector<std::string>{
                              "/bin/true", "--seed", "7", "--steps", "500", "--out",
                              "/o/runs/hard/bc+ks/seed7", "--from", "/o/teachers/clone/seed7/c.pt",
                              "--retain", "bc+ks", "--bc-strength", "0.003", "--ks-strength", "2",
                              "--ks-factor", "1", "--more", "--hard"});
  // nothing of the machine is part of what a run is
  CHECK(all[7].identity.dump().find("/o/") == std::string::npos);
}

TEST_CASE("candidates are the product of the lists", "[compare]") {
  const method how{
      "ks", {{"ks", {{"strength", {0.1, 0.3}, true}, {"factor", {0.9, 0.99}, true}}}}, {}};
  REQUIRE(how.candidates() == 4);
  std::vector<std::string> all;
  for (std::size_t i = 0; i < 4; ++i) all.push_back(how.candidate(i).dump());
  CHECK(all == std::vector<std::string>{R"({"ks":{"strength":0.1,"factor":0.9}})",
                                        R"({"ks":{"strength":0.1,"factor":0.99}})",
                                        R"({"ks":{"strength":0.3,"factor":0.9}})",
                                        R"({"ks":{"strength":0.3,"factor":0.99}})"});
}

TEST_CASE("the tuning runs every candidate with its own seeds", "[compare]") {
  const auto plan = parsed(good);
  const auto all = planner(plan, "/o", {}).tuning();
  // two teachers, and two tasks of two methods with two candidates
  REQUIRE(all.size() == 10);
  CHECK(all[2].name == "tuning/easy/ewc/candidate1/seed101");
  CHECK(all[9].name == "tuning/hard/bc+ks/candidate2/seed101");
}

TEST_CASE("an error says where it is, and the nearest name", "[compare]") {
  const std::vector<std::vector<std::string>> cases{
      {R"("steps": 500)", R"("stpes": 500)",
       "x.json:22: stpes: unknown key; did you mean 'steps'?"},
      {R"("steps": 500)", R"("steps": 0)",
       "x.json:22: steps: must be a whole number of at least 1"},
      {R"("program": "agent"},)", R"("program": "agnet"},)",
       "x.json:15: tasks.easy.program: 'agnet' is unknown; did you mean 'agent'?"},
      {R"("{seed}", "--steps")", R"("{sead}", "--steps")",
       "x.json:5: programs.agent.run.2: {sead} is unknown; did you mean 'seed'?"},
      {R"("tune": [3, 30])", R"("tune": [3, 30, 300])",
       "x.json:19: methods.bc+ks: has 2 candidates, but ewc has 3: methods are compared after "
       "equal tuning"},
      {R"("tune": [3, 30])", R"("tune": [3, 3])",
       "x.json:18: methods.ewc.terms.ewc.strength.tune.1: this candidate"},
      {R"("seeds": [101])", R"("seeds": [101, 2])",
       "x.json:23: tuning.seeds: seed 2 is also a seed of the comparison"},
      {R"("far/success:mean")", R"("far/sucess:mean")",
       "x.json:23: tuning.measure: the measure 'far/sucess' is not in measures; did you mean "
       "'far/success'?"},
      {R"("far/success:mean")", R"("far/success:men")", "':men' is unknown; did you mean 'mean'?"},
      {R"("seeds": "1-3, 7")", R"("seeds": "1-x")",
       "x.json:21: seeds: this list: \"1-x\" is neither a seed nor a range"},
      {R"("none": {},)", R"("none": {}, "none": {},)", "x.json:17: methods.none stands here twice"},
      {R"("none": {},)", R"("no/ne": {},)", "x.json:17: methods.no/ne: 'no/ne' names a folder"},
      {R"("terms": ["--retain", "{terms}"],)", "", "no error"},  // the settings alone can be enough
      {R"("setting": ["--{term}-{setting}", "{value}"],)", "",
       "has settings, but the program 'agent' does not say"},
      {R"("teacher": "expert"})", R"("teacher": "clone"})", "is its own teacher"},
      {R"("teacher": "expert"})", R"("teacher": "export"})",
       "its teacher 'export' is unknown; did you mean 'expert'?"},
      {R"("tuning": {"seeds": [101], "measure": "far/success:mean"},)", "",
       "so the file needs \"tuning\""},
      {R"("seeds": "1-3, 7",)", R"("seeds": "1-3, 7")", "x.json:22: not valid JSON"},
  };
  for (const auto& each : cases) {
    CAPTURE(each[0], each[1]);
    CHECK_THAT(error_of(changed(good, each[0], each[1])), ContainsSubstring(each[2]));
  }
}

TEST_CASE("a number at the end of a line belongs to this line", "[compare]") {
  const auto file = parse_located("{\n \"a\": [\n  1\n ,\n  2\n ]\n}", "y");
  CHECK(file.lines.at("a") == 2);
  CHECK(file.lines.at("a.0") == 3);
  CHECK(file.lines.at("a.1") == 5);
}

TEST_CASE("edit distance", "[compare]") {
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("stpes", "steps") == 1);  // two neighbors swapped
}

TEST_CASE("shards are disjoint, complete, and have the teachers that they need", "[compare]") {
  const auto plan = parsed(good);
  const auto all =
      planner(plan, "/o", {}).comparison(plan.seeds, [](const task&, const method& how) {
        return how.candidate(0);
      });
  for (const std::size_t count : {1u, 2u, 3u, 4u, 9u, 50u}) {
    CAPTURE(count);
    std::map<std::string, int> seen;
    for (std::size_t index = 1; index <= count; ++index) {
      const auto part = shard_of(all, index, count);
      for (std::size_t i = 0; i < part.size(); ++i) {
        if (part[i].identity.at("kind") == "run") ++seen[part[i].name];
        for (const auto needed : part[i].after) {
          REQUIRE(needed < i);
          CHECK(part[i].command.end() != std::find(part[i].command.begin(), part[i].command.end(),
                                                   part[needed].product.string()));
        }
      }
    }
    CHECK(seen.size() == 24);
    for (const auto& [name, times] : seen) CHECK(times == 1);
  }
}

TEST_CASE("braces can be written", "[compare]") {
  const auto name = [](const std::string& text) { return "<" + text + ">"; };
  CHECK(substituted("a{x}b{{c}}{y}", name) == "a<x>b{c}<y>");
  CHECK_THROWS_WITH(substituted("a{x", name), ContainsSubstring("no closing"));
}

TEST_CASE("the experiments of this project are read", "[compare]") {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(RETAIN_SOURCE "/experiments")) {
    if (entry.path().extension() != ".json") continue;
    CAPTURE(entry.path().string());
    CHECK_NOTHROW(read_experiment(entry.path()));
    ++files;
  }
  CHECK(files >= 1);
}

}  // namespace experiment_test
