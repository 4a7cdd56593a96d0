// SPDX-License-Identifier: MIT
#include "../../examples/common/files.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <sys/stat.h>

#include "../../examples/common/columns.hpp"
#include "../../examples/common/gnuplot.hpp"
#include "../../examples/common/temporary_folder.hpp"
#include "support.hpp"

namespace common_files_test {

namespace {

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("an example's file takes the place of an old one, behind links, and of nothing else",
          "[files]") {
  const temporary_folder folder;
  write_file(folder / "new/deep/file", "one");
  write_file(folder / "new/deep/file", "two");
  CHECK(text_of(folder / "new/deep/file") == "two");
  std::filesystem::create_symlink("new/deep/file", folder / "link");
  write_json(folder / "link", 3);
  CHECK(std::filesystem::is_symlink(std::filesystem::symlink_status(folder / "link")));
  CHECK(text_of(folder / "new/deep/file") == "3\n");
  REQUIRE(mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(write_file(folder / "pipe", "text"),
                    ContainsSubstring("pipe") && ContainsSubstring("not a file"));
  CHECK(std::filesystem::is_fifo(std::filesystem::symlink_status(folder / "pipe")));
  CHECK_THROWS_WITH(write_file(folder / "new", "text"), ContainsSubstring("a folder"));
  CHECK(std::distance(std::filesystem::directory_iterator(folder / "new/deep"), {}) == 1);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 3);
}

TEST_CASE("a picture whose script has no place is a line on stderr", "[files]") {
  const temporary_folder folder;
  std::filesystem::create_directory(folder / "curve.gp");
  CHECK_FALSE(gnuplot::draw(folder / "curve", "plot 1"));
}

TEST_CASE("columns of one file have one length", "[files]") {
  const temporary_folder folder;
  write_file(folder / "good.csv", "step,value\n1,2\n3\n4,5,6\n");
  const auto good = read_columns(folder / "good.csv");
  CHECK(good.at("step") == std::vector<double>{1, 3, 4});
  CHECK(good.at("value").size() == 3);
  write_file(folder / "twice.csv", "step,step\n1,2\n");
  CHECK_THROWS_WITH(read_columns(folder / "twice.csv"),
                    ContainsSubstring("twice.csv") && ContainsSubstring("two columns 'step'"));
}

}  // namespace common_files_test
