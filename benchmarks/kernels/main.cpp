// SPDX-License-Identifier: MIT
// The program `kernels` measures the run time of retain's inner loops. One table compares the
// times with the limits of the machine and with public code.
#include "report.hpp"
#include "run.hpp"

#include "../../examples/common/interrupt.hpp"
#include "../../examples/common/option_checks.hpp"

#include <c10/util/Exception.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

namespace {

std::vector<kernels::subject> all_subjects() {
  std::vector<kernels::subject> all;
  for (auto part :
       {kernels::weight_penalties(), kernels::fisher_estimates(), kernels::distillation_terms(),
        kernels::policy_layers(), kernels::replay_memories(), kernels::policy_updates(),
        kernels::small_updates(), kernels::sets_of_terms(), kernels::paper_updates(),
        kernels::compile_times(), kernels::python_ways()})
    all.insert(all.end(), std::make_move_iterator(part.begin()),
               std::make_move_iterator(part.end()));
  return all;
}

/// The goals on a GPU. A benchmark that is limited by memory must reach .8 of the memory
/// bandwidth. Besides this, a benchmark that also runs on a CPU keeps only its error goal. A
/// benchmark that runs only on a GPU keeps all its goals.
kernels::goals on_gpu(const kernels::subject& each) {
  if (!each.on_cpu) return each.reach;
  kernels::goals reach{.error = each.reach.error};
  if (each.limited_by == kernels::bound::memory && each.reach.limit) reach.limit = 0.8;
  return reach;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Measures retain's inner loops and compares them with the machine's limits and public code.",
      "kernels"};
  kernels::settings how;
  std::string json, only;
  bool gpu = false, list = false, quick = false;
  app.add_option("--json", json, "Also write the results to this JSON file");
  app.add_option("--only", only, "Only run benchmarks with this text in \"GROUP: NAME\"");
  auto* thread_option =
      app.add_option("--threads", how.threads, "Numbers of threads to measure with")
          ->delimiter(',')
          ->check(CLI::Range(1, 1024))
          ->capture_default_str();
  app.add_option("--repetitions", how.repetitions,
                 "Repetitions of each implementation; the fastest counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seconds", how.seconds, "Minimum time of a repetition in seconds")
      ->check(positive_number)
      ->capture_default_str();
  app.add_flag("--gpu", gpu, "Use the first GPU, and run only the GPU benchmarks")
      ->excludes(thread_option);
  app.add_flag("--quick", quick,
               "One short repetition of each benchmark, to test that all run; the times are not "
               "reliable");
  app.add_flag("--list", list, "Only list the benchmarks");
  CLI11_PARSE(app, argc, argv);
  if (quick) how.repetitions = 1, how.seconds = 1e-3;
  if (gpu) how.device = at::Device(at::kCUDA, 0), how.threads = {1};

  try {
    std::vector<kernels::subject> chosen;
    for (auto& each : all_subjects()) {
      if (!(gpu ? each.on_gpu : each.on_cpu) ||
          (each.group + ": " + each.name).find(only) == std::string::npos)
        continue;
      if (gpu) each.reach = on_gpu(each);
      chosen.push_back(std::move(each));
    }
    if (chosen.empty()) {
      std::fprintf(stderr,
                   "kernels: no benchmark has \"%s\" in its group or name. To see all "
                   "benchmarks, run kernels --list\n",
                   only.c_str());
      return 1;
    }
    if (list) {
      for (const auto& each : chosen)
        std::printf("%s: %s\n", each.group.c_str(), each.name.c_str());
      return 0;
    }

    if (gpu && !torch::cuda::is_available()) {
      std::cout << "SKIPPED: no GPU that LibTorch can use\n";
      return 0;
    }

    interrupt::install();
    // Runs one subject at a time. The implementations of one subject alternate in random order.
    std::string name = "kernels", turns = "--benchmark_enable_random_interleaving=true";
    std::vector<char*> flags{name.data(), turns.data()};
    int count = static_cast<int>(flags.size());
    benchmark::Initialize(&count, flags.data());
    const auto& memory = kernels::counting_allocator::install();

    const auto machine = kernels::describe_machine(how.device);
    kernels::running_report report(std::cout, machine);
    const bool file =
        !json.empty() && (!std::filesystem::exists(json) || std::filesystem::is_regular_file(json));
    std::vector<kernels::measurement> results;
    std::size_t done = 0;
    bool failed = false;
    for (const auto& each : chosen) {
      ++done;
      for (const int threads : how.threads) {
        if (threads != how.threads.front() && each.one_thread_only) continue;
        if (interrupt::requested()) break;
        std::fprintf(stderr, "[%zu/%zu] %s: %s, %d %s\n", done, chosen.size(), each.group.c_str(),
                     each.name.c_str(), threads, threads == 1 ? "thread" : "threads");
        try {
          results.push_back(kernels::measure(each, threads, how, memory));
          report.add(results.back());
          if (file) kernels::write_json(json, results, machine, how);
        } catch (const std::exception& error) {  // the other benchmarks continue
          const auto* torch = dynamic_cast<const c10::Error*>(&error);
          std::fprintf(stderr, "kernels: %s: %s: %s\n", each.group.c_str(), each.name.c_str(),
                       torch ? torch->what_without_backtrace() : error.what());
          failed = true;
        }
      }
    }
    report.finish();
    if (quick)
      std::cout
          << "\n--quick: one short repetition of each benchmark. The times are not reliable.\n";
    if (interrupt::requested())
      std::cout << "\nStopped before the end: " << results.size() << " rows.\n";
    if (!json.empty()) kernels::write_json(json, results, machine, how);
    return interrupt::requested() ? interrupt::exit_code : failed ? 1 : 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kernels: %s\n", error.what());
    return 1;
  }
}
