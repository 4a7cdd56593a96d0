// SPDX-License-Identifier: MIT
// Writes the results as a table for people and as JSON for programs.
#pragma once

#include "run.hpp"

#include "../../examples/common/table.hpp"

#include <ATen/Context.h>
#include <torch/version.h>
#include <nlohmann/json.hpp>

#if RETAIN_LIBTORCH_HAS_CUDA
#include <ATen/cuda/CUDAContext.h>
#endif

#include <array>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace kernels {

struct machine {
  std::string processor = "unknown processor", gpu, compiler, date;
  unsigned cores = std::thread::hardware_concurrency();
  std::string libtorch = TORCH_VERSION;
};

inline machine describe_machine([[maybe_unused]] at::Device device) {
  machine here;
#if RETAIN_LIBTORCH_HAS_CUDA
  if (device.is_cuda()) here.gpu = at::cuda::getDeviceProperties(device.index())->name;
#endif
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("model name", 0) == 0) {
      here.processor = line.substr(line.find(':') + 2);
      break;
    }
#if defined(__clang__)
  here.compiler = "clang " __clang_version__;
#else
  here.compiler = "g++ " __VERSION__;
#endif
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  here.date = text;
  return here;
}

namespace detail {

inline std::string time_text(double seconds) {
  if (seconds >= 1) return decimals(seconds, 2) + " s";
  if (seconds >= 1e-3)
    return decimals(seconds * 1e3, seconds >= 0.1 ? 0 : seconds >= 1e-2 ? 1 : 2) + " ms";
  return decimals(seconds * 1e6, seconds >= 1e-4 ? 0 : seconds >= 1e-5 ? 1 : 2) + " µs";
}
inline std::string bytes_text(std::int64_t bytes) {
  if (bytes < 1024) return "0";
  const double size = static_cast<double>(bytes);
  return size < 1e6 ? decimals(size / 1024, 0) + " KiB"
                    : decimals(size / (1 << 20), size < 1e7 ? 1 : 0) + " MiB";
}
/// A number with its goal in brackets, and a cross if the goal is not reached.
inline std::string against(std::optional<double> figure, std::optional<double> goal, bool at_least,
                           int digits, const char* unit) {
  if (!figure) return "";
  std::string text = decimals(*figure, digits) + unit;
  if (!goal) return text;
  const bool reached = at_least ? *figure >= *goal : *figure <= *goal;
  return text + (reached ? " (" : " ✗ (") + (at_least ? "≥ " : "≤ ") + decimals(*goal, digits) +
         ")";
}

}  // namespace detail

/// Writes the table row by row, so that results are kept if the program ends early. The column
/// widths are fixed and fit most rows.
class running_report {
 public:
  running_report(std::ostream& out, const machine& here) : out_(out) {
    out_ << "\n"
         << (here.gpu.empty() ? "" : here.gpu + ", in a machine with ") << here.processor << ", "
         << here.cores << " cores; LibTorch " << here.libtorch << ", " << here.compiler << "; "
         << here.date
         << "\nEach time is that of the fastest repetition. The number in brackets is the goal. ✗ "
            "marks a goal that is not reached.\n"
         << std::flush;
  }

  void add(const measurement& r) {
    if (!r.skipped.empty()) {
      // printed after the tables
      skipped_.push_back("SKIPPED: " + r.group + ": " + r.name + ": " + r.skipped);
      return;
    }
    if (r.group != group_) {
      out_ << "\n" << (group_ = r.group) << "\n\n";
      row({"what", "threads", "time", "of the limit", "limit", "times as fast as", "extra memory",
           "multiple of", "error"});
      out_ << "|:" << std::string(widths.front() + 1, '-') << "|";
      for (std::size_t i = 1; i < widths.size(); ++i)
        out_ << std::string(widths[i] + 1, '-') << ":|";
      out_ << "\n";
    }
    const char* unit = r.limited_by == bound::memory ? " GB/s" : " GFLOP/s";
    std::string memory = detail::bytes_text(r.extra_bytes);
    if (r.usual_extra_bytes) memory += ", not " + detail::bytes_text(*r.usual_extra_bytes);
    char error[32] = "";
    if (r.error) std::snprintf(error, sizeof error, "%.0e", *r.error);
    row({r.name, std::to_string(r.threads), detail::time_text(r.seconds),
         detail::against(r.limit_share, r.reach.limit, true, 2, ""),
         r.limit_share ? decimals(*r.rate / *r.limit_share / 1e9, 1) + unit : "",
         r.usual_seconds
             ? detail::against(r.speed_up(), r.reach.usual, true, 1, "×") + " " + r.usual_name
             : "",
         memory,
         r.yardstick_seconds ? detail::against(r.multiple(), r.reach.yardstick, false, 2, "×") +
                                   " " + r.yardstick_name
                             : "",
         r.error && r.reach.error && *r.error > *r.reach.error ? std::string(error) + " ✗"
                                                               : error});
    out_ << std::flush;
  }

  /// Prints the benchmarks that were skipped, with the reason.
  void finish() {
    if (!skipped_.empty()) out_ << "\n";
    for (const auto& line : skipped_) out_ << line << "\n";
    out_ << std::flush;
  }

 private:
  static constexpr std::array<std::size_t, 9> widths{44, 7, 7, 12, 13, 40, 24, 36, 7};

  void row(const std::array<std::string, widths.size()>& cells) {
    for (std::size_t i = 0; i < widths.size(); ++i) {
      const std::size_t width = text_table::width(cells[i]);
      const std::string gap(widths[i] > width ? widths[i] - width : 0, ' ');
      out_ << (i == 0 ? "| " + cells[i] + gap : " " + gap + cells[i]) << " |";
    }
    out_ << "\n";
  }

  std::ostream& out_;
  std::string group_;
  std::vector<std::string> skipped_;
};

/// Writes the results as JSON. A regular file is replaced atomically, so the function can be
/// called after each measurement. If `path` is another kind of file, such as a pipe, the function
/// writes directly into it.
inline void write_json(const std::string& path, const std::vector<measurement>& results,
                       const machine& here, const settings& how) {
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& r : results) {
    nlohmann::json row{{"group", r.group}, {"name", r.name}, {"threads", r.threads}};
    const auto set = [&](const char* key, const auto& value) {
      if (value) row[key] = *value;
    };
    if (!r.skipped.empty()) {
      row["skipped"] = r.skipped;
      rows.push_back(row);
      continue;
    }
    row["seconds"] = r.seconds;
    row["extra_bytes"] = r.extra_bytes;
    if (r.limited_by != bound::none)
      row["limited_by"] = r.limited_by == bound::memory ? "memory" : "products";
    set("share_of_limit", r.limit_share);
    set(r.limited_by == bound::memory ? "bytes_per_second" : "operations_per_second", r.rate);
    if (!r.usual_name.empty()) row["usual"] = r.usual_name;
    set("usual_seconds", r.usual_seconds);
    set("usual_extra_bytes", r.usual_extra_bytes);
    set("speed_up", r.speed_up());
    if (!r.yardstick_name.empty()) row["yardstick"] = r.yardstick_name;
    set("yardstick_seconds", r.yardstick_seconds);
    set("multiple_of_yardstick", r.multiple());
    set("relative_error", r.error);
    set("goal_share_of_limit", r.reach.limit);
    set("goal_speed_up", r.reach.usual);
    set("goal_multiple_of_yardstick", r.reach.yardstick);
    rows.push_back(row);
  }
  const bool in_place = std::filesystem::exists(path) && !std::filesystem::is_regular_file(path);
  const auto target =
      in_place ? std::filesystem::path(path) : std::filesystem::weakly_canonical(path);
  const auto written = in_place ? target : std::filesystem::path(target.string() + ".part");
  std::ofstream file(written);
  const nlohmann::json of{{"processor", here.processor},
                          {"gpu", here.gpu},
                          {"cores", here.cores},
                          {"libtorch", here.libtorch},
                          {"compiler", here.compiler}};
  file << nlohmann::json{{"machine", of},
                         {"date", here.date},
                         {"repetitions", how.repetitions},
                         {"seconds_per_repetition", how.seconds},
                         {"measurements", rows}}
              .dump(2)
       << '\n';
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
  if (!in_place) std::filesystem::rename(written, target);
}

}  // namespace kernels
