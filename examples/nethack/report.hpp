// SPDX-License-Identifier: MIT
// Writes the report over many runs: tables, CSV, JSON and pictures.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "../common/comparison.hpp"
#include "../common/statistics.hpp"
#include "../common/table.hpp"
#include "pictures.hpp"
#include "results.hpp"
#include "runs.hpp"

namespace nethack {

/// A Markdown table with one row per policy, as the demo prints it. The interval is over the games
/// of the policy.
inline std::string games_report(const std::vector<evaluated>& runs) {
  text_table lines({"policy", "steps", "games", "mean", "median", "95 % interval", "depth",
                    "stuck %", "KL CLOSE", "KL FAR", "agree CLOSE", "agree FAR"});
  for (const auto& run : runs) {
    const auto& games = games_from(run, "new");
    const auto score = scores(games);
    const auto interval = statistics::bootstrap_interval(score);
    const auto number = [&](std::size_t i) {
      return decimals(measures()[i].of(run), measures()[i].digits);
    };
    lines.add({run.method.empty()
                   ? run.name
                   : run.method + (run.seed != 0 ? ", seed " + std::to_string(run.seed) : ""),
               run.steps > 0 ? std::to_string(run.steps) : "–", std::to_string(games.size()),
               decimals(statistics::mean(score)), decimals(statistics::median(score)),
               range_text(interval.low, interval.high), number(4), number(5), number(6), number(7),
               number(8), number(9)});
  }
  return lines.markdown();
}

namespace detail {

/// Mean of a − b over the games that both played. Returns nullopt if they share no game.
inline std::optional<double> paired_mean(const evaluated& a, const evaluated& b,
                                         const std::string& start) {
  std::map<std::pair<std::string, std::uint64_t>, double> other;
  for (const auto& game : games_from(b, start)) other[{game.start, game.seed}] = game.score;
  std::vector<double> differences;
  for (const auto& game : games_from(a, start))
    if (const auto found = other.find({game.start, game.seed}); found != other.end())
      differences.push_back(game.score - found->second);
  if (differences.empty()) return std::nullopt;
  return statistics::mean(differences);
}

/// a − b on equal games, for every seed that both lists contain.
inline std::vector<double> seed_differences(const std::vector<const evaluated*>& a,
                                            const std::vector<const evaluated*>& b,
                                            const std::string& start) {
  std::vector<double> differences;
  for (const auto* run : a)
    for (const auto* other : b)
      if (run->seed == other->seed)
        if (const auto difference = paired_mean(*run, *other, start))
          differences.push_back(*difference);
  return differences;
}

}  // namespace detail

/// The whole report as Markdown. For each group of runs: a table over seeds, the paired
/// differences, and the score of each seed.
inline std::string seeds_report(const std::vector<evaluated>& runs) {
  std::ostringstream text;
  std::vector<std::string> header{"policy", "seeds"};
  for (const auto& what : measures()) header.emplace_back(what.name);
  header.insert(header.begin() + 3, {"median of seeds", "IQM of games"});

  text_table references(header);
  for (const auto& run : runs) {
    if (!run.method.empty()) continue;
    std::vector<std::string> row{run.name, "–"};
    for (const auto& what : measures()) row.push_back(decimals(what.of(run), what.digits));
    const auto score = scores(games_from(run, "new"));
    row.insert(row.begin() + 3, {decimals(statistics::median(score)) + " (games)",
                                 decimals(statistics::interquartile_mean(score))});
    references.add(row);
  }
  if (references.size() > 0) text << "## Reference policies\n\n" << references.markdown() << "\n";

  for (const auto& group : group_runs(runs)) {
    std::set<long> steps;
    std::vector<double> speeds;
    for (const auto& [method, seeds] : group.methods)
      for (const auto* run : seeds) {
        steps.insert(run->steps);
        if (std::isfinite(run->steps_per_second)) speeds.push_back(run->steps_per_second);
      }
    text << "## " << group.title << "\n\n";
    text << "Trained for " << *steps.begin()
         << (steps.size() > 1 ? " to " + std::to_string(*steps.rbegin()) : std::string())
         << " steps"
         << (speeds.empty() ? "" : " at " + decimals(statistics::mean(speeds)) + " steps/s per run")
         << ". In brackets: 95 % bootstrap interval over seeds.\n\n";
    text_table lines(header);
    for (const auto& [method, seeds] : group.methods) {
      std::vector<std::string> row{method, std::to_string(seeds.size())};
      for (const auto& what : measures()) {
        const auto values = values_over(seeds, what);
        row.push_back(what.interval ? with_interval(values, what.digits)
                                    : decimals(statistics::mean(values), what.digits));
      }
      std::vector<double> games;
      for (const auto* run : seeds)
        for (const double score : scores(games_from(*run, "new"))) games.push_back(score);
      row.insert(row.begin() + 3, {decimals(statistics::median(values_over(seeds, measures()[0]))),
                                   decimals(statistics::interquartile_mean(games))});
      lines.add(row);
    }
    text << lines.markdown() << "\n";

    const auto* clone = find_reference(runs, "clone");
    const auto none = std::find_if(group.methods.begin(), group.methods.end(),
                                   [](const auto& m) { return m.first == "none"; });
    if (clone != nullptr || none != group.methods.end()) {
      text_table paired({"paired differences", "− none, new game", "− clone, new game",
                         "− none, from depth 3", "− none, from depth 4"});
      for (const auto& [method, seeds] : group.methods) {
        const auto against_none = [&](const std::string& start) {
          return none == group.methods.end() || method == "none"
                     ? std::vector<double>{}
                     : detail::seed_differences(seeds, none->second, start);
        };
        std::vector<double> against_clone;
        if (clone != nullptr)
          for (const auto* run : seeds)
            if (const auto difference = detail::paired_mean(*run, *clone, "new"))
              against_clone.push_back(*difference);
        paired.add({method, difference_text(against_none("new")), difference_text(against_clone),
                    difference_text(against_none("depth3")),
                    difference_text(against_none("depth4"))});
      }
      text << "Differences on equal games, paired by seed: mean [95 % interval over seeds], number "
              "of seeds above zero. All seeds start from one clone, so the intervals of − clone do "
              "not include the variation between clones.\n\n"
           << paired.markdown() << "\n";
    }

    std::vector<std::string> keeping{"row − column, new game"};
    for (const auto& [method, seeds] : group.methods)
      if (method != "none" && method != "scratch") keeping.push_back(method);
    if (keeping.size() > 2) {
      text_table order(keeping);
      for (const auto& [method, seeds] : group.methods) {
        if (std::find(keeping.begin() + 1, keeping.end(), method) == keeping.end()) continue;
        std::vector<std::string> row{method};
        for (const auto& [other, others] : group.methods)
          if (std::find(keeping.begin() + 1, keeping.end(), other) != keeping.end())
            row.push_back(other == method
                              ? "–"
                              : difference_text(detail::seed_differences(seeds, others, "new")));
        order.add(row);
      }
      text << "Each method compared with each other. With so many intervals, about one in twenty "
              "excludes zero by chance.\n\n"
           << order.markdown() << "\n";
    }

    text_table points({"score of each seed", "new game", "from depth 3", "from depth 4"});
    for (const auto& [method, seeds] : group.methods) {
      const auto list = [&](std::size_t which) {
        std::string cell;
        for (const auto* run : seeds)
          cell += (cell.empty() ? "" : ", ") + decimals(measures()[which].of(*run));
        return cell;
      };
      points.add({method, list(0), list(2), list(3)});
    }
    text << points.markdown() << "\n";
  }
  return text.str();
}

inline std::string runs_csv(const std::vector<evaluated>& runs) {
  std::vector<std::string> header{"name", "method", "recipe",           "training_turns",
                                  "seed", "steps",  "steps_per_second", "games"};
  for (const auto& what : measures()) header.emplace_back(what.name);
  text_table lines(header);
  for (const auto& run : runs) {
    std::vector<std::string> row{run.name,
                                 run.method,
                                 run.recipe,
                                 std::to_string(run.training_turns),
                                 std::to_string(run.seed),
                                 std::to_string(run.steps),
                                 decimals(run.steps_per_second),
                                 std::to_string(games_from(run, "new").size())};
    for (const auto& what : measures()) {
      const double value = what.of(run);
      row.push_back(std::isfinite(value) ? decimals(value, 4) : "");
    }
    lines.add(row);
  }
  return lines.csv();
}

/// Writes report.md, runs.csv, report.json, scores-*.png and curves-*.png into the folder `out`.
/// Returns the Markdown.
inline std::string write_report(const std::vector<evaluated>& runs,
                                const std::filesystem::path& out) {
  std::filesystem::create_directories(out);
  std::string markdown = seeds_report(runs);
  for (const auto& group : group_runs(runs)) {
    const auto slug = group_slug(group);
    if (draw_scores(group, runs, out / ("scores-" + slug)))
      markdown += "![" + group.title + ", scores](scores-" + slug + ".png)\n\n";
    if (draw_curves(group, find_reference(runs, "clone"), out / ("curves-" + slug)))
      markdown += "![" + group.title + ", over training](curves-" + slug + ".png)\n\n";
  }
  nlohmann::json all = nlohmann::json::array();
  for (const auto& run : runs) {
    nlohmann::json entry{{"name", run.name},
                         {"method", run.method},
                         {"recipe", run.recipe},
                         {"turns", run.training_turns},
                         {"seed", run.seed},
                         {"steps", run.steps},
                         {"steps_per_second", run.steps_per_second}};
    for (const auto& what : measures()) entry["measures"][what.name] = what.of(run);
    for (const auto& [start, games] : run.results) entry["starts"][start] = summary(games);
    all.push_back(std::move(entry));
  }
  write_json(out / "report.json", all);
  write_file(out / "runs.csv", runs_csv(runs));
  write_file(out / "report.md", markdown);
  return markdown;
}

}  // namespace nethack
