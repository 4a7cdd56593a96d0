// SPDX-License-Identifier: MIT
// Writes the report over many runs: tables, CSV and pictures.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "../common/comparison.hpp"
#include "../common/files.hpp"
#include "../common/statistics.hpp"
#include "../common/table.hpp"
#include "pictures.hpp"
#include "runs.hpp"

namespace montezuma {
namespace detail {

inline std::string seeds_of(const std::vector<const finished_run*>& runs, const measure& what) {
  std::string text;
  for (const auto* run : runs)
    text += (text.empty() ? "" : ", ") + decimals(what.of(*run), what.digits);
  return text;
}

}  // namespace detail

/// The whole report as Markdown. For each group: a table over seeds, the paired differences, and
/// the numbers of each seed.
inline std::string seeds_report(const std::vector<finished_run>& runs) {
  std::ostringstream text;
  for (const auto& group : group_runs(runs)) {
    std::set<long> steps;
    std::vector<double> speeds, teachers;
    for (const auto& [method, seeds] : group.methods)
      for (const auto* run : seeds) {
        steps.insert(run->steps);
        if (std::isfinite(run->steps_per_second)) speeds.push_back(run->steps_per_second);
        teachers.push_back(run->teacher_success);
      }
    const auto* some = group.methods.front().second.front();
    text
        << "## " << group.title << "\n\n"
        << "FAR is room " << some->far_room << ". Sticky actions " << decimals(some->sticky, 2)
        << ", " << *steps.begin()
        << (steps.size() > 1 ? " to " + std::to_string(*steps.rbegin()) : std::string())
        << " steps at " << decimals(statistics::mean(speeds))
        << " steps/s per run (without evaluations), teachers with success "
        << decimals(*std::min_element(teachers.begin(), teachers.end()), 2) << " to "
        << decimals(*std::max_element(teachers.begin(), teachers.end()), 2) << ", " << some->games
        << " games from each room at the end. In brackets: 95 % bootstrap interval over seeds.\n\n";

    std::vector<std::string> header{"policy", "seeds"};
    for (const auto& what : measures()) header.emplace_back(what.name);
    text_table lines(header);
    for (const auto& [method, seeds] : group.methods) {
      std::vector<std::string> row{method, std::to_string(seeds.size())};
      for (const auto& what : measures()) {
        const auto values = values_over(seeds, what);
        row.push_back(values.empty() ? "–" : with_interval(values, what.digits));
      }
      lines.add(row);
    }
    text << lines.markdown() << "\n";

    text << paired_table(group, "return from room 1 over training",
                         [](const auto& one, const auto& other) {
                           return seed_differences(one, other, measures()[return_mean]);
                         });

    text_table points(
        {"each seed", "FAR success: lowest", "end", "return from room 1: over training", "end"});
    for (const auto& [method, seeds] : group.methods)
      points.add({method, detail::seeds_of(seeds, measures()[far_lowest]),
                  detail::seeds_of(seeds, measures()[far_end]),
                  detail::seeds_of(seeds, measures()[return_mean]),
                  detail::seeds_of(seeds, measures()[return_end])});
    text << points.markdown() << "\n";
  }
  return text.str();
}

inline std::string runs_csv(const std::vector<finished_run>& runs) {
  text_table lines({"map", "task", "preset", "method", "seed", "steps", "steps_per_second",
                    "teacher_success", "far_success_lowest", "far_success_mean", "far_success_end",
                    "far_return_end", "start_return_mean", "start_return_end", "start_rooms_end",
                    "kl_end"});
  for (const auto& run : runs) {
    std::vector<std::string> row{run.map,
                                 run.task,
                                 run.preset,
                                 run.method,
                                 std::to_string(run.seed),
                                 std::to_string(run.steps),
                                 decimals(run.steps_per_second),
                                 decimals(run.teacher_success, 4)};
    for (const auto& what : measures()) {
      const double value = what.of(run);
      row.push_back(std::isfinite(value) ? decimals(value, 4) : "");
    }
    lines.add(row);
  }
  return lines.csv();
}

/// Writes report.md, runs.csv, curves-*.png and points-*.png into one folder. Returns the Markdown.
inline std::string write_report(const std::vector<finished_run>& runs,
                                const std::filesystem::path& out) {
  std::filesystem::create_directories(out);
  const auto markdown =
      seeds_report(runs) + draw_groups(group_runs(runs), out, draw_curves, draw_points);
  write_file(out / "runs.csv", runs_csv(runs));
  write_file(out / "report.md", markdown);
  return markdown;
}

}  // namespace montezuma
