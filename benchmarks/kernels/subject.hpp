// SPDX-License-Identifier: MIT
// Describes a benchmark: a task that retain performs, the limit of the machine, and other
// implementations.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kernels {

/// The resource that limits the task.
enum class bound { none, memory, products };

/// Another implementation of the task, or a reference task.
struct way {
  std::string name;
  std::function<void()> run;
  /// used instead of `run` if the implementation measures its own time in a separate process
  std::function<double(int threads)> seconds = {};
};

/// The task with its prepared data.
struct prepared {
  std::function<void()> run;      ///< retain's implementation
  std::optional<way> usual = {};  ///< the implementation of public code
  /// a reference task that is necessary in any case, such as one forward and backward pass
  std::optional<way> yardstick = {};
  /// relative error against public code or against a slow direct implementation
  std::function<double()> error = {};
};

/// The goals of a benchmark.
struct goals {
  std::optional<double> limit = {};      ///< share of the machine's limit, at least
  std::optional<double> usual = {};      ///< times as fast as public code, at least
  std::optional<double> yardstick = {};  ///< times the yardstick, at most
  std::optional<double> error = {};      ///< relative error, at most
};

struct subject {
  std::string group, name;
  bound limited_by = bound::none;
  double work = 0;  ///< bytes that must move, or floating-point operations that must be done
  goals reach = {};
  std::function<prepared(at::Device)> prepare;  ///< prepares the data on the given device
  bool one_thread_only = false;
  bool on_cpu = true, on_gpu = false;  ///< where the benchmark runs
  int most_repetitions = 1000;         ///< upper limit of repetitions, for tasks that take seconds
  /// why the benchmark cannot run on this machine; empty if it can
  std::string needs = {};
};

std::vector<subject> weight_penalties();
std::vector<subject> fisher_estimates();
std::vector<subject> distillation_terms();
std::vector<subject> policy_layers();
std::vector<subject> replay_memories();
std::vector<subject> policy_updates();
std::vector<subject> small_updates();
std::vector<subject> sets_of_terms();
std::vector<subject> paper_updates();
std::vector<subject> compile_times();
std::vector<subject> python_ways();

}  // namespace kernels
