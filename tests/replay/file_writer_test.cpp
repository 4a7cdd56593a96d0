// SPDX-License-Identifier: MIT
#include <retain/replay/file_memory.hpp>
#include <retain/replay/file_writer.hpp>

#include <fstream>

#include "support.hpp"

namespace replay_file_writer_test {

using retain::file_memory;
using retain::file_writer;

namespace {

std::size_t files_in(const support::temporary_folder& folder) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.file("")))
    ++count;
  return count;
}

}  // namespace

TEST_CASE("file_writer: what is not closed leaves nothing, and the old file stays until then",
          "[replay]") {
  const support::temporary_folder folder;
  std::ofstream(folder.file("data")) << "old";
  {
    file_writer out{folder.file("data")};
    out.push({{"x", torch::ones({4})}, {"y", torch::ones({4, 2})}});
    CHECK(files_in(folder) == 3);
  }
  CHECK(files_in(folder) == 1);
  std::string kept;
  std::ifstream(folder.file("data")) >> kept;
  CHECK(kept == "old");
  file_writer out{folder.file("data")};
  CHECK_THROWS_WITH(out.close(), ContainsSubstring("no columns"));
  out.push({{"x", torch::ones({4})}});
  out.close();
  CHECK(file_memory{folder.file("data")}.size() == 4);
  CHECK_THROWS_WITH(out.push({{"x", torch::ones({4})}}), ContainsSubstring("closed"));
}

TEST_CASE("file_writer: rows that are not like the first are named and leave the file as it was",
          "[replay]") {
  const support::temporary_folder folder;
  file_writer out{folder.file("data")};
  const auto x = torch::ones({2, 3});
  CHECK_THROWS_WITH(
      out.push({{"x", x.to(at::kComplexFloat)}}),
      ContainsSubstring("'x'") && ContainsSubstring("a type that the format does not support"));
  out.push({{"x", x}});
  CHECK_THROWS_WITH(out.push({{"x", torch::ones({2, 4})}}),
                    ContainsSubstring("'x' has rows of shape [4]") && ContainsSubstring("[3]"));
  CHECK_THROWS_AS(out.push({{"x", x.to(at::kDouble)}}), retain::state_error);
  CHECK_THROWS_WITH(out.push({{"x", x}, {"y", x}}), ContainsSubstring("'y'"));
  CHECK_THROWS_AS(out.push({{"y", x}}), retain::config_error);
  out.push({{"x", x * 2}});
  out.close();
  CHECK(retain::state::read(folder.file("data")).tensor("x").equal(torch::cat({x, x * 2})));
  CHECK_THROWS_AS((file_writer{folder.file("no/such/folder")}.push({{"x", x}})), retain::io_error);
}

}  // namespace replay_file_writer_test
