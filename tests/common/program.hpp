// SPDX-License-Identifier: MIT
// A program as its user meets it: arguments, output, exit code, Ctrl-C.
#pragma once

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "../../examples/common/temporary_folder.hpp"
#include "../nethack/catch2.hpp"

namespace programs {

struct outcome {
  int code = -1;
  std::string text;  ///< stdout and stderr
};

inline std::string read(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

class program {
 public:
  explicit program(std::string path) : path_(std::move(path)) {}

  outcome operator()(const std::string& arguments) const {
    outcome result;
    FILE* pipe = popen(("'" + path_ + "' " + arguments + " 2>&1 </dev/null").c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::array<char, 4096> part;
    while (const auto n = std::fread(part.data(), 1, part.size(), pipe))
      result.text.append(part.data(), n);
    const int status = pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return result;
  }

  /// Runs it until `file` has so many lines, and more than before, and then presses Ctrl-C. Returns
  /// its exit code, -1 if that did not end it.
  int interrupted(const std::string& arguments, const std::filesystem::path& file,
                  long lines) const {
    const auto lines_of = [&] {
      const auto text = read(file);
      return std::count(text.begin(), text.end(), '\n');
    };
    const auto needed = std::max<std::ptrdiff_t>(lines, lines_of() + 1);
    const auto command = "exec '" + path_ + "' " + arguments + " >/dev/null 2>&1 </dev/null";
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is ended takes it along
      execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
      _exit(127);
    }
    int status = 0;
    bool pressed = false;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(4);
    while (waitpid(child, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > deadline) kill(child, SIGKILL);
      if (!pressed && lines_of() >= needed) {
        kill(child, SIGINT);
        pressed = true;
      }
      usleep(1000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  std::string path_;
};

/// --help names every subcommand, and each explains itself.
inline void check_help(const program& run, const std::vector<std::string>& commands) {
  const auto all = run("--help");
  CHECK(all.code == 0);
  for (const auto& command : commands) {
    CAPTURE(command);
    CHECK(all.text.find("  " + command + " ") != std::string::npos);
    const auto help = run(command + " --help");
    CHECK(help.code == 0);
    CHECK(help.text.find("--help") != std::string::npos);
  }
}

}  // namespace programs
