// SPDX-License-Identifier: MIT
// The program as its user meets it: help, mistakes, files.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "../common/program.hpp"

namespace toy_program_test {

using programs::read;

namespace {

const programs::program run(TOY_PROGRAM);

}  // namespace

TEST_CASE("toy: help names both problems and their options", "[toy][program]") {
  const auto all = run("--help");
  CHECK(all.code == 0);
  for (const std::string command : {"two-state", "apple"})
    CHECK_THAT(all.text, ContainsSubstring("  " + command + " "));
  const auto apple = run("apple --help");
  CHECK(apple.code == 0);
  for (const std::string option :
       {"--out", "--seeds", "--jobs", "--tune", "--methods", "--kfac-strength"})
    CHECK_THAT(apple.text, ContainsSubstring(option));
}

TEST_CASE("toy: a mistake is one clear line and an exit code", "[toy][program]") {
  const temporary_folder out;
  const auto to = " --out " + (out / "x").string();
  // Each start of LibTorch takes a third of a second.
  for (const auto& [arguments, says] :
       {std::pair<std::string, std::string>{"apple --seed 1" + to, "toy apple --help"},
        {"apple --methods everything" + to, "everything"},
        {"apple --seeds one" + to, "--seeds"},
        {"apple --distances 60 --seeds 1" + to, "--cap"},
        {"apple --tune --tuning-seeds 5-9 --seeds 9" + to, "seed 9 is in"},
        {"two-state --epsilon 2" + to, "--epsilon"}}) {
    const auto failed = run(arguments);
    CAPTURE(arguments, failed.text);
    CHECK(failed.code != 0);
    CHECK_THAT(failed.text, ContainsSubstring(says));
  }
  CHECK(!std::filesystem::exists(out / "x"));
  const auto unwritable = run("two-state --out /dev/null/x");
  CHECK(unwritable.code == 1);
  CHECK_THAT(unwritable.text, ContainsSubstring("/dev/null"));
}

TEST_CASE("toy two-state: table, curve, ascents and optima", "[toy][program]") {
  const temporary_folder out;
  const auto ran = run("two-state --starts 11 --points 100 --out " + out.path().string());
  INFO(ran.text);
  REQUIRE(ran.code == 0);
  CHECK_THAT(ran.text, ContainsSubstring("0.1111") && ContainsSubstring("2.2222") &&
                           ContainsSubstring("9.9289"));
  const auto file = nlohmann::json::parse(read(out / "two-state.json"));
  CHECK(std::abs(file.at("scg").at("optima").at(0).at("value").get<double>() - 20.0 / 9) < 1e-9);
  CHECK(std::abs(file.at("icg").at("optima").at(0).at("theta").get<double>() - 0.0795) < 1e-3);
  const auto lines = [&](const char* name) {
    const auto text = read(out / name);
    return std::count(text.begin(), text.end(), '\n');
  };
  CHECK(lines("curve.csv") == 1 + 2 * 101);
  CHECK(lines("ascents.csv") == 1 + 2 * 11 + 4);
  CHECK(read(out / "table.md") == ran.text.substr(0, ran.text.rfind("in ")));
  CHECK(std::filesystem::exists(out / "two-state.gp"));
}

TEST_CASE("toy apple: files, and the same runs whatever the number of jobs", "[toy][program]") {
  const temporary_folder out;
  const std::string small =
      "apple --distances 5,10 --signals 0.25,0.35 --distance 10 --seeds 1-2 --updates 40 --out " +
      out.path().string();
  const auto first = run(small + "/one --jobs 1"), second = run(small + "/two --jobs 2");
  INFO(first.text);
  REQUIRE(first.code == 0);
  REQUIRE(second.code == 0);
  for (const auto* file : {"table.md", "runs.csv", "curves.csv", "apple.json", "distances.gp",
                           "signals.gp", "plane.gp", "charges.gp"}) {
    CAPTURE(file);
    CHECK(std::filesystem::exists(out / "one" / file));
  }
  const auto runs = read(out / "one/runs.csv");
  CHECK(std::count(runs.begin(), runs.end(), '\n') == 1 + 3 * 2 * 6);
  CHECK(runs == read(out / "two/runs.csv"));
  CHECK(read(out / "one/curves.csv") == read(out / "two/curves.csv"));
  CHECK_THAT(first.text, ContainsSubstring("M = 5") && ContainsSubstring("c = 0.35") &&
                             ContainsSubstring("EWC, full Fisher"));
  const auto file = nlohmann::json::parse(read(out / "one/apple.json"));
  CHECK(file.at("summary").size() == 3 * 6);
  CHECK(file.at("settings").at("updates") == 40);
}

TEST_CASE("toy apple --tune: a grid on other seeds, and its choice", "[toy][program]") {
  const temporary_folder out;
  const auto ran = run("apple --tune --methods none,bc --distance 10 --seeds 1-2 --tuning-seeds "
                       "11-12 --updates 60 --out " +
                       out.path().string());
  INFO(ran.text);
  REQUIRE(ran.code == 0);
  CHECK_THAT(ran.text,
             ContainsSubstring("+ BC 10000") && ContainsSubstring("Largest mean over training"));
  const auto tried = read(out / "strengths.csv");
  CHECK(std::count(tried.begin(), tried.end(), '\n') == 1 + 18 * 2);
  const auto file = nlohmann::json::parse(read(out / "strengths.json"));
  CHECK(file.at("chosen").at("learns").contains("bc"));
  CHECK(std::filesystem::exists(out / "chosen.csv"));
}

}  // namespace toy_program_test
