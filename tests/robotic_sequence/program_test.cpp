// SPDX-License-Identifier: MIT
// The program as its user meets it: help, mistakes, Ctrl-C, and a sweep in miniature.
#include <algorithm>
#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "../common/program.hpp"

namespace robotic_sequence_program_test {

using programs::read;

namespace {

const programs::program run(ROBOTIC_SEQUENCE_PROGRAM);

/// The number of steps in "has made N steps".
std::string steps_made(const std::string& text) {
  const std::string before = "has made ";
  const auto at = text.find(before);
  REQUIRE(at != std::string::npos);
  return text.substr(at + before.size(), text.find(' ', at + before.size()) - at - before.size());
}

}  // namespace

TEST_CASE("robotic_sequence: help names every subcommand, and each explains itself",
          "[robotic_sequence][program]") {
  programs::check_help(run, {"pretrain", "finetune", "evaluate", "play", "sweep", "report"});
}

TEST_CASE("robotic_sequence: a mistake is one clear line and an exit code",
          "[robotic_sequence][program]") {
  const auto option = run("finetune --retian ewc");
  CHECK(option.code != 0);
  CHECK_THAT(option.text, ContainsSubstring("--retian") &&
                              ContainsSubstring("robotic_sequence finetune --help"));
  const auto method = run("finetune --retain everything");
  CHECK(method.code != 0);
  CHECK_THAT(method.text, ContainsSubstring("everything") &&
                              ContainsSubstring("em, ks, or several terms joined by +"));
  CHECK(run("").code != 0);
  const auto teacher = run("finetune --teacher /nonexistent.pt");
  CHECK(teacher.code == 1);
  CHECK_THAT(teacher.text, ContainsSubstring("/nonexistent.pt") &&
                               ContainsSubstring("robotic_sequence pretrain"));
  const auto both = run("finetune --from-scratch --retain ewc");
  CHECK(both.code == 1);
  CHECK_THAT(both.text, ContainsSubstring("nothing to retain"));
  CHECK_THAT(run("finetune --retain bc+").text, ContainsSubstring("no retention method ''"));
  CHECK_THAT(run("finetune --alpha-floor 0").text,
             ContainsSubstring("--alpha-floor") && ContainsSubstring("above 0"));
  CHECK_THAT(run("play --scripted --from unplug").text,
             ContainsSubstring("cannot play unplug") && ContainsSubstring("--from"));
  const auto nobody = run("play");
  CHECK(nobody.code == 1);
  CHECK_THAT(nobody.text, ContainsSubstring("--policy") && ContainsSubstring("--scripted"));
  const auto policy = run("evaluate --policy /nonexistent.pt");
  CHECK(policy.code == 1);
  CHECK_THAT(policy.text, ContainsSubstring("/nonexistent.pt"));
  const auto nowhere = run("report /nonexistent");
  CHECK(nowhere.code == 1);
  CHECK_THAT(nowhere.text, ContainsSubstring("/nonexistent"));
  CHECK(run("sweep --stages 7").code != 0);
  CHECK(run("sweep --methods ewc,nothing").code != 0);
}

TEST_CASE("robotic_sequence: a run that Ctrl-C stops goes on to the same end, bit for bit, with "
          "heads and with one-hots",
          "[robotic_sequence][program]") {
  for (const std::string stages : {"", " --one-hot"}) {
    CAPTURE(stages);
    const temporary_folder place;
    const auto teacher = place / "teacher";
    const auto made =
        run("pretrain --steps 2500 --accept 0 --memory 500 --width 16 --final-episodes 4 --out " +
            teacher.string() + stages);
    INFO(made.text);
    REQUIRE(made.code == 0);
    CHECK(nlohmann::json::parse(read(teacher / "teacher.json")).at("success").contains("unplug"));
    const auto hopeless = "pretrain --accept 1 --width 16 --final-episodes 4 --out " +
                          (place / "refused").string() + stages;
    const auto refused = run(hopeless + " --steps 1500 --attempts 1");
    CHECK(refused.code == 1);
    CHECK_THAT(refused.text, ContainsSubstring("--attempts"));
    const auto another = run(hopeless + " --steps 1500 --attempts 2 --resume-if-possible --seed 7");
    CHECK(another.code == 1);
    CHECK_THAT(another.text, ContainsSubstring("seed = 1") && ContainsSubstring("7") &&
                                 !ContainsSubstring("attempt 1:"));
    const auto more = run(hopeless + " --steps 1500 --attempts 2 --resume-if-possible");
    CHECK_THAT(more.text, ContainsSubstring("attempt 2:"));  // the first is not trained again

    const auto options = "finetune --teacher " + (teacher / "teacher.pt").string() +
                         " --retain ewc+bc+em+ks --steps 4000 --capacity 3000 --evaluate-every 500 "
                         "--evaluation-episodes 2 --final-episodes 4 --out ";
    const auto whole = run(options + (place / "whole").string());
    INFO(whole.text);
    REQUIRE(whole.code == 0);
    CHECK_THAT(whole.text, ContainsSubstring("push-wall"));
    const auto again = run(options + (place / "whole").string());
    CHECK(again.code == 1);
    CHECK_THAT(again.text, ContainsSubstring("--resume") && ContainsSubstring("--overwrite"));

    CHECK(run.interrupted(options + (place / "part").string(), place / "part" / "metrics.csv", 5) ==
          130);
    CHECK_FALSE(std::filesystem::exists(place / "part" / "evaluation.json"));
    const auto before = read(place / "part" / "metrics.csv");
    const auto changed = run("finetune --seed 7 --resume " + (place / "part").string());
    CHECK(changed.code == 1);
    CHECK_THAT(changed.text, ContainsSubstring("--seed 1") && ContainsSubstring("7") &&
                                 ContainsSubstring("--steps"));
    const auto kept_otherwise = run("finetune --retain bc --resume " + (place / "part").string());
    CHECK(kept_otherwise.code == 1);
    CHECK_THAT(kept_otherwise.text, ContainsSubstring("was started with --retain ewc+bc+em+ks") &&
                                        ContainsSubstring("cannot continue with bc"));
    // Nor does the whole command said again make another run of it.
    for (const std::string other : {" --seed 7", " --value-bound 100", " --from-scratch"}) {
      CAPTURE(other);
      const auto mixed = run(options + (place / "part").string() + " --resume-if-possible" + other);
      CHECK(mixed.code == 1);
      CHECK_THAT(mixed.text, ContainsSubstring(other.substr(1, 6)));
    }
    CHECK(read(place / "part" / "metrics.csv") == before);
    const auto again_in_full = options + (place / "part").string() +
                               " --resume-if-possible --teacher " +
                               (teacher / ".." / "teacher" / "teacher.pt").string();
    const auto part =
        run(stages.empty() ? "finetune --resume " + (place / "part").string() : again_in_full);
    INFO(part.text);
    REQUIRE(part.code == 0);
    // it went on, speeds and all, and did not begin again
    CHECK(read(place / "part" / "metrics.csv").starts_with(before));
    CHECK(read(place / "part" / "policy.pt") == read(place / "whole" / "policy.pt"));
    const auto one = nlohmann::json::parse(read(place / "part" / "evaluation.json")),
               other = nlohmann::json::parse(read(place / "whole" / "evaluation.json"));
    CHECK(one.at("success") == other.at("success"));
    const auto metrics = read(place / "whole" / "metrics.csv");
    for (const std::string column :
         {"global_step", "success/all", "success/push-wall", "alpha/unplug", "charts/SPS",
          "losses/entropy", "retain/behavioral_cloning"})
      CHECK_THAT(metrics.substr(0, metrics.find('\n')), ContainsSubstring(column));

    const auto config = nlohmann::json::parse(read(place / "whole" / "config.json"));
    CHECK(config.at("retention").at("ewc") == 1);
    CHECK(config.at("seed") == 1);
    CHECK(config.at("method") == "ewc+bc+em+ks");
    CHECK(config.at("retention").at("memory_rows") == 500);  // what the teacher has
    CHECK(config.at("settings").at("capacity") == 3000);

    // An end that lies behind it is none, and nothing is lost to the attempt.
    const auto shorter = run("finetune --steps 2000 --resume " + (place / "whole").string());
    CHECK(shorter.code == 1);
    CHECK_THAT(shorter.text, ContainsSubstring("4000 steps") && ContainsSubstring("2000"));
    CHECK(std::filesystem::exists(place / "whole" / "evaluation.json"));

    // One that was stopped anywhere may end there, and can be reported on.
    const auto cut = place / "cut";
    CHECK(run.interrupted(options + cut.string(), cut / "metrics.csv", 4) == 130);
    const auto at = steps_made(run("finetune --steps 1 --resume " + cut.string()).text);
    const auto ended = run("finetune --steps " + at + " --resume " + cut.string());
    INFO(ended.text);
    CHECK(ended.code == 0);
    CHECK(run("report " + cut.string() + " --out " + (place / "report").string()).code == 0);
    const auto rows = read(cut / "metrics.csv");
    CHECK(run("finetune --steps " + at + " --resume " + cut.string()).code == 0);
    CHECK(read(cut / "metrics.csv") == rows);  // not measured twice

    // Without its log it does not go on, and keeps what there is.
    std::filesystem::remove(cut / "metrics.csv");
    const auto no_log = run("finetune --steps 5000 --resume " + cut.string());
    CHECK(no_log.code == 1);
    CHECK_THAT(no_log.text, ContainsSubstring("metrics.csv is missing"));
    CHECK(std::filesystem::exists(cut / "evaluation.json"));

    const auto briefly =
        "finetune --steps 1001 --evaluation-episodes 1 --final-episodes 1 --teacher " +
        (teacher / "teacher.pt").string() + " --out ";
    const auto unused = run(briefly + (place / "unused").string() +
                            " --ewc-strength 3 --fisher continual-world --memory 100 --steps 1001");
    INFO(unused.text);
    CHECK(unused.code == 0);
    CHECK_THAT(unused.text, ContainsSubstring("note: ") && ContainsSubstring("--fisher") &&
                                ContainsSubstring("--ewc-strength") &&
                                ContainsSubstring("--memory") &&
                                ContainsSubstring("no effect with --retain none") &&
                                !ContainsSubstring("--steps,"));
    CHECK_THAT(run(briefly + (place / "full").string() + " --retain em --capacity 500").text,
               ContainsSubstring("--memory: 500") && ContainsSubstring("--capacity of 500"));
    CHECK_THAT(run(briefly + (place / "hot").string() + " --alpha-floor 1").text,
               ContainsSubstring("--alpha-floor 1") && ContainsSubstring("--known-alpha-cap"));
    CHECK_FALSE(std::filesystem::exists(place / "hot"));

    // Nor is it lost to one that cannot begin.
    const auto no_teacher = run("finetune --teacher " + (place / "whole" / "config.json").string() +
                                " --overwrite --out " + (place / "whole").string());
    CHECK(no_teacher.code == 1);
    CHECK(std::filesystem::exists(place / "whole" / "evaluation.json"));
    CHECK(std::filesystem::exists(place / "whole" / "checkpoint.state"));

    // A finished run is not lost to the line that made it, nor is its end said of a run that goes
    // on from it.
    std::filesystem::remove(place / "whole" / "checkpoint.state");
    const auto finished = run(options + (place / "whole").string() + " --resume-if-possible");
    CHECK(finished.code == 1);
    CHECK_THAT(finished.text, ContainsSubstring("finished") && ContainsSubstring("--overwrite"));
    CHECK(run("pretrain --steps 2500 --accept 0 --width 16 --resume-if-possible --out " +
              teacher.string())
              .code == 1);
    CHECK(run.interrupted("finetune --steps 100000 --resume " + (place / "part").string(),
                          place / "part" / "metrics.csv", 11) == 130);
    CHECK_FALSE(std::filesystem::exists(place / "part" / "evaluation.json"));

    const auto policy = (place / "whole" / "policy.pt").string();
    const auto looked = run("evaluate --episodes 2 --policy " + policy);
    INFO(looked.text);
    CHECK(looked.code == 0);
    CHECK_THAT(looked.text, ContainsSubstring("unplug"));
    const auto shown = run("play --delay 0 --policy " + policy);
    CHECK(shown.code == 0);
  }
}

TEST_CASE("robotic_sequence: a sweep in miniature makes teachers, runs and a report, and keeps "
          "what is finished",
          "[robotic_sequence][program]") {
  const temporary_folder place;
  const auto command = "sweep --seeds 1 --methods scratch,none,bc,ewc-cw --stages 3 --steps 1500 "
                       "--teacher-steps 2500 --accept 0 "
                       "--finetune=--evaluation-episodes=1 --finetune=--final-episodes=2 --out " +
                       (place / "sweep").string();
  const auto listed = run(command + " --dry-run");
  CHECK(listed.code == 0);
  CHECK_THAT(listed.text, ContainsSubstring("pretrain") && ContainsSubstring("--from-scratch") &&
                              ContainsSubstring("--fisher continual-world"));
  CHECK_THAT(run(command + " --finetune=--ewc-strenght=3").text,
             ContainsSubstring("--finetune:") && ContainsSubstring("--ewc-strenght"));
  CHECK_THAT(run(command + " --finetune=--stages=4").text,
             ContainsSubstring("the sweep sets --stages"));
  CHECK_FALSE(std::filesystem::exists(place / "sweep"));
  const auto first = run(command);
  INFO(first.text);
  REQUIRE(first.code == 0);
  CHECK_THAT(first.text, ContainsSubstring("scratch") && ContainsSubstring("bc"));
  CHECK(std::filesystem::exists(place / "sweep" / "report" / "runs.csv"));
  CHECK_FALSE(
      std::filesystem::exists(place / "sweep" / "runs" / "3-stages-bc-seed1" / "checkpoint.state"));
  const auto again = run(command);
  CHECK(again.code == 0);
  CHECK_THAT(again.text, ContainsSubstring("5 of 5 steps were finished before"));
  const auto other = run("sweep --seeds 1 --steps 1600 --out " + (place / "sweep").string());
  CHECK(other.code == 1);
  CHECK_THAT(other.text, ContainsSubstring("another folder with --out"));
}

}  // namespace robotic_sequence_program_test
