// SPDX-License-Identifier: MIT
// Where files are put, by everything that writes them. No test here touches a device: a pipe, a
// socket and a folder stand for it.
#include <retain/replay/file_memory.hpp>
#include <retain/replay/file_writer.hpp>
#include <retain/state.hpp>

#include <filesystem>
#include <fstream>
#include <functional>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.hpp"

namespace new_file_test {

namespace {

namespace fs = std::filesystem;

struct writer {
  const char* name;
  std::function<void(const std::string& path)> write;
};
const std::vector<writer>& writers() {
  static const std::vector<writer> all{{"state",
                                        [](const std::string& path) {
                                          retain::state out;
                                          out.set("x", at::ones({4}));
                                          out.write(path);
                                        }},
                                       {"file_writer", [](const std::string& path) {
                                          retain::file_writer out{path};
                                          out.push({{"x", at::ones({4})}});
                                          out.close();
                                        }}};
  return all;
}

std::size_t files_in(const std::string& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), {}));
}

}  // namespace

TEST_CASE("files: what is no file is not replaced, and called what it is", "[state][replay]") {
  for (const auto& one : writers()) {
    INFO(one.name);
    const support::temporary_folder folder;
    const auto pipe = folder.file("pipe"), other = folder.file("socket"),
               inside = folder.file("folder");
    REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
    const int made = socket(AF_UNIX, SOCK_STREAM, 0);
    REQUIRE(made >= 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(other.size() < sizeof address.sun_path);
    std::copy(other.begin(), other.end(), address.sun_path);
    REQUIRE(bind(made, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    close(made);
    fs::create_directory(inside);
    fs::create_symlink("pipe", folder.file("link"));
    for (const auto& [path, kind] :
         std::vector<std::pair<std::string, std::string>>{{pipe, "a pipe"},
                                                          {other, "a socket"},
                                                          {inside, "a folder"},
                                                          {folder.file("link"), "a pipe"}}) {
      CHECK_THROWS_WITH(one.write(path), ContainsSubstring(path) && ContainsSubstring(kind) &&
                                             ContainsSubstring("not a file"));
      CHECK_THROWS_AS(one.write(path), retain::io_error);
    }
    CHECK(fs::is_fifo(fs::symlink_status(pipe)));
    CHECK(fs::is_socket(fs::symlink_status(other)));
    CHECK(fs::is_directory(inside));
    CHECK(fs::is_symlink(fs::symlink_status(folder.file("link"))));
    CHECK(files_in(folder.file("")) == 4);
  }
}

TEST_CASE("files: a reader does not wait for a pipe", "[state][replay]") {
  const support::temporary_folder folder;
  REQUIRE(mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(retain::state::read(folder.file("pipe")), ContainsSubstring("a pipe"));
  CHECK_THROWS_WITH(retain::file_memory{folder.file("pipe")}, ContainsSubstring("a pipe"));
}

TEST_CASE("files: a link stays, and what it leads to is replaced", "[state][replay]") {
  for (const auto& one : writers()) {
    INFO(one.name);
    const support::temporary_folder folder;
    fs::create_directory(folder.file("far"));
    std::ofstream(folder.file("far/old")) << "old";
    fs::create_symlink("far/next", folder.file("link"));  // relative, by way of another
    fs::create_symlink("old", folder.file("far/next"));
    fs::create_symlink(folder.file("far/new"), folder.file("to_nothing"));
    one.write(folder.file("link"));
    one.write(folder.file("to_nothing"));
    for (const auto* link : {"link", "far/next", "to_nothing"})
      CHECK(fs::is_symlink(fs::symlink_status(folder.file(link))));
    for (const auto* file : {"far/old", "far/new"}) {
      CHECK(fs::is_regular_file(fs::symlink_status(folder.file(file))));
      CHECK(retain::state::read(folder.file(file)).tensor("x").equal(at::ones({4})));
    }
    CHECK(files_in(folder.file("")) == 3);
    CHECK(files_in(folder.file("far")) == 3);
    fs::create_symlink("there", folder.file("here"));
    fs::create_symlink("here", folder.file("there"));
    CHECK_THROWS_WITH(one.write(folder.file("here")), ContainsSubstring("form a cycle"));
  }
}

TEST_CASE("files: forked processes write one path without taking each other's files away",
          "[state]") {
  const support::temporary_folder folder;
  const auto path = folder.file("state");
  retain::state before;
  before.set("who", -1);
  before.write(path);  // the numbers of temporary names are drawn: the children have the same
  constexpr int children = 4, rounds = 100;
  std::vector<pid_t> all;
  for (int child = 0; child < children; ++child) {
    const pid_t one = fork();
    REQUIRE(one >= 0);
    if (one == 0) {
      int failures = 0;
      for (int round = 0; round < rounds; ++round) try {
          retain::state out;
          out.set("who", child);
          out.set("text", std::string(5000, static_cast<char>('a' + child)));
          out.write(path);
          const auto in = retain::state::read(path);
          const auto who = in.integer<int>("who");
          if (in.text("text") != std::string(5000, static_cast<char>('a' + who))) ++failures;
        } catch (...) {
          ++failures;
        }
      _exit(failures);
    }
    all.push_back(one);
  }
  for (const pid_t one : all) {
    int status = 0;
    REQUIRE(waitpid(one, &status, 0) == one);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
  CHECK(files_in(folder.file("")) == 1);
}

TEST_CASE("files: a forked process that ends does not take its parent's unfinished file away",
          "[replay]") {
  const support::temporary_folder folder;
  const auto path = folder.file("rows");
  auto out = std::make_unique<retain::file_writer>(path);
  out->push({{"x", at::ones({4})}});
  REQUIRE(files_in(folder.file("")) == 1);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int wrong = 0;
    try {
      out->push({{"x", at::ones({4})}});
      ++wrong;
    } catch (const retain::io_error&) {
    }
    try {
      out->close();
      ++wrong;
    } catch (const retain::io_error&) {
    }
    out.reset();
    std::fflush(nullptr);  // as exit() does
    _exit(wrong);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(files_in(folder.file("")) == 1);
  out->push({{"x", at::full({2}, 3.0f)}});
  out->close();  // nothing was written twice
  CHECK(retain::state::read(path).tensor("x").equal(
      torch::tensor({1.0f, 1.0f, 1.0f, 1.0f, 3.0f, 3.0f})));
}

}  // namespace new_file_test
