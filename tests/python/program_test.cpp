// SPDX-License-Identifier: MIT
// The program `gymnasium` as its user meets it.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <string>

#include "../common/program.hpp"
#include "packages.hpp"

namespace python_program_test {

namespace {

const programs::program run(GYMNASIUM_PROGRAM);

std::string with_python() {
  return python_of_tests().empty() ? "" : " --python " + python_of_tests();
}

}  // namespace

TEST_CASE("gymnasium: a mistake is one clear line and an exit code", "[python][program]") {
  programs::check_help(run, {"finetune"});
  CHECK(run("").code != 0);
  for (const auto& [options, expected] :
       {std::pair{"finetune --change length", "NAME=NUMBER"},
        std::pair{"finetune --change length=two", "NAME=NUMBER"},
        std::pair{"finetune --python /nonexistent/python3", "/nonexistent/python3"}}) {
    CAPTURE(options);
    const auto asked = run(options);
    CHECK(asked.code == 1);
    CHECK(std::count(asked.text.begin(), asked.text.end(), '\n') == 1);
    CHECK_THAT(asked.text, ContainsSubstring(expected));
  }
}

TEST_CASE("gymnasium: who has no package is told how to install it", "[python][program]") {
  const temporary_folder place;
  const auto bare = place / "bare";
  if (std::system(
          ("python3 -m venv --without-pip '" + bare.string() + "' >/dev/null 2>&1").c_str()) != 0) {
    skip_test("python3 -m venv does not work here: apt install python3-venv");
    return;
  }
  const auto asked = run("finetune --python '" + bare.string() + "'");
  CHECK(asked.code == 1);
  CHECK(std::count(asked.text.begin(), asked.text.end(), '\n') == 1);
  CHECK_THAT(asked.text, ContainsSubstring("no package gymnasium") &&
                             ContainsSubstring("pip install gymnasium==") &&
                             ContainsSubstring(bare.string()));
}

TEST_CASE("gymnasium: a policy is fine-tuned by every method", "[python][program]") {
  if (!has_gymnasium()) return;
  const auto shown = run("finetune --pretrain-steps 2000 --steps 1000 --games 3" + with_python());
  CAPTURE(shown.text);
  CHECK(shown.code == 0);
  for (const auto* row : {"pre-trained", "fine-tuned, none", "fine-tuned, ewc", "fine-tuned, bc"})
    CHECK_THAT(shown.text, ContainsSubstring(row));
  CHECK(run("finetune --env Pendulum-v1" + with_python()).code == 1);
  CHECK_THAT(run("finetune --env Nowhere-v1" + with_python()).text,
             ContainsSubstring("doesn't exist"));
  CHECK_THAT(run("finetune --change height=1" + with_python()).text,
             ContainsSubstring("no attribute 'height'"));
}

}  // namespace python_program_test
