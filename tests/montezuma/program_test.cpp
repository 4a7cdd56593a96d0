// SPDX-License-Identifier: MIT
// The program as its user meets it: help, mistakes, Ctrl-C, and a sweep in miniature.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

#include "../../examples/common/columns.hpp"
#include "../common/program.hpp"

namespace montezuma_program_test {

using programs::read;

namespace {

const programs::program run(MONTEZUMA_PROGRAM);

}  // namespace

TEST_CASE("help names every subcommand, and each explains itself", "[montezuma][program]") {
  programs::check_help(
      run, {"pretrain", "clone", "finetune", "evaluate", "play", "make-states", "sweep", "report"});
}

TEST_CASE("a mistake is one clear line and an exit code", "[montezuma][program]") {
  const auto option = run("finetune --retian ewc");
  CHECK(option.code != 0);
  CHECK_THAT(option.text,
             ContainsSubstring("--retian") && ContainsSubstring("montezuma finetune --help"));
  const auto method = run("finetune --retain everything");
  CHECK(method.code != 0);
  CHECK_THAT(method.text, ContainsSubstring("everything"));
  CHECK(run("").code != 0);
  const auto teacher = run("finetune --teacher /nonexistent.pt");
  CHECK(teacher.code == 1);
  CHECK_THAT(teacher.text,
             ContainsSubstring("/nonexistent.pt") && ContainsSubstring("montezuma pretrain"));
  const auto expert = run("clone --expert /nonexistent.pt");
  CHECK(expert.code == 1);
  CHECK_THAT(expert.text, ContainsSubstring("/nonexistent.pt") &&
                              ContainsSubstring("montezuma pretrain --room 1"));
  const auto map = run("play --random --map flat");
  CHECK(map.code != 0);
  CHECK_THAT(map.text, ContainsSubstring("flat") && ContainsSubstring("standard, deep"));
  const auto nobody = run("play");
  CHECK(nobody.code == 1);
  CHECK_THAT(nobody.text, ContainsSubstring("--policy") && ContainsSubstring("--random"));
  const auto both = run("finetune --from-scratch --retain ewc");
  CHECK(both.code == 1);
  CHECK_THAT(both.text, ContainsSubstring("nothing to retain"));
  const auto nowhere = run("report /nonexistent");
  CHECK(nowhere.code == 1);
  CHECK_THAT(nowhere.text, ContainsSubstring("/nonexistent"));
}

TEST_CASE("who asks for the real game is told what is missing and where to put it",
          "[montezuma][program]") {
  const temporary_folder place;
  const auto file = place / "other.bin";
  std::ofstream(file) << "abc";
  const auto nothing = place / "nothing";
  for (const auto& command : {std::string("pretrain --backend ale"), std::string("make-states"),
                              "evaluate --backend ale --policy " + file.string()}) {
    CAPTURE(command);
    const auto asked = run(command + " --rom " + nothing.string());
    CHECK(asked.code == 1);
    CHECK(std::count(asked.text.begin(), asked.text.end(), '\n') == 1);
#if defined(MONTEZUMA_WITH_ALE) || defined(MONTEZUMA_WITH_PYTHON)
    CHECK_THAT(asked.text, ContainsSubstring(nothing.string()) &&
                               ContainsSubstring("ALE_ROMS_DIR") &&
                               ContainsSubstring("3347a6dd59049b15a38394aa2dafa585"));
    CHECK_THAT(
        run(command + " --rom " + file.string()).text,
        ContainsSubstring("900150983cd24fb0d6963f7d28e17f72") && ContainsSubstring("--any-rom"));
    const std::string python =
        std::filesystem::exists(RETAIN_TEST_PYTHON) ? " --python '" RETAIN_TEST_PYTHON "'" : "";
    const auto unknown = run(command + python + " --any-rom --rom " + file.string()).text;
    if (unknown.find("no package ale_py") != std::string::npos)
      skip_test("ale-py is not here: pip install -r tests/python_requirements.txt");
    else
      CHECK_THAT(unknown, ContainsSubstring("does not support"));
#else
    CHECK_THAT(asked.text, ContainsSubstring("Arcade Learning Environment") &&
                               ContainsSubstring("-Dale_DIR=") &&
                               ContainsSubstring("pybind11-dev"));
#endif
  }
  const auto there = run("make-states --out " + file.string());
  CHECK(there.code == 1);
  CHECK_THAT(there.text, ContainsSubstring("--overwrite"));
  CHECK(run("pretrain --backend atari").code != 0);
  CHECK(run("pretrain --preset hasty").code != 0);
  CHECK(run("make-states --rooms 24").code != 0);
  CHECK_THAT(run("pretrain --room 9 --out " + (place / "far").string()).text,
             ContainsSubstring("no room 9"));
}

TEST_CASE("play draws the world", "[montezuma][program]") {
  const auto shown = run("play --random --delay 0 --steps 3 --room 7");
  CHECK(shown.code == 0);
  CHECK_THAT(shown.text, ContainsSubstring("@") && ContainsSubstring("room 7  return 0  step 3"));
  // nobody is there to press one
  CHECK_THAT(run("play --keys").text, ContainsSubstring("stopped"));
  CHECK_THAT(run("play --random --room 13").text, ContainsSubstring("rooms are 0 to 7"));
  CHECK_THAT(run("play").text, ContainsSubstring("--random"));
}

#ifdef MONTEZUMA_WITH_PYTHON
TEST_CASE("the real game is played, drawn, explored and trained in, and a run goes on bit for bit",
          "[montezuma][program]") {
  const temporary_folder place;
  const std::string python = std::filesystem::exists(RETAIN_TEST_PYTHON)
                                 ? " --python '" RETAIN_TEST_PYTHON "'"
                                 : "",
                    states = " --states " + (place / "rooms.states").string(),
                    game = " --backend ale" + python + states;
  const auto shown = run("play --backend ale --random --delay 0 --steps 2" + python);
  if (shown.text.find("no package") != std::string::npos) {
    skip_test("ale-py is not here: python3 -m venv build/python && build/python/bin/pip install "
              "--no-deps -r tests/python_requirements.txt");
    return;
  }
  CHECK(shown.code == 0);
  CHECK_THAT(shown.text, ContainsSubstring("room 1  return 0  step 2  lives 6"));
  const auto made = run("make-states --rooms 0,2 --per-room 1 --minutes 4 --out " +
                        (place / "rooms.states").string() + python);
  INFO(made.text);
  REQUIRE(std::filesystem::exists(place / "rooms.states"));
  // the policy that is in the repository
  const auto taken =
      run("play --backend ale --delay 0 --steps 3 --room 2 --policy '" MONTEZUMA_POLICY "'" +
          python + states);
  INFO(taken.text);
  CHECK(taken.code == 0);
  CHECK_THAT(taken.text, ContainsSubstring("step 3"));
  const std::string small = " --games 4 --horizon 16 --minibatches 2 --evaluation-games 1 "
                            "--final-games 1 --evaluate-every 256";
  const auto taught = run("pretrain --room 1 --practice 1 --stay-in 1 --step-cap 40 --accept 0 "
                          "--memory 20 --steps 256 --out " +
                          (place / "teacher").string() + small + game);
  INFO(taught.text);
  REQUIRE(taught.code == 0);
  const auto options = "finetune --retain bc --bc-batch 8 --practice 1 --checkpoint-every 64 "
                       "--steps 1024 --teacher " +
                       (place / "teacher" / "teacher.pt").string() + small + game + " --out ";
  REQUIRE(run(options + (place / "whole").string()).code == 0);
  const auto part = place / "part";
  CHECK(run.interrupted(options + part.string(), part / "metrics.csv", 2) == 130);
  CHECK(run("finetune --resume " + part.string()).code == 0);
  CHECK(read(part / "policy.pt") == read(place / "whole" / "policy.pt"));
}
#endif

TEST_CASE("a run that Ctrl-C stops goes on to the same end, bit for bit", "[montezuma][program]") {
  const temporary_folder place;
  const auto teacher = place / "teacher";
  const auto made =
      run("pretrain --steps 16384 --accept 0 --memory 200 --evaluation-games 8 --out " +
          teacher.string());
  INFO(made.text);
  REQUIRE(made.code == 0);
  CHECK(std::filesystem::exists(teacher / "teacher.json"));
  const auto hopeless =
      "pretrain --steps 16384 --accept 1 --attempts 1 --evaluation-games 8 --out " +
      (place / "refused").string();
  CHECK(run(hopeless).code == 1);
  for (const std::string other : {" --seed 7", " --horizon 64", " --sticky 0.5"}) {
    CAPTURE(other);
    const auto another = run(hopeless + " --resume-if-possible" + other);
    CHECK(another.code == 1);
    CHECK_THAT(another.text,
               ContainsSubstring(other.substr(3, 4)) && ContainsSubstring("use the same value"));
  }

  const auto options = "finetune --teacher " + (teacher / "teacher.pt").string() +
                       " --retain ewc+bc+ks --steps 98304 --evaluate-every 16384 "
                       "--evaluation-games 8 --final-games 8 --out ";
  const auto whole = run(options + (place / "whole").string());
  INFO(whole.text);
  REQUIRE(whole.code == 0);
  CHECK_THAT(whole.text, ContainsSubstring("from room 7") && ContainsSubstring("from room 1"));
  const auto again = run(options + (place / "whole").string());
  CHECK(again.code == 1);
  CHECK_THAT(again.text, ContainsSubstring("--resume") && ContainsSubstring("--overwrite"));

  // Stopped behind the second evaluation, and again behind the third: wherever in a rollout it
  // happened to be.
  const auto metrics_of_part = place / "part" / "metrics.csv";
  CHECK(run.interrupted(options + (place / "part").string(), metrics_of_part, 3) == 130);
  CHECK_FALSE(std::filesystem::exists(place / "part" / "evaluation.json"));
  // another run does not go on from it
  for (const std::string other : {" --seed 7", " --retain bc"}) {
    CAPTURE(other);
    const auto mixed = run(options + (place / "part").string() + " --resume-if-possible" + other);
    CHECK(mixed.code == 1);
    CHECK_THAT(mixed.text,
               ContainsSubstring(other.substr(1, 6)) && ContainsSubstring("cannot continue"));
  }
  const auto resume = "finetune --resume " + (place / "part").string();
  CHECK(run.interrupted(resume, metrics_of_part, 4) == 130);
  const auto part = run(resume);
  INFO(part.text);
  REQUIRE(part.code == 0);
  CHECK(read(place / "part" / "policy.pt") == read(place / "whole" / "policy.pt"));
  // Row by row the same log, but for what was timed.
  const auto one_log = read_columns(metrics_of_part),
             other_log = read_columns(place / "whole" / "metrics.csv");
  REQUIRE(one_log.size() == other_log.size());
  for (const auto& [column, values] : one_log) {
    CAPTURE(column);
    const auto& others = other_log.at(column);
    REQUIRE(values.size() == others.size());
    if (column == "charts/SPS" || column.starts_with("time/")) continue;
    for (std::size_t i = 0; i < values.size(); ++i)
      CHECK((values[i] == others[i] || (std::isnan(values[i]) && std::isnan(others[i]))));
  }
  const auto one = nlohmann::json::parse(read(place / "part" / "evaluation.json")),
             other = nlohmann::json::parse(read(place / "whole" / "evaluation.json"));
  CHECK(one.at("start") == other.at("start"));
  CHECK(one.at("far") == other.at("far"));

  // What is at an end goes on with nothing: only its evaluation is made again, and no speed with
  // it.
  const auto evaluated = run(resume + " --final-games 4");
  CHECK(evaluated.code == 0);
  CHECK_FALSE(
      nlohmann::json::parse(read(place / "part" / "evaluation.json")).contains("steps_per_second"));
  // At strength 0 there is nothing to pull, and nothing to fail.
  CHECK(
      run("finetune --teacher " + (teacher / "teacher.pt").string() +
          " --retain bc --bc-strength 0 --steps 4096 --evaluation-games 2 --final-games 2 --out " +
          (place / "free").string())
          .code == 0);
  // Another teacher under the same name is another run's.
  const auto there =
      run("pretrain --steps 4096 --accept 0 --memory 200 --evaluation-games 8 --out " +
          teacher.string());
  CHECK(there.code == 1);
  CHECK_THAT(there.text, ContainsSubstring("contains a teacher already"));
  CHECK(run("pretrain --steps 4096 --accept 0 --memory 200 --evaluation-games 8 --final-games 8 "
            "--seed 2 --overwrite --out " +
            teacher.string())
            .code == 0);
  const auto other_teacher = run(resume);
  CHECK(other_teacher.code == 1);
  CHECK_THAT(other_teacher.text, ContainsSubstring("teacher_seed = 1, not 2"));

  const auto config = nlohmann::json::parse(read(place / "whole" / "config.json"));
  CHECK(config.at("settings").at("learning_rate") == 2e-3);
  CHECK(config.at("versions").contains("libtorch"));
  const auto metrics = read(place / "whole" / "metrics.csv");
  for (const std::string column : {"global_step", "far/success", "start/return", "far/kl",
                                   "charts/SPS", "losses/entropy", "retain/kickstarting"})
    CHECK_THAT(metrics.substr(0, metrics.find('\n')), ContainsSubstring(column));
  const auto looked =
      run("evaluate --games 4 --rooms 1,7 --policy " + (place / "whole" / "policy.pt").string());
  CHECK(looked.code == 0);
  CHECK_THAT(looked.text, ContainsSubstring("| 7 "));
}

TEST_CASE("a sweep in miniature makes teachers, runs and a report, and keeps what is finished",
          "[montezuma][program]") {
  const temporary_folder place;
  const auto command = "sweep --seeds 1 --methods scratch,none,bc --presets quick --steps 8192 "
                       "--teacher-steps 8192 --accept 0 "
                       "--finetune=--evaluation-games=4 --finetune=--final-games=4 --out " +
                       (place / "sweep").string();
  const auto listed = run(command + " --dry-run");
  CHECK(listed.code == 0);
  CHECK_THAT(listed.text, ContainsSubstring("pretrain") && ContainsSubstring("--from-scratch") &&
                              ContainsSubstring("--retain bc"));
  CHECK_FALSE(std::filesystem::exists(place / "sweep"));
  CHECK_THAT(run(command + " --finetune=--ewc-strenght=3").text,
             ContainsSubstring("--finetune:") && ContainsSubstring("--ewc-strenght"));
  CHECK_THAT(run(command + " --finetune=--seed=3").text,
             ContainsSubstring("the sweep sets --seed"));
  CHECK_FALSE(std::filesystem::exists(place / "sweep"));
  const auto first = run(command);
  INFO(first.text);
  REQUIRE(first.code == 0);
  CHECK_THAT(first.text, ContainsSubstring("| scratch ") && ContainsSubstring("| none ") &&
                             ContainsSubstring("| bc "));
  CHECK(std::filesystem::exists(place / "sweep" / "report" / "runs.csv"));
  CHECK_FALSE(
      std::filesystem::exists(place / "sweep" / "runs" / "quick-bc-seed1" / "checkpoint.state"));
  const auto again = run(command);
  CHECK(again.code == 0);
  CHECK_THAT(again.text, ContainsSubstring("4 of 4 steps were finished before"));
  const auto other = run("sweep --seeds 1 --steps 4096 --out " + (place / "sweep").string());
  CHECK(other.code == 1);
  CHECK_THAT(other.text, ContainsSubstring("another folder with --out"));
}

TEST_CASE("a sweep over clones trains one expert, and a clone of it a seed",
          "[montezuma][program]") {
  const temporary_folder place;
  const auto out = place / "sweep";
  const auto command = "sweep --task cloning-gap --seeds 1,2 --methods none,ks --presets quick "
                       "--steps 8192 --expert-steps 8192 --accept-return 0 --clone=--episodes=2 "
                       "--clone=--steps=20 --clone=--final-games=4 --clone=--memory=100 "
                       "--finetune=--evaluation-games=4 --finetune=--final-games=4 --out " +
                       out.string();
  const auto swept = run(command);
  INFO(swept.text);
  REQUIRE(swept.code == 0);
  CHECK_THAT(swept.text, ContainsSubstring("standard map, cloning gap, quick preset") &&
                             ContainsSubstring("| ks "));
  const auto clone = nlohmann::json::parse(read(out / "clone-seed1" / "teacher.json"));
  CHECK(clone.at("episodes") == 2);
  CHECK(clone.at("start").at("room") == 1);
  CHECK(clone.at("far").at("room") == 7);
  CHECK(read(out / "clone-seed1" / "teacher.pt") != read(out / "clone-seed2" / "teacher.pt"));
  const auto evaluation =
      nlohmann::json::parse(read(out / "runs" / "quick-ks-seed2" / "evaluation.json"));
  CHECK(evaluation.at("teacher").at("task") == "cloning-gap");
  CHECK(evaluation.at("teacher").at("room") == 7);

  const auto again = "clone --expert " + (out / "expert" / "teacher.pt").string() +
                     " --episodes 1 --steps 5 --final-games 4 --out " +
                     (out / "clone-seed1").string();
  const auto there = run(again);
  CHECK(there.code == 1);
  CHECK_THAT(there.text, ContainsSubstring("--overwrite"));
  const auto refused = run(again + " --overwrite --accept 1");
  CHECK(refused.code == 1);
  CHECK_THAT(refused.text, ContainsSubstring("--episodes"));
}

}  // namespace montezuma_program_test
