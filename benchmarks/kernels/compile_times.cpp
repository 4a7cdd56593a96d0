// SPDX-License-Identifier: MIT
// What including a header costs a user's file, beside the LibTorch header that they would have included anyway.
#include "subject.hpp"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace kernels {
namespace {

/// A file that does nothing but include one header; gone with its owner.
class including {
 public:
  explicit including(const std::string& header) {
    auto name = (std::filesystem::temp_directory_path() / "retain-compile-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
    folder_ = name;
    std::ofstream(folder_ / "file.cpp") << "#include <" << header << ">\n";
  }
  ~including() { std::filesystem::remove_all(folder_); }
  including(const including&) = delete;
  including& operator=(const including&) = delete;

  void compile() const {
    const std::string command = RETAIN_COMPILER " -std=c++20 -O2 @" RETAIN_COMPILER_FLAGS " -c -o '" + (folder_ / "file.o").string() + "' '" +
                                (folder_ / "file.cpp").string() + "'";
    if (std::system(command.c_str()) != 0) throw std::runtime_error("does not compile: " + command);
  }

 private:
  std::filesystem::path folder_;
};

subject header(const std::string& name, const std::string& beside, double at_most) {
  return {.group = "compile time of a file with one include", .name = "<" + name + ">", .reach = {.yardstick = at_most}, .prepare = [=](at::Device) {
    const auto ours = std::make_shared<including>(name), theirs = std::make_shared<including>(beside);
    return prepared{.run = [ours] { ours->compile(); }, .yardstick = way{"<" + beside + ">", [theirs] { theirs->compile(); }}};
  }, .one_thread_only = true, .most_repetitions = 3};
}

}  // namespace

std::vector<subject> compile_times() {
  return {header("retain/ewc.hpp", "torch/nn/module.h", 1.3), header("retain/fisher.hpp", "torch/nn/module.h", 1.3),
          header("retain/retain.hpp", "torch/torch.h", 1.0)};
}

}  // namespace kernels
