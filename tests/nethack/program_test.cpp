// SPDX-License-Identifier: MIT
// The program as its user meets it: help, mistakes, and the whole demo in miniature.
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "../../examples/nethack/playground.hpp"
#include "../common/program.hpp"

using programs::read;

namespace {

const programs::program run(NETHACK_PROGRAM);

}  // namespace

TEST_CASE("help names every subcommand, and each explains itself", "[nethack][program]") {
  programs::check_help(run, {"record", "pretrain", "finetune", "evaluate", "save-states", "play", "demo", "sweep", "report"});
  for (const std::string command : {"record", "pretrain", "finetune", "evaluate", "save-states", "demo", "sweep", "report"}) {
    CAPTURE(command);
    CHECK_THAT(run(command + " --help").text, ContainsSubstring("--out"));
  }
}

TEST_CASE("a mistake is one clear line and an exit code", "[nethack][program]") {
  const auto option = run("finetune --retian ewc");
  CHECK(option.code != 0);
  CHECK_THAT(option.text, ContainsSubstring("--retian") && ContainsSubstring("nethack finetune --help"));
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
  const auto seeds = run("sweep --dry-run --seeds one");
  CHECK(seeds.code == 1);
  CHECK_THAT(seeds.text, ContainsSubstring("--seeds"));
}

TEST_CASE("the demo in miniature goes the whole way, and resumes", "[nethack][program]") {
  if (!std::filesystem::exists(nethack::default_package)) {
    std::cout << "SKIPPED: nethack-console is not installed\n";
    return;
  }
  const temporary_folder place;
  const auto folder = place.path();
  const std::string command = "demo --minutes 0.3 --methods none,ewc,bc,ks --out " + folder.string();
  const auto first = run(command);
  INFO(first.text);
  REQUIRE(first.code == 0);
  for (const auto* file : {"demonstrations.bin", "held_out.bin", "clone.pt", "table.md", "table.csv", "report/report.json",
                           "runs/ewc/config.json", "runs/ewc/metrics.csv", "runs/ewc/episodes.csv", "runs/ewc/evaluation.json",
                           "runs/ewc/policy.pt"}) {
    CAPTURE(file);
    CHECK(std::filesystem::exists(folder / file));
  }
  const auto text = read(folder / "table.md");
  for (const std::string row : {"random", "player", "clone", "none", "ewc", "bc", "ks"}) CHECK_THAT(text, ContainsSubstring("| " + row));
  CHECK_THAT(first.text, ContainsSubstring("nethack sweep") && ContainsSubstring("One seed"));
  const auto metrics = read(folder / "runs/ewc/metrics.csv");
  for (const std::string column : {"global_step", "charts/episodic_return", "charts/SPS", "losses/", "retain/", "kl/close", "kl/far"})
    CHECK_THAT(metrics.substr(0, metrics.find('\n')), ContainsSubstring(column));
  const auto config = nlohmann::json::parse(read(folder / "runs/ewc/config.json"));
  CHECK(config.contains("versions"));

  // Started again, it has nothing to do; without one run's evaluation, it does that one again.
  std::filesystem::remove(folder / "runs/ks/evaluation.json");
  const auto again = run(command);
  CHECK(again.code == 0);
  CHECK_THAT(again.text, ContainsSubstring("9 of 10 steps were finished before"));
  REQUIRE(std::filesystem::exists(folder / "runs/ks/evaluation.json"));

  // A run goes on as it was begun, whether its folder is named or its whole command said again; and it is not lost to one that cannot begin.
  const auto run_of_ks = folder / "runs/ks";
  const auto found = read(run_of_ks / "evaluation.json"), checkpoint = read(run_of_ks / "checkpoint.state");
  const auto begun_with = nlohmann::json::parse(read(run_of_ks / "config.json")).at("arguments").get<std::vector<std::string>>();
  std::string whole = "finetune";
  for (const auto& word : begun_with) whole.append(" ").append(word);
  for (const std::string other : {" --seed 7", " --retain bc", " --ks-strength 3", " --turns 100"}) {
    CAPTURE(other);
    for (const auto& begun : {"finetune --resume " + run_of_ks.string(), whole}) {
      const auto refused = run(begun + other);
      CHECK(refused.code == 1);
      CHECK_THAT(refused.text, ContainsSubstring(other.substr(1, 6)) && ContainsSubstring("cannot go on"));
    }
  }
  const auto no_policy = run("finetune --overwrite --policy " + (folder / "nothing.pt").string() + " --out " + run_of_ks.string());
  CHECK(no_policy.code == 1);
  CHECK(read(run_of_ks / "evaluation.json") == found);
  CHECK(read(run_of_ks / "checkpoint.state") == checkpoint);
}
