// SPDX-License-Identifier: MIT
#include "../../examples/common/resume.hpp"

#include <filesystem>
#include <string>
#include <vector>

#include "../../examples/common/temporary_folder.hpp"
#include "catch2.hpp"

namespace nethack_resume_test {

namespace {

using words = std::vector<std::string>;

struct command {
  int steps = 10, seed = 1;
  words saves;
  std::string out, resume;
  words arguments;
};

void declare(CLI::App* app, command& o) {
  app->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app->add_option("--steps", o.steps)->capture_default_str();
  app->add_option("--seed", o.seed)->capture_default_str();
  app->add_option("--saves", o.saves)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app->add_option("--out", o.out);
  app->add_option("--resume", o.resume);
}

}  // namespace

TEST_CASE("a resumed run has its own command line, with what was said anew", "[nethack][resume]") {
  const temporary_folder folder;
  const auto here = std::filesystem::current_path();
  write_json(folder / "config.json",
             {{"arguments", {"--seed", "3", "--saves", "a", "b", "--steps=20", "--out", "run"}},
              {"working_directory", here.string()}});
  const auto resumed = [&](const words& said) {
    return resumed_command<command>(folder.path().string(), said, declare,
                                    {"--steps", "--saves", "--resume"});
  };
  const auto same = resumed({"--resume", folder.path().string()});
  CHECK(same.seed == 3);
  CHECK(same.steps == 20);
  CHECK(same.saves == words{"a", "b"});
  CHECK(std::filesystem::equivalent(same.out, folder.path()));
  // all saves are said anew, not one more
  const auto more =
      resumed({"--resume=" + folder.path().string(), "--steps", "30", "--saves", "c"});
  CHECK(more.steps == 30);
  CHECK(more.saves == words{"c"});
  CHECK(more.seed == 3);
  CHECK_THROWS_WITH(resumed({"--seed", "4"}), ContainsSubstring("--seed 3") &&
                                                  ContainsSubstring("cannot continue with 4") &&
                                                  ContainsSubstring("--steps"));

  words line{"--a", "1", "--saves", "x", "y", "--b", "--saves=z", "w", "--saveall"};
  forget_option(line, "--saves");
  CHECK(line == words{"--a", "1", "--b", "--saveall"});
}

TEST_CASE(
    "a command that is said again is the run's, but for what may change and how a file is named",
    "[nethack][resume]") {
  const temporary_folder folder;
  const auto here = std::filesystem::current_path();
  write_json(folder / "config.json", {{"arguments", {"--saves", "a", "b", "--out", "run"}},
                                      {"working_directory", here.string()}});
  const auto check = [&](const words& said) {
    check_same_run<command>(folder.path().string(), said, declare, {"--steps"});
  };
  CHECK_NOTHROW(check({"--out", "elsewhere", "--saves", "a", "b", "--steps", "99"}));
  // all of them count
  CHECK_THROWS_WITH(check({"--saves", "c", "b"}),
                    ContainsSubstring("--saves a b") && ContainsSubstring("c b"));
  CHECK_THROWS_WITH(check({"--saves", "a", "b", "--seed", "2"}), ContainsSubstring("--seed 1"));
}

TEST_CASE("settings are the same but for those that may change", "[nethack][resume]") {
  const nlohmann::json before{{"seed", 1}, {"steps", 10}};
  CHECK_NOTHROW(
      check_same_settings("folder", "an attempt", before, {{"seed", 1}, {"steps", 20}}, {"steps"}));
  CHECK_THROWS_WITH(check_same_settings("folder", "an attempt", before, {{"seed", 2}}),
                    ContainsSubstring("folder holds an attempt with seed = 1, not 2"));
  CHECK_THROWS_WITH(check_same_settings("folder", "an attempt", before, {{"width", 2}}),
                    ContainsSubstring("width = null"));
}

}  // namespace nethack_resume_test
