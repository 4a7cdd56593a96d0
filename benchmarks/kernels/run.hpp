// SPDX-License-Identifier: MIT
// Runs subjects with Google Benchmark. The repetitions of all implementations of one subject, and
// of its limit, alternate. If the machine is slow for some time, this affects all of them. The
// fastest repetition counts.
#pragma once

#include "limits.hpp"
#include "memory.hpp"
#include "subject.hpp"

#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <torch/cuda.h>

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kernels {

struct settings {
  double seconds = 0.15;  ///< minimum time of a repetition
  int repetitions = 7;
  at::Device device = at::kCPU;
  std::vector<int> threads = {1, 2};
};

/// The results of one subject with one number of threads, in seconds and bytes.
struct measurement {
  std::string group, name;
  int threads = 1;
  std::string skipped = {};  ///< why the subject was not run; empty if it was run
  double seconds = 0;
  std::optional<double> limit_share = {}, rate = {};  ///< rate in bytes or operations per second
  bound limited_by = bound::none;
  std::string usual_name = {}, yardstick_name = {};
  std::optional<double> usual_seconds = {}, yardstick_seconds = {}, error = {};
  std::int64_t extra_bytes = 0;
  std::optional<std::int64_t> usual_extra_bytes = {};
  goals reach = {};

  std::optional<double> speed_up() const {
    return usual_seconds ? std::optional(*usual_seconds / seconds) : std::nullopt;
  }
  std::optional<double> multiple() const {
    return yardstick_seconds ? std::optional(seconds / *yardstick_seconds) : std::nullopt;
  }
};

/// Sets the number of threads of LibTorch's loops and of OpenBLAS, which has a separate thread
/// pool.
inline void set_threads(int threads) {
  at::set_num_threads(threads);
  using setter = void (*)(int);
  if (const auto set = reinterpret_cast<setter>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads")))
    set(threads);
}

namespace detail {

/// Keeps the fastest repetition of each benchmark and prints nothing.
class fastest : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const auto& run : runs) {
      if (run.run_type != Run::RT_Iteration || run.iterations == 0) continue;
      const double each = run.real_accumulated_time / static_cast<double>(run.iterations);
      auto& best = seconds.try_emplace(run.run_name.function_name, each).first->second;
      best = std::min(best, each);
    }
  }
  std::map<std::string, double> seconds;
};

/// Returns how many runs are queued on a GPU between two waits. The number is so large that the
/// wait hardly counts, as in a training loop.
inline std::int64_t runs_between_waits(const std::function<void()>& run) {
  const auto time = [&](std::int64_t runs) {
    const auto begin = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < runs; ++i) run();
    torch::cuda::synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  time(1);
  return std::clamp<std::int64_t>(std::lround(0.01 / time(1)), 1, 1000);
}

inline std::map<std::string, double> time_all(const std::vector<way>& ways, const settings& how) {
  benchmark::ClearRegisteredBenchmarks();
  for (const auto& each : ways) {
    const auto together = how.device.is_cuda() ? runs_between_waits(each.run) : 0;
    benchmark::RegisterBenchmark(each.name.c_str(),
                                 [run = each.run, together](benchmark::State& state) {
                                   if (together == 0) {
                                     for (auto _ : state) run();
                                     return;
                                   }
                                   while (state.KeepRunningBatch(together)) {
                                     for (std::int64_t i = 0; i < together; ++i) run();
                                     torch::cuda::synchronize();
                                   }
                                 })
        ->UseRealTime()
        ->MinTime(how.seconds)
        ->Repetitions(how.repetitions);
  }
  fastest reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter, "all");
  return std::move(reporter.seconds);
}

}  // namespace detail

inline measurement measure(const subject& what, int threads, const settings& how,
                           const counting_allocator& memory) {
  measurement result{.group = what.group, .name = what.name, .threads = threads};
  result.reach = what.reach;
  result.limited_by = what.limited_by;
  result.skipped = what.needs;
  if (!result.skipped.empty()) return result;

  set_threads(threads);
  const prepared work = what.prepare(how.device);
  work.run();  // the first run allocates buffers and caches
  result.extra_bytes = memory.extra(work.run, how.device);
  std::vector<way> ways{{"retain", work.run}};
  if (work.usual) result.usual_name = work.usual->name;
  if (work.usual && work.usual->run) {
    work.usual->run();
    result.usual_extra_bytes = memory.extra(work.usual->run, how.device);
    ways.push_back({"usual", work.usual->run});
  }
  if (work.yardstick) {
    result.yardstick_name = work.yardstick->name;
    ways.push_back({"yardstick", work.yardstick->run});
  }
  double limit_work = 0;
  if (what.limited_by == bound::memory && how.device.is_cpu())
    ways.push_back({"limit", triad{}}), limit_work = triad::bytes;
  if (what.limited_by == bound::memory && !how.device.is_cpu())
    ways.push_back({"limit", device_copy{how.device}}), limit_work = device_copy::bytes;
  if (what.limited_by == bound::products) {
    const matrix_product product{how.device};
    ways.push_back({"limit", product}), limit_work = product.operations();
  }

  auto repeat = how;
  repeat.repetitions = std::min(how.repetitions, what.most_repetitions);
  const auto seconds = detail::time_all(ways, repeat);
  result.seconds = seconds.at("retain");
  if (work.usual)
    result.usual_seconds = work.usual->seconds ? work.usual->seconds(threads) : seconds.at("usual");
  if (work.yardstick) result.yardstick_seconds = seconds.at("yardstick");
  if (limit_work > 0) {
    result.rate = what.work / result.seconds;
    result.limit_share = *result.rate / (limit_work / seconds.at("limit"));
  }
  if (work.error) result.error = work.error();
  return result;
}

}  // namespace kernels
