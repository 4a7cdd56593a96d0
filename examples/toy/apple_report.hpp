// SPDX-License-Identifier: MIT
// Reports of many AppleRetrieval runs: tables, CSV and JSON.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "../common/statistics.hpp"
#include "../common/table.hpp"
#include "apple_experiment.hpp"

namespace toy {

/// A statistic of one run.
struct apple_measure {
  const char* name;   ///< in files
  const char* title;  ///< in tables
  double (*of)(const apple_run&);
};

inline constexpr std::array<apple_measure, 3> apple_measures{
    {{"phase2_lowest", "phase-2 success, lowest during training",
      [](const apple_run& run) { return run.lowest_far(); }},
     {"success_end", "success of whole episodes, at the end",
      [](const apple_run& run) { return run.last_full(); }},
     {"success_area", "success of whole episodes, mean over training",
      [](const apple_run& run) { return run.area(); }}}};

/// Names of worlds in tables, for example "M = 30" and "c = 0.25".
inline std::string distance_text(const apple_world& world) {
  return "M = " + std::to_string(world.distance);
}
inline std::string signal_text(const apple_world& world) {
  std::ostringstream text;
  text << "c = " << world.signal;
  return text.str();
}

/// A strength as text without trailing zeros; empty for 0, which means no strength.
inline std::string strength_text(double strength) {
  std::ostringstream text;
  if (strength > 0) text << strength;
  return text.str();
}

inline std::string arm_title(const apple_arm& arm) {
  const std::string title = method_named(arm.method).title;
  return arm.strength > 0 ? title + " " + strength_text(arm.strength) : title;
}

inline std::string interval_text(std::span<const double> values, int digits = 3) {
  const auto interval = statistics::bootstrap_interval(values);
  return decimals(statistics::mean(values), digits) + " [" +
         range_text(interval.low, interval.high, digits) + "]";
}

/// A table with arms as rows and worlds as columns. A cell contains the mean over seeds, the 95 %
/// interval of the mean, and the median.
inline std::string measure_table(const apple_plan& plan, const std::vector<apple_run>& runs,
                                 const apple_measure& what, const std::vector<std::size_t>& worlds,
                                 std::string (*column)(const apple_world&)) {
  std::vector<std::string> header{what.title};
  for (const auto world : worlds) header.push_back(column(plan.worlds[world]));
  text_table table(header);
  for (std::size_t arm = 0; arm < plan.arms.size(); ++arm) {
    std::vector<std::string> row{arm_title(plan.arms[arm])};
    for (const auto world : worlds) {
      const auto values = over_seeds(runs, world, arm, what.of);
      row.push_back(interval_text(values) + ", " + decimals(statistics::median(values), 3));
    }
    table.add(row);
  }
  return table.markdown();
}

/// The movement of θ from its start, along two directions. `felt` is the movement along (c, 1),
/// which changes phase 2. `free` is the movement along (1, −c), which does not. The logits follow
/// from both: z2 = √(1+c²) · felt, and z1 depends on both numbers.
struct apple_movement {
  double felt = 0, free = 0;
};
inline apple_movement movement(const apple_world& world, const apple_weights& start,
                               const apple_weights& now) {
  const double length = std::sqrt(1 + world.signal * world.signal), w = now.w - start.w,
               b = now.b - start.b;
  return {(world.signal * w + b) / length, (w - world.signal * b) / length};
}
inline apple_weights weights_at(const apple_world& world, const apple_point& point) {
  return {(point.logit2 - point.logit1) / (2 * world.signal), (point.logit1 + point.logit2) / 2};
}

/// A table for one world with one row per arm: the measures, the paired differences of the mean
/// over training, and the movement of θ.
inline std::string world_table(const apple_plan& plan, const std::vector<apple_run>& runs,
                               std::size_t world, std::size_t reference) {
  text_table table({"method", "phase 2, lowest", "success, end", "mean over training",
                    "− " + arm_title(plan.arms[reference]) + ", paired", "felt, farthest",
                    "free, end"});
  const auto area = apple_measures[2].of;
  const auto base = over_seeds(runs, world, reference, area);
  for (std::size_t arm = 0; arm < plan.arms.size(); ++arm) {
    std::vector<std::string> row{arm_title(plan.arms[arm])};
    for (const auto& what : apple_measures)
      row.push_back(interval_text(over_seeds(runs, world, arm, what.of)));
    const auto paired = statistics::paired_difference(over_seeds(runs, world, arm, area), base);
    row.push_back(arm == reference
                      ? "–"
                      : (paired.difference >= 0 ? "+" : "") + decimals(paired.difference, 3) +
                            " [" + range_text(paired.confidence.low, paired.confidence.high, 3) +
                            "], " + std::to_string(paired.wins) + "/" +
                            std::to_string(paired.pairs));
    const auto farthest = over_seeds(runs, world, arm, [&](const apple_run& run) {
      double most = 0;
      for (const auto& point : run.points)
        most = std::max(most, std::abs(movement(plan.worlds[world], run.start,
                                                weights_at(plan.worlds[world], point))
                                           .felt));
      return most;
    });
    const auto along = over_seeds(runs, world, arm, [&](const apple_run& run) {
      return movement(plan.worlds[world], run.start, run.end).free;
    });
    row.push_back(decimals(statistics::mean(farthest), 2));
    row.push_back(decimals(statistics::mean(along), 2));
    table.add(row);
  }
  return table.markdown();
}

inline std::string number_text(double value) {
  std::ostringstream text;
  text.precision(10);
  text << value;
  return text.str();
}

/// CSV with one row per run.
inline std::string runs_csv(const apple_plan& plan, const std::vector<apple_run>& runs) {
  text_table table({"distance", "signal", "method", "strength", "seed", "phase2_lowest",
                    "success_end", "success_area", "start_w", "start_b", "end_w", "end_b"});
  for (const auto& run : runs) {
    const auto& world = plan.worlds[run.world];
    const auto& arm = plan.arms[run.arm];
    std::vector<std::string> row{std::to_string(world.distance), number_text(world.signal),
                                 arm.method, strength_text(arm.strength), std::to_string(run.seed)};
    for (const auto& what : apple_measures) row.push_back(number_text(what.of(run)));
    for (const double value : {run.start.w, run.start.b, run.end.w, run.end.b})
      row.push_back(number_text(value));
    table.add(row);
  }
  return table.csv();
}

/// The mean over seeds and its interval at one measurement.
struct curve_point {
  int update = 0;
  double mean = 0, low = 0, high = 0;
};

inline std::vector<curve_point> curve(const std::vector<apple_run>& runs, std::size_t world,
                                      std::size_t arm, double apple_point::* what) {
  std::vector<const apple_run*> own;
  for (const auto& run : runs)
    if (run.world == world && run.arm == arm) own.push_back(&run);
  std::vector<curve_point> points;
  // every second measurement is enough for a picture
  for (std::size_t i = 0; !own.empty() && i < own.front()->points.size(); i += 2) {
    std::vector<double> values;
    for (const auto* run : own) values.push_back(run->points[i].*what);
    const auto interval = statistics::bootstrap_interval(values, {.resamples = 400});
    points.push_back(
        {own.front()->points[i].update, statistics::mean(values), interval.low, interval.high});
  }
  return points;
}

struct apple_curves {
  std::vector<curve_point> full, far;
};

/// The curves of all worlds and arms, at the index world · arms + arm.
inline std::vector<apple_curves> all_curves(const apple_plan& plan,
                                            const std::vector<apple_run>& runs,
                                            std::size_t threads) {
  std::vector<apple_curves> all(plan.worlds.size() * plan.arms.size());
  parallel(all.size(), threads, [&](std::size_t i) {
    const auto world = i / plan.arms.size(), arm = i % plan.arms.size();
    all[i] = {curve(runs, world, arm, &apple_point::full),
              curve(runs, world, arm, &apple_point::far)};
  });
  return all;
}

inline std::string curves_csv(const apple_plan& plan, const std::vector<apple_curves>& curves) {
  std::ostringstream text;
  text << "distance,signal,method,strength,update,success,success_low,success_high,phase2,phase2_"
          "low,phase2_high\n";
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const auto& world = plan.worlds[i / plan.arms.size()];
    const auto& arm = plan.arms[i % plan.arms.size()];
    for (std::size_t t = 0; t < curves[i].full.size(); ++t) {
      text << world.distance << ',' << world.signal << ',' << arm.method << ','
           << strength_text(arm.strength) << ',' << curves[i].full[t].update;
      for (const auto& point : {curves[i].full[t], curves[i].far[t]})
        text << ',' << decimals(point.mean, 4) << ',' << decimals(point.low, 4) << ','
             << decimals(point.high, 4);
      text << '\n';
    }
  }
  return text.str();
}

inline nlohmann::json summary_json(const apple_plan& plan, const std::vector<apple_run>& runs) {
  nlohmann::json all = nlohmann::json::array();
  for (std::size_t world = 0; world < plan.worlds.size(); ++world)
    for (std::size_t arm = 0; arm < plan.arms.size(); ++arm) {
      nlohmann::json entry{{"distance", plan.worlds[world].distance},
                           {"signal", plan.worlds[world].signal},
                           {"method", plan.arms[arm].method},
                           {"strength", plan.arms[arm].strength}};
      for (const auto& what : apple_measures) {
        const auto values = over_seeds(runs, world, arm, what.of);
        const auto interval = statistics::bootstrap_interval(values);
        entry[what.name] = {{"mean", statistics::mean(values)},
                            {"median", statistics::median(values)},
                            {"interval_95", {interval.low, interval.high}}};
      }
      all.push_back(std::move(entry));
    }
  return {{"settings",
           {{"seeds", plan.seeds},
            {"updates", plan.updates},
            {"measured_every", plan.every},
            {"episodes", plan.learning.episodes},
            {"rate", plan.learning.rate},
            {"discount", plan.learning.discount},
            {"mastery", plan.learning.mastery},
            {"cap", plan.worlds.front().cap}}},
          {"summary", std::move(all)}};
}

}  // namespace toy
