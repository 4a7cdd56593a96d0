// SPDX-License-Identifier: MIT
// Writes the report over many runs: tables, CSV and pictures.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "../common/comparison.hpp"
#include "../common/files.hpp"
#include "../common/statistics.hpp"
#include "../common/table.hpp"
#include "pictures.hpp"
#include "runs.hpp"

namespace robotic_sequence {
namespace detail {

inline std::string title_of(const std::string& stage) {
  return stage == whole ? "whole sequence" : stage;
}

template <class Measure>
std::string over_seeds(const std::vector<const finished_run*>& runs, const Measure& measure) {
  const auto values = values_over(runs, measure);
  return values.empty() ? "–" : with_interval(values, 2);
}

template <class Measure>
std::string each_seed(const std::vector<const finished_run*>& runs, const Measure& measure) {
  std::string text;
  for (const auto* run : runs) text += (text.empty() ? "" : ", ") + decimals(measure(*run), 2);
  return text;
}

inline const auto mean_of = [](const std::string& stage) {
  return [stage](const finished_run& run) { return mean_success(run, stage); };
};
inline const auto lowest_of = [](const std::string& stage) {
  return [stage](const finished_run& run) { return lowest_success(run, stage); };
};
inline const auto end_of = [](const std::string& stage) {
  return [stage](const finished_run& run) { return end_success(run, stage); };
};

/// (A − B) / (1 − B), where A and B are means over the seeds that both the method and scratch have,
/// with the interval over these seeds. Only for a group with runs from scratch.
inline std::string forward_transfer_text(const run_group& group,
                                         const std::vector<const finished_run*>& runs,
                                         const std::string& stage) {
  std::vector<double> areas, scratch;
  for (const auto* run : runs)
    for (const auto* other : group.methods.front().second)
      if (run->seed == other->seed) {
        areas.push_back(mean_success(*run, stage));
        scratch.push_back(mean_success(*other, stage));
      }
  const auto transfer = [](std::span<const double> a, std::span<const double> b) {
    const double base = statistics::mean(b);
    return (statistics::mean(a) - base) / (1 - base);
  };
  const double mean = transfer(areas, scratch);
  if (!std::isfinite(mean)) return "–";
  std::string text = decimals(mean, 2);
  if (areas.size() < 2) return text;
  const auto interval = statistics::paired_bootstrap_interval(areas, scratch, transfer);
  return text + " [" + range_text(interval.low, interval.high, 2) + "]";
}

/// The common settings of the runs of a group, and the success of their teachers.
inline std::string conditions(const run_group& group) {
  std::vector<double> speeds;
  std::map<std::string, std::vector<double>> teachers;
  std::set<int> episodes;
  for (const auto& [method, seeds] : group.methods)
    for (const auto* run : seeds) {
      episodes.insert(run->episodes);
      if (std::isfinite(run->steps_per_second)) speeds.push_back(run->steps_per_second);
      for (const auto& [stage, success] : run->teacher) teachers[stage].push_back(success);
    }
  std::string text =
      decimals(statistics::mean(speeds)) + " steps/s per run (without evaluations). ";
  if (!teachers.empty()) {
    text += "Success of the teachers: ";
    bool first = true;
    for (const auto& [stage, values] : teachers) {
      const auto [least, most] = std::minmax_element(values.begin(), values.end());
      text += (first ? "" : ", ") + stage + " " + decimals(*least, 2) + " to " + decimals(*most, 2);
      first = false;
    }
    text += ". ";
  }
  return text + std::to_string(*episodes.begin()) +
         (episodes.size() > 1 ? " to " + std::to_string(*episodes.rbegin()) : std::string()) +
         " episodes from each stage at the end. Over training: 1/T ∫ success dt by trapezoids. In "
         "brackets: 95 % bootstrap interval over seeds.\n\n";
}

/// Success in the known stages: lowest, over training, at the end.
inline std::string kept_table(const run_group& group) {
  std::vector<std::string> header{"what is kept", "seeds"};
  for (const auto* stage : far_stages)
    for (const auto* when : {": lowest", ": over training", ": end"})
      header.push_back(std::string(stage) + when);
  text_table table(header);
  for (const auto& [method, seeds] : group.methods) {
    std::vector<std::string> row{method, std::to_string(seeds.size())};
    for (const auto* stage : far_stages) {
      row.push_back(over_seeds(seeds, lowest_of(stage)));
      row.push_back(over_seeds(seeds, mean_of(stage)));
      row.push_back(over_seeds(seeds, end_of(stage)));
    }
    table.add(row);
  }
  return table.markdown() + "\n";
}

/// Success in the new stages and in the whole sequence: over training and at the end.
inline std::string reached_table(const run_group& group) {
  std::vector<std::string> measured, header{"what is reached", "seeds"};
  for (const auto& stage : group.stages)
    if (!is_far(stage)) measured.push_back(stage);
  measured.emplace_back(whole);
  for (const auto& stage : measured)
    for (const auto* when : {": over training", ": end"}) header.push_back(title_of(stage) + when);
  text_table table(header);
  for (const auto& [method, seeds] : group.methods) {
    std::vector<std::string> row{method, std::to_string(seeds.size())};
    for (const auto& stage : measured) {
      row.push_back(over_seeds(seeds, mean_of(stage)));
      row.push_back(over_seeds(seeds, end_of(stage)));
    }
    table.add(row);
  }
  return table.markdown() + "\n";
}

inline std::string transfer_table(const run_group& group) {
  if (group.from_scratch.empty())
    return "No forward transfer: it needs runs from scratch, and there are none.\n\n";
  text_table table({"forward transfer", "seeds", far_stages[0], far_stages[1], title_of(whole)});
  for (const auto& [method, seeds] : group.methods)
    if (method != "scratch")
      table.add({method, std::to_string(seeds.size()),
                 forward_transfer_text(group, seeds, far_stages[0]),
                 forward_transfer_text(group, seeds, far_stages[1]),
                 forward_transfer_text(group, seeds, whole)});
  return "Forward transfer is (A − B) / (1 − B), where A is the success over training and B is the "
         "success over training from scratch. Both are means over the seeds that both have. 0 "
         "means "
         "as from scratch, 1 means no failure. The bootstrap draws the same seeds for A and "
         "B.\n\n" +
         table.markdown() + "\n";
}

inline std::string each_seed_table(const run_group& group) {
  const std::string one = far_stages[0], other = far_stages[1];
  text_table points({"each seed", "seeds", one + ": lowest", other + ": lowest", one + ": end",
                     other + ": end", "whole sequence: over training", "end"});
  for (const auto& [method, seeds] : group.methods) {
    std::string numbers;
    for (const auto* run : seeds)
      numbers += (numbers.empty() ? "" : ", ") + std::to_string(run->seed);
    points.add({method, numbers, each_seed(seeds, lowest_of(one)),
                each_seed(seeds, lowest_of(other)), each_seed(seeds, end_of(one)),
                each_seed(seeds, end_of(other)), each_seed(seeds, mean_of(whole)),
                each_seed(seeds, end_of(whole))});
  }
  return points.markdown() + "\n";
}

/// Forward transfer in the known stages by the number of new stages: one table per stage, over all
/// groups with the same number of training steps.
inline std::string lengths_tables(const std::vector<run_group>& groups) {
  std::map<long, std::vector<const run_group*>> by_steps;
  for (const auto& group : groups)
    if (!group.from_scratch.empty()) by_steps[group.steps].push_back(&group);
  std::string text;
  for (const auto& [steps, alike] : by_steps) {
    if (alike.size() < 2) continue;
    std::vector<std::string> methods;
    for (const auto* group : alike)
      for (const auto& [method, seeds] : group->methods)
        if (method != "scratch" &&
            std::find(methods.begin(), methods.end(), method) == methods.end())
          methods.push_back(method);
    std::stable_sort(methods.begin(), methods.end(),
                     [](const auto& a, const auto& b) { return method_rank(a) < method_rank(b); });
    text += "## New stages; " + std::to_string(steps) +
            " steps\n\nForward transfer, by the number of new stages before the known stages.\n\n";
    for (const auto* stage : far_stages) {
      std::vector<std::string> header{std::string(stage) + ": new stages"};
      header.insert(header.end(), methods.begin(), methods.end());
      text_table table(header);
      for (const auto* group : alike) {
        std::vector<std::string> row{std::to_string(group->new_stages())};
        for (const auto& name : methods) {
          const auto found = std::find_if(group->methods.begin(), group->methods.end(),
                                          [&](const auto& each) { return each.first == name; });
          row.push_back(found == group->methods.end()
                            ? "–"
                            : forward_transfer_text(*group, found->second, stage));
        }
        table.add(row);
      }
      text += table.markdown() + "\n";
    }
  }
  return text;
}

}  // namespace detail

/// The Markdown of one group: tables over seeds of the success in known and in new stages and of
/// forward transfer, then paired differences and the numbers of each seed.
inline std::string group_report(const run_group& group) {
  return "## " + group.title + "\n\n" + detail::conditions(group) + detail::kept_table(group) +
         detail::reached_table(group) + detail::transfer_table(group) +
         paired_table(group, "whole sequence over training", seed_differences) +
         detail::each_seed_table(group);
}

/// One line per run. Columns of stages that the run's sequence lacks are empty.
inline std::string runs_csv(const std::vector<run_group>& groups) {
  std::vector<std::string> measured;
  for (const auto& group : groups)
    if (group.stages.size() + 1 > measured.size()) {
      measured = group.stages;
      measured.emplace_back(whole);
    }
  std::vector<std::string> header{"stages", "method", "seed", "steps", "steps_per_second"};
  for (const auto& stage : measured)
    for (const auto* what : {"_lowest", "_mean", "_end", "_transfer"})
      header.push_back(stage + what);
  text_table lines(header);
  const auto cell = [](double value) {
    return std::isfinite(value) ? decimals(value, 4) : std::string();
  };
  for (const auto& group : groups)
    for (const auto& [method, seeds] : group.methods)
      for (const auto* run : seeds) {
        std::vector<std::string> row{
            std::to_string(run->stages.size()), method, std::to_string(run->seed),
            std::to_string(run->steps),
            std::isfinite(run->steps_per_second) ? decimals(run->steps_per_second) : std::string()};
        for (const auto& stage : measured)
          for (const double value : {lowest_success(*run, stage), mean_success(*run, stage),
                                     end_success(*run, stage), group.forward_transfer(*run, stage)})
            row.push_back(cell(value));
        lines.add(row);
      }
  return lines.csv();
}

/// Writes report.md, runs.csv, runs.jsonl and the pictures curves-*.png and points-*.png into one
/// folder. runs.jsonl has every evaluation; `report` can read it again. Returns the Markdown.
inline std::string write_report(const std::vector<finished_run>& runs,
                                const std::filesystem::path& out) {
  std::filesystem::create_directories(out);
  const auto groups = group_runs(runs);
  std::string markdown;
  for (const auto& group : groups) markdown += group_report(group);
  markdown += draw_groups(groups, out, draw_curves, draw_points);
  markdown += detail::lengths_tables(groups);
  write_file(out / "runs.csv", runs_csv(groups));
  std::string lines;
  for (const auto& run : runs) lines += line_of(run);
  write_file(out / "runs.jsonl", lines);
  write_file(out / "report.md", markdown);
  return markdown;
}

}  // namespace robotic_sequence
