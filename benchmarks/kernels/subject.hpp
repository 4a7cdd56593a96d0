// SPDX-License-Identifier: MIT
// What a benchmark measures: a piece of work that retain does, the least that the machine could do
// it in, and the other ways.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kernels {

/// What the work is bound by.
enum class bound { none, memory, products };

/// Another way to the same, or a piece of work to hold it against.
struct way {
  std::string name;
  std::function<void()> run;
  /// in place of `run`: measures itself, in a process of its own
  std::function<double(int threads)> seconds = {};
};

/// The work with its data in place.
struct prepared {
  std::function<void()> run;      ///< retain's way: what the table is about
  std::optional<way> usual = {};  ///< what public code does for it
  /// what it cannot do without, such as one forward and backward pass
  std::optional<way> yardstick = {};
  /// relative error against the usual way or a slow literal one
  std::function<double()> error = {};
};

/// A figure to reach. At least for speed-ups and shares of the limit, at most for multiples of the
/// yardstick.
struct goals {
  std::optional<double> limit = {};      ///< share of the machine's limit, at least
  std::optional<double> usual = {};      ///< times as fast as the usual way, at least
  std::optional<double> yardstick = {};  ///< times the yardstick, at most
  std::optional<double> error = {};      ///< relative error, at most
};

struct subject {
  std::string group, name;
  bound limited_by = bound::none;
  double work = 0;  ///< bytes that have to move, or floating-point operations that have to be done
  goals reach = {};
  std::function<prepared(at::Device)> prepare;  ///< with its data on that device
  bool one_thread_only = false;
  bool on_cpu = true, on_gpu = false;  ///< where it is measured
  int most_repetitions = 1000;         ///< of work that takes seconds
  std::string needs = {};              ///< why it cannot run here; empty where it can
};

std::vector<subject> weight_penalties();
std::vector<subject> fisher_estimates();
std::vector<subject> distillation_terms();
std::vector<subject> policy_layers();
std::vector<subject> replay_memories();
std::vector<subject> policy_updates();
std::vector<subject> paper_updates();
std::vector<subject> compile_times();
std::vector<subject> python_ways();

}  // namespace kernels
