// SPDX-License-Identifier: MIT
// docs/compare.md shows files that are compiled and run.
#include <filesystem>
#include <regex>
#include <string>

#include "../common/program.hpp"

namespace docs_test {
using programs::read;

TEST_CASE("docs/compare.md shows code and an experiment that run", "[compare]") {
  const std::string source = RETAIN_SOURCE;
  const auto text = read(source + "/docs/compare.md");
  const auto code = read(source + "/tests/compare/two_rooms.cpp"),
             experiment = read(source + "/experiments/two_rooms.json");
  int blocks = 0;
  for (auto at = text.find("\n```"); at != std::string::npos; at = text.find("\n```", at + 1)) {
    const auto line = text.find('\n', at + 1), end = text.find("\n```", line);
    const auto language = text.substr(at + 4, line - at - 4);
    const auto block = text.substr(line + 1, end - line);
    at = end;
    if (language.empty()) continue;
    CAPTURE(block);
    CHECK((language == "cpp" ? code : experiment).find(block) != std::string::npos);
    ++blocks;
  }
  CHECK(blocks == 2);
}

TEST_CASE("links of docs/compare.md lead to files", "[compare]") {
  const std::filesystem::path docs = std::string(RETAIN_SOURCE) + "/docs";
  const auto text = read(docs / "compare.md");
  const std::regex link(R"(\]\(([^)#]+)\))");
  for (std::sregex_iterator each(text.begin(), text.end(), link), end; each != end; ++each)
    CHECK(std::filesystem::exists(docs / (*each)[1].str()));
}

}  // namespace docs_test
