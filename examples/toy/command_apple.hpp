// SPDX-License-Identifier: MIT
// The command `toy apple`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/files.hpp"
#include "../common/option_checks.hpp"
#include "../common/seeds.hpp"
#include "apple_pictures.hpp"
#include "apple_strengths.hpp"

namespace toy {

struct apple_options {
  std::string out = "runs/toy/apple";
  std::vector<int> distances{5, 10, 20, 30};
  std::vector<double> signals{0.1, 0.15, 0.25, 0.35, 0.5};
  apple_world reference;
  std::vector<std::string> methods{"scratch", "none", "l2", "ewc", "kfac", "bc"};
  std::map<std::string, double> strengths;
  std::vector<std::string> seeds{"1-20"}, tuning_seeds{"1001-1010"};
  reinforce_options learning;
  int updates = 2000, every = 10;
  std::size_t jobs = 2;
  bool tune = false;
};

namespace detail {

inline apple_plan plan_of(const apple_options& options) {
  apple_plan plan;
  plan.learning = options.learning;
  plan.updates = options.updates;
  plan.every = options.every;
  plan.seeds = seed_list(options.seeds);
  for (const auto& method : options.methods)
    plan.arms.push_back({method, options.strengths.at(method)});
  return plan;
}

/// Returns the index of a world in the plan. Adds the world if it is not in the plan. Throws
/// std::runtime_error if the episode is too short for the distance.
inline std::size_t place_of(apple_plan& plan, const apple_world& world) {
  const auto found =
      std::find_if(plan.worlds.begin(), plan.worlds.end(), [&](const apple_world& other) {
        return other.distance == world.distance && !(other.signal < world.signal) &&
               !(other.signal > world.signal);
      });
  if (found != plan.worlds.end()) return static_cast<std::size_t>(found - plan.worlds.begin());
  if (2 * world.distance > world.cap)
    throw std::runtime_error(
        "apple: " + std::to_string(world.cap) + " steps are too few to walk to the apple at " +
        std::to_string(world.distance) + " and back: lower the distance or raise --cap");
  plan.worlds.push_back(world);
  return plan.worlds.size() - 1;
}

/// Returns the index of the arm "none" (plain fine-tuning), or 0 if there is no such arm.
inline std::size_t baseline(const apple_plan& plan) {
  for (std::size_t arm = 0; arm < plan.arms.size(); ++arm)
    if (plan.arms[arm].method == "none") return arm;
  return 0;
}

}  // namespace detail

inline int apple(const apple_options& options) {
  const std::filesystem::path out = options.out;
  auto plan = detail::plan_of(options);
  std::vector<std::size_t> far, faint;
  for (const int distance : options.distances)
    far.push_back(
        detail::place_of(plan, {distance, options.reference.signal, options.reference.cap}));
  for (const double signal : options.signals)
    faint.push_back(
        detail::place_of(plan, {options.reference.distance, signal, options.reference.cap}));
  const auto reference = detail::place_of(plan, options.reference);

  const auto runs = run_all(plan, options.jobs, "AppleRetrieval");
  std::string text;
  for (const auto& what : apple_measures)
    text += measure_table(plan, runs, what, far, distance_text) + "\n";
  for (const auto& what : apple_measures)
    text += measure_table(plan, runs, what, faint, signal_text) + "\n";
  text += "Cells: mean over " + std::to_string(plan.seeds.size()) +
          " seeds [95 % bootstrap interval], median. At " + distance_text(options.reference) +
          ", " + signal_text(options.reference) +
          ", and the movement of θ along (c, 1), which changes phase 2 (felt), and along (1, −c), "
          "which does not (free):\n\n" +
          world_table(plan, runs, reference, detail::baseline(plan)) + "\n";
  const auto curves = all_curves(plan, runs, options.jobs);
  write_file(out / "table.md", text);
  write_file(out / "runs.csv", runs_csv(plan, runs));
  write_file(out / "curves.csv", curves_csv(plan, curves));
  write_json(out / "apple.json", summary_json(plan, runs));
  const auto title = [](const std::string& held) {
    return "AppleRetrieval, " + held + ": probability of success";
  };
  draw_curves(plan, curves, far, distance_text, title(signal_text(options.reference)),
              out / "distances");
  draw_curves(plan, curves, faint, signal_text, title(distance_text(options.reference)),
              out / "signals");
  draw_plane(plan, runs, reference, out / "plane");
  draw_charges(options.reference, options.learning.mastery, out / "charges");
  std::cout << text << "in " << out.string() << "\n";
  return 0;
}

inline int tune_apple(const apple_options& options) {
  const std::filesystem::path out = options.out;
  auto grid = detail::plan_of(options);
  grid.seeds = seed_list(options.tuning_seeds, "--tuning-seeds");
  grid.arms = strength_grid(options.methods);
  detail::place_of(grid, options.reference);
  for (const auto seed : seed_list(options.seeds))
    if (std::find(grid.seeds.begin(), grid.seeds.end(), seed) != grid.seeds.end())
      throw std::runtime_error(
          "apple: seed " + std::to_string(seed) +
          " is in --seeds and in --tuning-seeds: the reported seeds must differ from the tuning "
          "seeds");
  const auto tuned = run_all(grid, options.jobs, "strengths");
  const auto chosen = choose(grid, tuned);

  auto plan = detail::plan_of(options);
  plan.worlds = grid.worlds;
  plan.arms = chosen.learns;
  for (const auto& arm : chosen.keeps)
    if (std::none_of(plan.arms.begin(), plan.arms.end(),
                     [&](const apple_arm& other) { return arm_title(other) == arm_title(arm); }))
      plan.arms.push_back(arm);
  const auto runs = run_all(plan, options.jobs, "chosen strengths");

  const auto list = [](const std::vector<apple_arm>& arms) {
    std::string text;
    for (const auto& arm : arms)
      if (arm.strength > 0) text += (text.empty() ? "" : ", ") + arm_title(arm);
    return text.empty() ? std::string("none") : text;
  };
  text_table table({"strengths, " + std::to_string(grid.seeds.size()) + " tuning seeds",
                    "phase 2, lowest", "success, end", "mean over training"});
  for (std::size_t arm = 0; arm < grid.arms.size(); ++arm) {
    std::vector<std::string> row{arm_title(grid.arms[arm])};
    for (const auto& what : apple_measures)
      row.push_back(interval_text(over_seeds(tuned, 0, arm, what.of)));
    table.add(row);
  }
  const std::string text =
      table.markdown() + "\nLargest mean over training: " + list(chosen.learns) +
      ".\nLargest mean among strengths with a lowest phase-2 success of at least 0.9: " +
      list(chosen.keeps) + ".\n\nThe chosen strengths on " + std::to_string(plan.seeds.size()) +
      " other seeds:\n\n" + world_table(plan, runs, 0, detail::baseline(plan)) + "\n";
  write_file(out / "strengths.md", text);
  write_file(out / "strengths.csv", runs_csv(grid, tuned));
  write_file(out / "chosen.csv", runs_csv(plan, runs));
  auto file = summary_json(grid, tuned);
  for (const auto& [rule, arms] :
       {std::pair{"learns", chosen.learns}, std::pair{"keeps", chosen.keeps}})
    for (const auto& arm : arms) file["chosen"][rule][arm.method] = arm.strength;
  write_json(out / "strengths.json", file);
  draw_strengths(grid, tuned, out / "strengths");
  std::cout << text << "in " << out.string() << "\n";
  return 0;
}

inline void add_apple(CLI::App& app, std::function<int()>& chosen) {
  auto options = std::make_shared<apple_options>();
  auto* command = app.add_subcommand(
      "apple",
      "AppleRetrieval: fine-tunes a policy that can walk home, with and without retention");
  command->add_option("--out", options->out, "Folder for tables, CSV, JSON and pictures")
      ->capture_default_str();
  std::vector<std::string> names;
  for (const auto& method : apple_methods) {
    names.push_back(method.name);
    options->strengths[method.name] = method.strength;
  }
  command
      ->add_option(
          "--methods", options->methods,
          "scratch, none, l2, ewc (diagonal Fisher), kfac (full Fisher), bc; separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  for (const auto& method : apple_methods)
    if (method.strength > 0)
      command
          ->add_option(std::string("--") + method.name + "-strength",
                       options->strengths[method.name], std::string("Strength of ") + method.name)
          ->check(non_negative_number)
          ->capture_default_str();
  command->add_option("--seeds", options->seeds, "Seeds and ranges: 1-20 or 1,2,7")
      ->delimiter(',')
      ->capture_default_str();
  command
      ->add_option("--distances", options->distances,
                   "M, distances to the apple in steps, with the signal of --signal")
      ->delimiter(',')
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      ->add_option("--signals", options->signals,
                   "c, sizes of the observation, with the distance of --distance")
      ->delimiter(',')
      ->check(CLI::Range(0.001, 1000.0))
      ->capture_default_str();
  command
      ->add_option("--distance", options->reference.distance,
                   "Distance for --signals, --tune and the last table")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      ->add_option("--signal", options->reference.signal,
                   "Signal for --distances, --tune and the last table")
      ->check(CLI::Range(0.001, 1000.0))
      ->capture_default_str();
  command->add_option("--cap", options->reference.cap, "Maximum number of steps in an episode")
      ->check(CLI::Range(2, 10'000))
      ->capture_default_str();
  command->add_option("--updates", options->updates, "Number of updates in fine-tuning")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  command->add_option("--every", options->every, "Updates between two measurements")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--episodes", options->learning.episodes, "Episodes per update")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_option("--rate", options->learning.rate, "Learning rate")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--discount", options->learning.discount, "Discount factor of the return")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option("--mastery", options->learning.mastery,
                   "Pre-training ends when the policy goes left in phase 2 with this probability")
      ->check(CLI::Range(0.5, 0.9999))
      ->capture_default_str();
  command->add_option("--jobs", options->jobs, "Number of threads; the results do not depend on it")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_flag("--tune", options->tune,
                    "Search for strengths instead: 17 strengths per method on --tuning-seeds, "
                    "then the chosen strengths on --seeds");
  command->add_option("--tuning-seeds", options->tuning_seeds, "Seeds of --tune")
      ->delimiter(',')
      ->capture_default_str();
  command->callback([&chosen, options] {
    chosen = [options] { return options->tune ? tune_apple(*options) : apple(*options); };
  });
}

}  // namespace toy
