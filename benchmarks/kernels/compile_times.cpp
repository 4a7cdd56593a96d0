// SPDX-License-Identifier: MIT
// The compile time of a file that includes one header of the library, compared with a LibTorch
// header that users include in any case.
#include "subject.hpp"

#include <cstdlib>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/common/temporary_folder.hpp"

namespace kernels {
namespace {

/// A source file that only includes one header. The destructor deletes it.
class including {
 public:
  explicit including(const std::string& header) {
    std::ofstream(folder_ / "file.cpp") << "#include <" << header << ">\n";
  }

  void compile() const {
    const std::string command = RETAIN_COMPILER " -std=c++20 -O2 @" RETAIN_COMPILER_FLAGS
                                                " -c -o '" +
                                folder_.file("file.o") + "' '" + folder_.file("file.cpp") + "'";
    if (std::system(command.c_str()) != 0)
      throw std::runtime_error("this command failed: " + command);
  }

 private:
  temporary_folder folder_;
};

subject header(const std::string& name, const std::string& beside, double at_most) {
  return {.group = "compile time of a file with one include",
          .name = "<" + name + ">",
          .reach = {.yardstick = at_most},
          .prepare =
              [=](at::Device) {
                const auto ours = std::make_shared<including>(name),
                           theirs = std::make_shared<including>(beside);
                return prepared{
                    .run = [ours] { ours->compile(); },
                    .yardstick = way{"<" + beside + ">", [theirs] { theirs->compile(); }}};
              },
          .one_thread_only = true,
          .most_repetitions = 3};
}

}  // namespace

std::vector<subject> compile_times() {
  return {header("retain/ewc.hpp", "torch/nn/module.h", 1.3),
          header("retain/fisher.hpp", "torch/nn/module.h", 1.3),
          header("retain/retain.hpp", "torch/torch.h", 1.0)};
}

}  // namespace kernels
