// SPDX-License-Identifier: MIT
// Runs the same tasks in Python with python_ways.py in a separate process, if Python's torch is
// installed.
#include "subject.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace kernels {
namespace {

/// Returns the Python interpreter that has torch, or an empty string if none has. It also tries
/// /usr/bin/python3, because the user's python3 can be another one.
std::string python_with_torch() {
  for (const std::string python : {"python3", "/usr/bin/python3"})
    if (std::system((python + " -c 'import torch' >/dev/null 2>&1").c_str()) == 0) return python;
  return {};
}

double python_seconds(const std::string& python, const std::string& what, int threads) {
  const std::string command =
      python + " '" RETAIN_PYTHON_WAYS "' " + what + " " + std::to_string(threads);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  double seconds = 0;
  if (!pipe || std::fscanf(pipe.get(), "%lf", &seconds) != 1)
    throw std::runtime_error("this command printed no time: " + command);
  return seconds;
}

}  // namespace

std::vector<subject> python_ways() {
  struct pair {
    std::vector<subject> from;
    std::string name, script;
  };
  const std::string python = python_with_torch();
  std::vector<subject> result;
  for (const auto& [from, name, script] :
       std::array{pair{weight_penalties(), "ewc, 30M in 60 tensors", "ewc"},
                  pair{weight_penalties(), "l2_init, 30M in 60 tensors", "l2"},
                  pair{fisher_estimates(), "MLP 256-512-512-121, sampled", "fisher"},
                  pair{distillation_terms(),
                       "KL(teacher ‖ student), value and gradient, 4096 x 121", "kl"}}) {
    const auto found =
        std::find_if(from.begin(), from.end(),
                     [&, &name = name](const subject& each) { return each.name == name; });
    if (found == from.end()) throw std::logic_error("python_ways: there is no benchmark " + name);
    subject same{.group = "compared with Python's torch",
                 .name = name,
                 .prepare = [prepare = found->prepare, script = script, python](at::Device device) {
                   auto work = prepare(device);
                   return prepared{.run = work.run,
                                   .usual = way{"Python's torch", {}, [=](int threads) {
                                                  return python_seconds(python, script, threads);
                                                }}};
                 }};
    if (python.empty())
      same.needs = "python3 has no torch. Install it (Debian: apt install python3-torch)";
    result.push_back(std::move(same));
  }
  return result;
}

}  // namespace kernels
