// SPDX-License-Identifier: MIT
#include "../../examples/common/temporary_folder.hpp"

#include <filesystem>
#include <fstream>
#include <optional>
#include "support.hpp"

namespace common_temporary_folder_test {

namespace fs = std::filesystem;

TEST_CASE("a temporary folder goes with everything in it, but not with what its links lead to",
          "[temporary_folder]") {
  const temporary_folder kept;
  std::ofstream(kept / "file") << "kept";
  std::optional<temporary_folder> gone(std::in_place);
  const auto path = gone->path();
  CHECK(path != kept.path());
  fs::create_directories(*gone / "a" / "b");
  std::ofstream(*gone / "a" / "b" / "file") << "gone";
  std::ofstream(gone->file(".hidden")) << "gone";
  fs::create_directory_symlink(kept.path(), *gone / "link");
  fs::create_symlink("nowhere", *gone / "dangling");
  gone.reset();
  CHECK_FALSE(fs::exists(path));
  CHECK(fs::file_size(kept / "file") == 4);
  CHECK_NOTHROW(remove_folder(path));  // is not there any more
}

}  // namespace common_temporary_folder_test
