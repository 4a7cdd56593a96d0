// SPDX-License-Identifier: MIT
// `retain-compare report`: tables and pictures of finished runs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "comparison_data.hpp"
#include "document.hpp"
#include "plot.hpp"

namespace compare {
namespace detail {

using rows = std::vector<std::vector<std::string>>;

inline std::string with_range(double value, const statistics::interval& range, int digits) {
  if (!std::isfinite(value)) return "–";
  const auto text = decimals(value, digits);
  return std::isfinite(range.low) ? text + " [" + range_text(range.low, range.high, digits) + "]"
                                  : text;
}

inline std::string signed_range(double value, const statistics::interval& range, int digits) {
  return (value > 0 ? "+" : "") + with_range(value, range, digits);
}

inline std::string counted(std::size_t n, const std::string& what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

/// The mean and its interval.
inline std::string mean_text(const std::vector<double>& values, int digits) {
  if (values.empty()) return "–";
  return with_range(statistics::mean(values), interval_of({values}, mean_of_tasks), digits);
}

/// One style for each method in all pictures.
inline std::map<std::string, std::size_t> styles_of(const report_data& data) {
  std::map<std::string, std::size_t> styles;
  for (const auto& task : data.tasks)
    for (const auto& name : task.methods) styles.emplace(name, styles.size());
  return styles;
}

inline std::string slug(const std::string& text) {
  std::string name;
  for (const unsigned char c : text)
    if (std::isalnum(c) != 0)
      name += static_cast<char>(std::tolower(c));
    else if (!name.empty() && name.back() != '-')
      name += '-';
  return name;
}

inline std::string better(const measure_style& style) {
  return style.higher_is_better ? "" : " (lower is better)";
}

/// The curve of a method: the mean over seeds, with a 95 % band from five seeds on.
inline plot_line curve_of(const task_data& task, const std::string& method,
                          const std::string& measure, std::size_t style) {
  plot_line line{method, style, {}};
  std::vector<const curve*> curves;
  for (const auto* run : task.runs.at(method))
    if (const auto found = run->curves.find(measure); found != run->curves.end())
      curves.push_back(&found->second);
  statistics::bootstrap_options options;
  options.resamples = 1000;  // of each point; the tables use 10 000
  for (const double step : common_steps(curves)) {
    std::vector<double> values;
    for (const auto* each : curves)
      if (const double value = value_at(*each, step); std::isfinite(value)) values.push_back(value);
    if (values.empty()) continue;
    const auto range = interval_of({values}, mean_of_tasks, options);
    line.points.push_back({step, statistics::mean(values), range.low, range.high});
  }
  return line;
}

inline void add_main(document& doc, const task_data& task,
                     const std::map<std::string, std::size_t>& styles) {
  const auto& view = task.view;
  const auto& style = view.style_of(view.main);
  const auto label = view.label_of(view.main);
  rows table{{"method", "seeds", "mean", "median", "IQM"}};
  std::vector<plot_line> seeds, profile;
  std::set<double> thresholds;
  for (const auto& method : task.methods) {
    const auto values = values_of(task.values(method, view.main));
    if (values.empty()) continue;
    table.push_back({method, std::to_string(values.size()), mean_text(values, style.digits),
                     decimals(statistics::median(values), style.digits),
                     with_range(statistics::interquartile_mean(values),
                                interval_of({values}, interquartile_mean_of), style.digits)});
    plot_line line{method, styles.at(method), {}};
    for (const double value : values) line.points.push_back({value, 0});
    const auto range = interval_of({values}, mean_of_tasks);
    line.points.push_back({statistics::mean(values), 0, range.low, range.high});
    seeds.push_back(std::move(line));
    thresholds.insert(values.begin(), values.end());
  }
  doc.table(table, label + better(style) +
                       ". In brackets: 95 % bootstrap interval over seeds, from five seeds on.");

  const auto name = slug(task.title);
  doc.picture("seeds-" + name, "Each seed, the mean (bar), and its 95 % interval (line).",
              plot_rows(seeds, {task.title + ": each seed", label, style.low, style.high}));
  if (!thresholds.empty()) {
    const double low = std::isfinite(style.low) ? style.low : *thresholds.begin();
    for (const auto& line : seeds) {
      strata values(1);
      for (std::size_t i = 0; i + 1 < line.points.size(); ++i)
        values.front().push_back(line.points[i].x);
      plot_line shares{line.label, line.style, {}};
      shares.points.push_back({low, 1});
      shares.points.push_back({low, share_above(values, low)});
      for (const double threshold : thresholds)
        if (threshold > low) shares.points.push_back({threshold, share_above(values, threshold)});
      if (const double high = std::isfinite(style.high) ? style.high : *thresholds.rbegin();
          high > shares.points.back().x)
        shares.points.push_back({high, share_above(values, high)});
      profile.push_back(std::move(shares));
    }
    doc.picture("profile-" + name,
                "The share of seeds above each value: a curve further to the right is better" +
                    std::string(style.higher_is_better ? "." : ", where higher is better."),
                plot_lines(profile, {task.title + ": performance profile", label, 0, 1, true}));
  }
}

inline void add_curves(document& doc, const task_data& task,
                       const std::map<std::string, std::size_t>& styles) {
  for (const auto& measure : task.view.measures) {
    std::vector<plot_line> lines;
    for (const auto& method : task.methods)
      if (auto line = curve_of(task, method, measure.name, styles.at(method)); !line.points.empty())
        lines.push_back(std::move(line));
    if (lines.empty()) continue;
    const auto side = measure.side.empty() ? "" : measure.side + ", ";
    doc.picture("curve-" + slug(task.title) + "-" + slug(measure.name),
                side + measure.label + better(measure) +
                    ": mean over seeds, with 95 % bands from five seeds on.",
                plot_lines(lines, {task.title + ": " + side + measure.label, "steps", measure.low,
                                   measure.high}));
  }
}

/// Each method against plain fine-tuning: paired by seed, because the runs of a seed start from one
/// teacher; and the probability that a run of the method is better than a run of plain.
inline void add_against(document& doc, const task_data& task) {
  const auto& view = task.view;
  if (view.plain.empty() || !task.runs.contains(view.plain)) return;
  const auto& style = view.style_of(view.main);
  const auto plain = task.values(view.plain, view.main);
  rows table{{"method", "difference", "better", "P(better)"}};
  for (const auto& method : task.methods) {
    if (method == view.plain) continue;
    std::vector<double> differences, x, y;
    const auto own = task.values(method, view.main);
    int wins = 0;
    for (const auto& [seed, value] : own)
      if (const auto other = plain.find(seed); other != plain.end()) {
        differences.push_back(value - other->second);
        if (style.higher_is_better ? differences.back() > 0 : differences.back() < 0) ++wins;
      }
    const double sign = style.higher_is_better ? 1 : -1;
    for (const auto value : values_of(own)) x.push_back(sign * value);
    for (const auto value : values_of(plain)) y.push_back(sign * value);
    if (x.empty() || y.empty()) continue;
    table.push_back({method,
                     differences.empty()
                         ? "–"
                         : signed_range(statistics::mean(differences),
                                        interval_of({differences}, mean_of_tasks), style.digits),
                     std::to_string(wins) + "/" + std::to_string(differences.size()),
                     with_range(probability_of_improvement({x}, {y}),
                                interval_of({x}, {y}, probability_of_improvement), 2)});
  }
  doc.table(table, "Against " + view.plain + ", " + view.label_of(view.main) +
                       ": the mean difference of equal seeds, the seeds in which the method is "
                       "better, and the probability that a run of it is better than a run of " +
                       view.plain + " (0.5: no difference).");
}

inline void add_pairs(document& doc, const task_data& task) {
  const auto& style = task.view.style_of(task.view.main);
  if (task.methods.size() < 3) return;
  rows table{{"P(row better than column)"}};
  for (const auto& method : task.methods) table.front().push_back(method);
  const auto values = [&](const std::string& method) {
    auto all = values_of(task.values(method, task.view.main));
    for (double& value : all) value *= style.higher_is_better ? 1 : -1;
    return all;
  };
  for (const auto& row : task.methods) {
    table.push_back({row});
    for (const auto& column : task.methods)
      table.back().push_back(
          row == column ? "–"
                        : decimals(probability_of_improvement({values(row)}, {values(column)}), 2));
  }
  doc.table(table, "For each pair of methods. With many pairs, some are far from 0.5 by chance.");
}

/// Each measure: at the end, over training, and the worst.
inline void add_measures(document& doc, const task_data& task) {
  for (const auto& measure : task.view.measures) {
    const std::string worst = measure.higher_is_better ? "lowest" : "highest";
    rows table{{"method", "end", "over training", worst}};
    bool any = false;
    for (const auto& method : task.methods) {
      table.push_back({method});
      for (const auto& how : {std::string(":end"), std::string(":mean"), ":" + worst}) {
        const auto values = values_of(task.values(method, measure.name + how));
        any = any || !values.empty();
        table.back().push_back(mean_text(values, measure.digits));
      }
    }
    if (!any) continue;
    doc.table(table, (measure.side.empty() ? "" : measure.side + ": ") + measure.label +
                         better(measure) + ".");
  }
}

inline void add_transfer(document& doc, const task_data& task) {
  const auto& view = task.view;
  for (const auto& measure : view.measures) {
    // where lower is better, the measure is itself a distance from what was known
    if (measure.side != "FAR" || !measure.higher_is_better) continue;
    rows table{{"method", "forgetting", "backward transfer"}};
    for (const auto& method : task.methods) {
      std::vector<double> forgetting, backward;
      for (const auto* run : task.runs.at(method)) {
        const auto both = transfer_of(*run, measure);
        if (!std::isfinite(both.forgetting)) continue;
        forgetting.push_back(both.forgetting);
        backward.push_back(both.backward);
      }
      const auto back = mean_text(backward, measure.digits);
      table.push_back({method, mean_text(forgetting, measure.digits), back});
    }
    doc.table(table,
              "FAR, " + measure.label +
                  ": forgetting is the best value in training − the value at its end; backward "
                  "transfer is the value at the end − the value before training.");
  }
  if (view.scratch.empty() || !task.runs.contains(view.scratch)) return;
  for (const auto& measure : view.measures) {
    if (measure.side != "CLOSE") continue;
    const double scratch =
        statistics::mean(values_of(task.values(view.scratch, measure.name + ":mean")));
    const bool bounded = std::isfinite(measure.high) && measure.higher_is_better;
    rows table{{"method", "forward transfer"}};
    for (const auto& method : task.methods) {
      if (method == view.scratch) continue;
      auto values = values_of(task.values(method, measure.name + ":mean"));
      for (double& value : values)
        value = (measure.higher_is_better ? value - scratch : scratch - value) /
                (bounded ? measure.high - scratch : 1);
      table.push_back({method, mean_text(values, measure.digits)});
    }
    doc.table(table, "CLOSE, " + measure.label +
                         (bounded ? ": (area − area from scratch) / (highest − area from scratch)"
                                  : ": area − area from scratch, over training") +
                         ". The variation of the runs from scratch is not part of the interval.");
  }
}

inline void add_cost(document& doc, const task_data& task) {
  rows table{{"method", "steps/s", "µs a step", "relative"}};
  const auto speeds = [&](const std::string& method) {
    std::vector<double> all;
    for (const auto* run : task.runs.at(method))
      if (std::isfinite(run->steps_per_second) && run->steps_per_second > 0)
        all.push_back(1e6 / run->steps_per_second);
    return all;
  };
  const auto& plain = task.view.plain;
  const double base =
      plain.empty() || !task.runs.contains(plain) ? std::nan("") : statistics::mean(speeds(plain));
  for (const auto& method : task.methods) {
    const auto times = speeds(method);
    if (times.empty()) continue;
    const double time = statistics::mean(times);
    table.push_back({method, decimals(1e6 / time), decimals(time, time < 100 ? 2 : 0),
                     decimals(time / base, 2)});
  }
  doc.table(table, "The cost of a step: mean time over runs, and relative to " +
                       (plain.empty() ? std::string("plain") : plain) +
                       ". Runs that shared a machine disturb each other.");
}

inline void add_seeds(document& doc, const task_data& task) {
  std::set<std::int64_t> seeds;
  for (const auto& [method, runs] : task.runs)
    for (const auto* run : runs) seeds.insert(run->seed);
  rows table{{"method"}};
  // the method's row would be too wide for a page: seeds are rows
  for (const auto& method : task.methods) table.front().push_back(method);
  table.front().front() = "seed";
  for (const auto seed : seeds) {
    table.push_back({std::to_string(seed)});
    for (const auto& method : task.methods) {
      const auto values = task.values(method, task.view.main);
      const auto found = values.find(seed);
      table.back().push_back(
          found == values.end()
              ? "–"
              : decimals(found->second, task.view.style_of(task.view.main).digits));
    }
  }
  doc.table(table, "Each seed: " + task.view.label_of(task.view.main) + ".");
}

/// All tasks together, where their main measures have one scale: by their range, or by being the
/// same measure.
inline void add_all_tasks(document& doc, const report_data& data,
                          const std::map<std::string, std::size_t>& styles) {
  if (data.tasks.size() < 2) return;
  bool ranges = true, same = true, higher = true;
  for (const auto& task : data.tasks) {
    const auto& style = task.view.style_of(task.view.main);
    ranges = ranges && std::isfinite(style.low);
    same = same && task.view.main == data.tasks.front().view.main &&
           task.view.experiment == data.tasks.front().view.experiment;
    higher = higher && style.higher_is_better;
  }
  if (!(ranges || same) || !higher) return;
  std::vector<std::string> methods;
  for (const auto& method : data.tasks.front().methods)
    if (std::all_of(data.tasks.begin(), data.tasks.end(),
                    [&](const task_data& task) { return task.runs.contains(method); }))
      methods.push_back(method);
  if (methods.empty()) return;
  const auto values = [&](const std::string& method) {
    strata all;
    for (const auto& task : data.tasks) {
      const auto& style = task.view.style_of(task.view.main);
      all.push_back(values_of(task.values(method, task.view.main)));
      for (double& value : all.back())
        if (ranges) value = (value - style.low) / (style.high - style.low);
    }
    return all;
  };
  doc.heading(2, "All tasks");
  rows table{{"method", "runs", "mean", "median", "IQM"}}, against{{"method", "P(better)"}};
  const auto& plain = data.tasks.front().view.plain;
  std::vector<plot_line> profile;
  std::set<double> thresholds;
  for (const auto& method : methods)
    for (const double value : joined(values(method))) thresholds.insert(value);
  for (const auto& method : methods) {
    const auto all = values(method);
    table.push_back(
        {method, std::to_string(joined(all).size()),
         with_range(mean_of_tasks(all), interval_of(all, mean_of_tasks), 2),
         with_range(median_of_tasks(all), interval_of(all, median_of_tasks), 2),
         with_range(interquartile_mean_of(all), interval_of(all, interquartile_mean_of), 2)});
    if (method != plain && std::find(methods.begin(), methods.end(), plain) != methods.end())
      against.push_back(
          {method, with_range(probability_of_improvement(all, values(plain)),
                              interval_of(all, values(plain), probability_of_improvement), 2)});
    plot_line line{method, styles.at(method), {}};
    if (!thresholds.empty()) line.points.push_back({*thresholds.begin(), 1});
    for (const double threshold : thresholds)
      line.points.push_back({threshold, share_above(all, threshold)});
    profile.push_back(std::move(line));
  }
  const std::string scale = ranges ? "in its range, 0 to 1" : "in its own unit";
  doc.table(table,
            "The main measure of each task, " + scale +
                ". Median: over tasks, of the mean over seeds. IQM: of the middle half of all "
                "runs. Intervals: stratified bootstrap, which draws seeds within each task.");
  doc.table(against,
            "The probability that a run is better than one of " + plain + ", mean over tasks.");
  doc.picture("profile-all", "The share of runs above each value, mean over tasks.",
              plot_lines(profile,
                         {"All tasks: performance profile", "main measure, " + scale, 0, 1, true}));
}

inline void add_tuning(document& doc, const report_data& data) {
  for (const auto& each : data.tunings) {
    const auto& plan = *each.plan.tuning;
    doc.heading(2, "Tuning" + (data.tunings.size() > 1 ? ": " + each.experiment : std::string()));
    std::size_t candidates = 0, methods = 0;
    for (const auto& method : each.plan.methods)
      if (method.tuned()) {
        candidates = method.candidates();
        ++methods;
      }
    std::string untuned;
    for (const auto& method : each.plan.methods)
      if (!method.tuned() && method.has_settings())
        untuned += (untuned.empty() ? "" : ", ") + method.name;
    doc.text("Equal effort: " + counted(methods, "tuned method") + ", each with " +
             counted(candidates, "candidate") + ", " + counted(plan.seeds.size(), "seed") +
             " and " + counted(each.plan.tasks.size(), "task") + ", in runs of " +
             short_number(static_cast<double>(each.plan.steps)) +
             " steps. These seeds are not part of the comparison. The " +
             std::string(plan.higher_is_better ? "highest" : "lowest") + " mean of " +
             plan.measure + " is chosen.");
    if (!untuned.empty())
      doc.warning("The settings of " + untuned +
                  " were given in the file and not tuned: their effort is not equal to that of the "
                  "tuned methods");
    rows table{{"method", "task", "candidate", "mean", "each seed", "chosen"}};
    for (const auto& tuned : each.tuned) {
      for (const auto& candidate : tuned.candidates) {
        std::string seeds;
        for (const double value : candidate.values)
          seeds += (seeds.empty() ? "" : ", ") + decimals(value, 2);
        table.push_back({tuned.method, tuned.task.empty() ? "all" : tuned.task,
                         settings_text(candidate.settings), decimals(candidate.mean, 2), seeds,
                         candidate.chosen ? "chosen" : ""});
      }
      if (!tuned.missing.empty())
        doc.warning(tuned.method + ": " + tuned.missing + " is missing");
      else if (tuned.tied())
        doc.warning(tuned.method + ": several candidates have the best mean; the first is chosen");
      else if (tuned.at_an_end())
        doc.warning(tuned.method +
                    ": the choice is at an end of its list, so a value beyond the list "
                    "may be better");
    }
    doc.table(table, "Every candidate.");
  }
}

inline void add_how(document& doc, const report_data& data) {
  doc.heading(2, "How it was run");
  rows table{{"task", "method", "settings", "runs"}};
  std::set<std::string> versions;
  for (const auto& task : data.tasks)
    for (const auto& method : task.methods) {
      std::map<std::string, std::size_t> settings;
      for (const auto* run : task.runs.at(method)) {
        ++settings[settings_text(run->settings)];
        if (!run->versions.empty()) versions.insert(run->versions.dump());
      }
      for (const auto& [text, count] : settings)
        table.push_back({task.title, method, text.empty() ? "–" : text, std::to_string(count)});
    }
  doc.table(table);
  for (const auto& text : versions) doc.text("Versions: " + text);
  if (versions.size() > 1) doc.warning("the runs were made with different versions");
  for (const auto& task : data.tasks) {
    const auto& command = task.runs.at(task.methods.front()).front()->command;
    std::string words;
    for (const auto& word : command) words += (words.empty() ? "" : " ") + word;
    if (!words.empty()) doc.text("The first run of " + task.title + ": " + words);
  }
}

}  // namespace detail

inline document make_report(const report_data& data) {
  document doc;
  std::set<std::string> names;
  for (const auto& task : data.tasks)
    names.insert(task.view.experiment.empty() ? task.task : task.view.experiment);
  for (const auto& name : names) doc.title += (doc.title.empty() ? "" : ", ") + name;
  const auto styles = detail::styles_of(data);
  std::set<std::string> methods;
  std::size_t runs = 0;
  for (const auto& task : data.tasks)
    for (const auto& [method, list] : task.runs) {
      methods.insert(method);
      runs += list.size();
    }
  using detail::counted;
  doc.text(counted(runs, "finished run") + " of " + counted(methods.size(), "method") + " on " +
           counted(data.tasks.size(), "task") + ".");
  for (const auto& warning : data.warnings) doc.warning(warning);
  detail::add_all_tasks(doc, data, styles);
  for (const auto& task : data.tasks) {
    doc.heading(2, task.title);
    detail::add_main(doc, task, styles);
    detail::add_curves(doc, task, styles);
    detail::add_against(doc, task);
    detail::add_pairs(doc, task);
    using part = void (*)(document&, const task_data&);
    const std::vector<std::pair<const char*, part>> parts{
        {"Every measure", detail::add_measures},
        {"Forgetting and transfer", detail::add_transfer},
        {"Cost", detail::add_cost},
        {"Each seed", detail::add_seeds}};
    for (const auto& [title, add] : parts) {
      doc.heading(3, title);
      const auto before = doc.blocks.size();
      add(doc, task);
      if (doc.blocks.size() == before) doc.blocks.pop_back();  // nothing to show
    }
  }
  detail::add_tuning(doc, data);
  detail::add_how(doc, data);
  return doc;
}

/// Every number of every run: one row for each value.
inline std::string long_csv(const std::vector<run_result>& runs) {
  const auto cell = [](const std::string& text) {
    if (text.find_first_of(",\"\n") == std::string::npos) return text;
    std::string quoted = "\"";
    for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
    return quoted + "\"";
  };
  std::string text = "task,preset,method,settings,seed,status,when,step,measure,value\n";
  const auto exact = [](double value) { return json(value).dump(); };
  for (const auto& run : runs) {
    const auto begin = cell(run.task) + "," + cell(run.preset) + "," + cell(run.method) + "," +
                       cell(settings_text(run.settings)) + "," + std::to_string(run.seed) + "," +
                       name_of(run.status) + ",";
    for (const auto& [measure, points] : run.curves)
      for (const auto& p : points)
        text +=
            begin + "training," + exact(p.step) + "," + cell(measure) + "," + exact(p.value) + "\n";
    for (const auto& [measure, value] : run.values)
      text += begin + "end," + exact(run.step) + "," + cell(measure) + "," + exact(value) + "\n";
  }
  return text;
}

/// Writes index.html, report.md with its pictures, runs.csv and tables.tex. Returns the Markdown.
inline std::string write_report(const std::vector<std::filesystem::path>& folders,
                                const std::filesystem::path& out) {
  const auto data = read_report(folders);
  const auto doc = make_report(data);
  std::filesystem::create_directories(out);
  for (const auto& each : doc.blocks)
    if (each.what == block::kind::picture) write_file(out / (each.name + ".svg"), svg_file(each));
  const auto markdown = markdown_of(doc);
  write_file(out / "report.md", markdown);
  write_file(out / "index.html", html_of(doc));
  write_file(out / "tables.tex", latex_of(doc));
  write_file(out / "runs.csv", long_csv(data.runs));
  return markdown;
}

}  // namespace compare
