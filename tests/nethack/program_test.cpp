// SPDX-License-Identifier: MIT
// The program as its user meets it: help, mistakes, and the whole demo in miniature.
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "../../examples/nethack/playground.hpp"
#include "../common/program.hpp"

namespace nethack_program_test {

using programs::read;

namespace {

const programs::program run(NETHACK_PROGRAM);

}  // namespace

TEST_CASE("help names every subcommand, and each explains itself", "[nethack][program]") {
  programs::check_help(run, {"record", "pretrain", "finetune", "evaluate", "save-states", "play",
                             "demo", "sweep", "report"});
  for (const std::string command :
       {"record", "pretrain", "finetune", "evaluate", "save-states", "demo", "sweep", "report"}) {
    CAPTURE(command);
    CHECK_THAT(run(command + " --help").text, ContainsSubstring("--out"));
  }
}

TEST_CASE("a mistake is one clear line and an exit code", "[nethack][program]") {
  const auto option = run("finetune --retian ewc");
  CHECK(option.code != 0);
  CHECK_THAT(option.text,
             ContainsSubstring("--retian") && ContainsSubstring("nethack finetune --help"));
  const auto method = run("finetune --retain everything");
  CHECK(method.code != 0);
  CHECK_THAT(method.text, ContainsSubstring("everything"));
  const auto nothing = run("");
  CHECK(nothing.code != 0);
  const auto nobody = run("evaluate --games 1");
  CHECK(nobody.code == 1);
  CHECK_THAT(nobody.text, ContainsSubstring("--policy") && ContainsSubstring("--player"));
  const auto nowhere = run("report /nonexistent");
  CHECK(nowhere.code == 1);
  CHECK_THAT(nowhere.text, ContainsSubstring("/nonexistent"));
  for (const std::string nothing_to_learn :
       {"--minibatch 0", "--games 0", "--epochs 0", "--clip -0.5"}) {
    CAPTURE(nothing_to_learn);
    CHECK_THAT(run("finetune " + nothing_to_learn).text,
               ContainsSubstring(nothing_to_learn.substr(0, 6)) &&
                   ContainsSubstring("must be a number above 0, not"));
  }
  CHECK(run("sweep --dry-run --recipes hasty").code != 0);
  CHECK_THAT(run("sweep --dry-run --clone /nonexistent.pt").text,
             ContainsSubstring("/nonexistent.pt"));
  const temporary_folder saves;
  for (const auto* half : {"a", "b"}) {
    std::filesystem::create_directories(saves / half / "depth3");
    std::ofstream(saves / half / "depth3" / "000.save") << "a";
  }
  const auto twice = run("evaluate --random --games 0 --from " + (saves / "a" / "depth3").string() +
                         " " + (saves / "b" / "depth3").string());
  CHECK(twice.code == 1);
  CHECK_THAT(twice.text, ContainsSubstring("the name depth3"));
  CHECK_THAT(run("sweep --dry-run --finetune=--ewc-strenght=3").text,
             ContainsSubstring("--finetune:") && ContainsSubstring("--ewc-strenght"));
  CHECK_THAT(run("sweep --dry-run --finetune=--freeze=encoder --finetune=--recipe=paper").text,
             ContainsSubstring("the sweep sets --recipe"));
  CHECK(run("sweep --dry-run --finetune=--freeze=encoder --finetune=--ks-floor=0.05").code == 0);
  const auto seeds = run("sweep --dry-run --seeds one");
  CHECK(seeds.code == 1);
  CHECK_THAT(seeds.text, ContainsSubstring("--seeds"));
}

TEST_CASE("the demo in miniature goes the whole way, and resumes", "[nethack][program]") {
  if (!std::filesystem::exists(nethack::default_package)) {
    skip_test("nethack-console is not installed");
    return;
  }
  const temporary_folder place;
  const auto folder = place.path();
  const std::string command =
      "demo --minutes 0.3 --methods none,ewc,bc,ks --out " + folder.string();
  const auto first = run(command);
  INFO(first.text);
  REQUIRE(first.code == 0);
  for (const auto* file :
       {"demonstrations.bin", "held_out.bin", "clone.pt", "table.md", "table.csv",
        "report/report.json", "runs/ewc/config.json", "runs/ewc/metrics.csv",
        "runs/ewc/episodes.csv", "runs/ewc/evaluation.json", "runs/ewc/policy.pt"}) {
    CAPTURE(file);
    CHECK(std::filesystem::exists(folder / file));
  }
  const auto text = read(folder / "table.md");
  for (const std::string row : {"random", "player", "clone", "none", "ewc", "bc", "ks"})
    CHECK_THAT(text, ContainsSubstring("| " + row));
  CHECK_THAT(first.text, ContainsSubstring("nethack sweep") && ContainsSubstring("One seed"));
  const auto metrics = read(folder / "runs/ewc/metrics.csv");
  for (const std::string column : {"global_step", "charts/episodic_return", "charts/SPS", "losses/",
                                   "retain/", "kl/close", "kl/far"})
    CHECK_THAT(metrics.substr(0, metrics.find('\n')), ContainsSubstring(column));
  const auto config = nlohmann::json::parse(read(folder / "runs/ewc/config.json"));
  CHECK(config.contains("versions"));

  // Started again, it has nothing to do; without one run's evaluation, it does that one again.
  std::filesystem::remove(folder / "runs/ks/evaluation.json");
  const auto again = run(command);
  CHECK(again.code == 0);
  CHECK_THAT(again.text, ContainsSubstring("9 of 10 steps were finished before"));
  REQUIRE(std::filesystem::exists(folder / "runs/ks/evaluation.json"));

  // A run goes on as it was begun, whether its folder is named or its whole command said again; and
  // it is not lost to one that cannot begin.
  const auto run_of_ks = folder / "runs/ks";
  const auto found = read(run_of_ks / "evaluation.json"),
             checkpoint = read(run_of_ks / "checkpoint.state");
  const auto begun_with = nlohmann::json::parse(read(run_of_ks / "config.json"))
                              .at("arguments")
                              .get<std::vector<std::string>>();
  std::string whole = "finetune";
  for (const auto& word : begun_with) whole.append(" ").append(word);
  for (const std::string other :
       {" --seed 7", " --retain bc", " --ks-strength 3", " --turns 100"}) {
    CAPTURE(other);
    for (const auto& begun : {"finetune --resume " + run_of_ks.string(), whole}) {
      const auto refused = run(begun + other);
      CHECK(refused.code == 1);
      CHECK_THAT(refused.text,
                 ContainsSubstring(other.substr(1, 6)) && ContainsSubstring("cannot continue"));
    }
  }

  // Stopped in the middle, it goes on to its end, and its log has every step once.
  const auto part = folder / "part";
  const auto options = "finetune --policy " + (folder / "clone.pt").string() +
                       " --demonstrations " + (folder / "demonstrations.bin").string() +
                       " --retain ks+bc --bc-states 2000 --steps 16384 --evaluation-games 2 "
                       "--evaluation-turns 50 --out " +
                       part.string();
  const auto no_saves = run(options + " --saves " + (folder / "nowhere").string());
  CHECK(no_saves.code == 1);  // now, not when the training is over
  CHECK_THAT(no_saves.text, ContainsSubstring("nowhere") && ContainsSubstring("save-states"));
  CHECK_FALSE(std::filesystem::exists(part / "config.json"));
  CHECK(run.interrupted(options, part / "metrics.csv", 3) == 130);
  CHECK_FALSE(std::filesystem::exists(part / "evaluation.json"));
  const auto resumed = run("finetune --resume " + part.string());
  INFO(resumed.text);
  REQUIRE(resumed.code == 0);
  const auto evaluation = nlohmann::json::parse(read(part / "evaluation.json"));
  CHECK(evaluation.at("training").at("method") == "bc+ks");
  CHECK(evaluation.at("training").at("steps") == 16384);
  CHECK(evaluation.at("training").at("steps_per_second").get<double>() > 0);
  std::vector<long> steps;
  std::istringstream lines(read(part / "metrics.csv"));
  std::string line;
  for (std::getline(lines, line); std::getline(lines, line);) steps.push_back(std::stol(line));
  CHECK(steps == std::vector<long>{2048, 4096, 6144, 8192, 10240, 12288, 14336, 16384});
  // Only its evaluation again: no speed was measured.
  std::filesystem::remove(part / "evaluation.json");
  CHECK(run("finetune --resume " + part.string()).code == 0);
  CHECK_FALSE(nlohmann::json::parse(read(part / "evaluation.json"))
                  .at("training")
                  .contains("steps_per_second"));

  const auto into_run = run("evaluate --random --games 1 --turns 10 --out " + part.string());
  CHECK(into_run.code == 1);
  CHECK_THAT(into_run.text, ContainsSubstring("another --out"));
  CHECK_THAT(run("evaluate --games 1 --policy " + (part / "policy.pt").string() + " --held-out " +
                 (folder / "held_out.bin").string())
                 .text,
             ContainsSubstring("--teacher"));
  CHECK_THAT(run("pretrain --demonstrations " + (folder / "demonstrations.bin").string() +
                 " --out " + (folder / "clone.pt").string())
                 .text,
             ContainsSubstring("--overwrite"));
  CHECK_THAT(run("demo --minutes 0.5 --out " + folder.string()).text,
             ContainsSubstring("minutes = 0.3, not 0.5"));

  const auto no_policy = run("finetune --overwrite --policy " + (folder / "nothing.pt").string() +
                             " --out " + run_of_ks.string());
  CHECK(no_policy.code == 1);
  CHECK(read(run_of_ks / "evaluation.json") == found);
  CHECK(read(run_of_ks / "checkpoint.state") == checkpoint);
}

}  // namespace nethack_program_test
