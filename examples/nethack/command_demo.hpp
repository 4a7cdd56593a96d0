// SPDX-License-Identifier: MIT
// `nethack demo`: all steps of an experiment in ten minutes.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "../common/jobs.hpp"
#include "../common/progress.hpp"
#include "../common/sweep.hpp"
#include "pipeline.hpp"
#include "report.hpp"

namespace nethack {

struct demo_options {
  double minutes = 10;
  std::string out = "runs/demo";
  unsigned long seed = 1;
  std::vector<std::string> methods{"none", "ewc", "bc", "ks"};
  int jobs = 2;
};

namespace detail {

/// The sizes of the experiment, scaled by the time. They fill ten minutes on two cores.
inline experiment demo_sizes(const demo_options& options) {
  const double scale = options.minutes / 10;
  const auto scaled = [&](double at_ten_minutes, double least) {
    return std::max(least, at_ten_minutes * scale);
  };
  experiment setup;
  setup.folder = options.out;
  setup.seed = options.seed;
  setup.record_steps = std::lround(scaled(1e6, 20'000));
  setup.held_out_steps = std::lround(scaled(60'000, 6'000));
  setup.pretrain_minutes = scaled(1.2, 0.03);
  setup.games = static_cast<int>(scaled(160, 8));
  setup.steps = std::lround(scaled(300'000 * std::min(2, options.jobs), 8'192));
  setup.monitor_states = std::lround(scaled(3000, 300));
  return setup;
}

inline std::string demo_command(const demo_options& options) {
  std::string methods;
  for (const auto& method : options.methods) methods += (methods.empty() ? "" : ",") + method;
  std::ostringstream command;
  command << "nethack demo --out " << options.out << " --minutes " << options.minutes << " --seed "
          << options.seed << " --jobs " << options.jobs << " --methods " << methods;
  return command.str();
}

}  // namespace detail

inline int demo(const demo_options& options) {
  using clock = std::chrono::steady_clock;
  const auto setup = detail::demo_sizes(options);
  check_same_sweep(setup.folder,
                   {{"minutes", options.minutes}, {"seed", options.seed}, {"steps", setup.steps}},
                   "a demo");
  const auto begin = clock::now();
  const auto spent = [&] { return std::chrono::duration<double>(clock::now() - begin).count(); };
  const double deadline = 60 * options.minutes;

  std::vector<job> jobs{record_job(setup), held_out_job(setup), reference_job(setup, "random"),
                        reference_job(setup, "player"), pretrain_job(setup)};
  // The time limit of a run is set when it starts, from the time that is left.
  std::vector<std::string> to_run;
  for (const auto& method : options.methods)
    if (!std::filesystem::exists(setup.folder / "runs" / method / "evaluation.json"))
      to_run.push_back(method);
  auto started = std::make_shared<std::size_t>(0);
  for (const auto& method : options.methods) {
    auto run =
        finetune_job(setup, {.method = method, .recipe = "quick", .seed = options.seed}, method);
    run.make_command = [=, command = run.command, slots = static_cast<std::size_t>(options.jobs),
                        count = to_run.size()] {
      const std::size_t waves = (count - *started + slots - 1) / slots;
      ++*started;
      const double evaluation = 0.06 * deadline;  // for each wave, and for the clone at the end
      const double each =
          (deadline - spent() - evaluation) / static_cast<double>(std::max<std::size_t>(1, waves)) -
          evaluation;
      auto timed = command;
      timed.push_back("--max-minutes");
      timed.push_back(decimals(std::max(each, 0.02 * deadline) / 60, 3));
      return timed;
    };
    jobs.push_back(std::move(run));
  }
  jobs.push_back(reference_job(setup, "clone"));

  std::fprintf(
      stderr,
      "Fine-tuning a cloned policy on the real NetHack: about %s minutes, %d at a time, into %s\n"
      "  record    a scripted player plays, and its keys are recorded as demonstrations\n"
      "  pretrain  a small network learns to imitate the player: the clone\n"
      "  %s: reinforcement learning from that clone, with and without retention\n",
      decimals(options.minutes, options.minutes < 1 ? 1 : 0).c_str(), options.jobs,
      options.out.c_str(),
      [&] {
        std::string names;
        for (const auto& method : options.methods) names += (names.empty() ? "" : ", ") + method;
        return names;
      }()
          .c_str());
  const auto result = job_runner(jobs, static_cast<std::size_t>(options.jobs)).run();
  if (!result.ok()) return explain_stop(result, setup, detail::demo_command(options));

  const auto runs = read_evaluations({setup.folder});
  write_report(runs, setup.folder / "report");
  const auto text = games_report(runs);
  write_file(setup.folder / "table.md", text);
  write_file(setup.folder / "table.csv", runs_csv(runs));
  const auto groups = group_runs(runs);
  if (!groups.empty())
    draw_curves(groups.front(), find_reference(runs, "clone"), setup.folder / "curves");
  std::string cut_short;  // methods that ran out of time on a slow machine
  for (const auto& run : runs)
    if (!run.method.empty() && run.steps < setup.steps)
      cut_short += (cut_short.empty() ? "" : ", ") + run.method;
  std::cout << "\nScores of " << setup.games << " new games each, " << setup.turns
            << " turns at most, the same games for every policy. KL and agreement with the clone\n"
               "are on held-out demonstrations: CLOSE is dungeon level 1, FAR is level 3 "
               "and deeper.\n\n"
            << text << "\n";
  if (!cut_short.empty())
    std::cout << "The time limit was reached before " << setup.steps << " steps of " << cut_short
              << ": compare at equal steps in the picture, or give more --minutes.\n";
  std::cout
      << "took      " << clock_text(spent()) << "\n"
      << "pictures  " << (setup.folder / "curves.png").string() << ", "
      << (setup.folder / "curves.svg").string() << "\n"
      << "numbers   " << (setup.folder / "table.csv").string() << ", "
      << (setup.folder / "report" / "report.json").string() << ", "
      << (setup.folder / "runs").string() << "/*/metrics.csv\n"
      << "watch     ./run nethack play --policy "
      << (setup.folder / "runs" / options.methods.back() / "policy.pt").string() << "\n"
      << "next      ./run nethack sweep --out runs/sweep --seeds 1-10   (hours: many seeds, "
         "and play from saved games)\n"
      << "One seed gives no result about the score: games are heavy-tailed and runs differ. KL "
         "and agreement vary less.\n";
  return 0;
}

inline void add_demo(CLI::App& app, std::function<int()>& chosen) {
  auto options = std::make_shared<demo_options>();
  auto* command = app.add_subcommand(
      "demo",
      "All steps in ten minutes: record, clone, fine-tune with and without retention, compare");
  command
      ->add_option("--minutes", options->minutes,
                   "Time for all steps on two cores; it determines the training steps and games")
      ->check(CLI::Range(0.05, 600.0))
      ->capture_default_str();
  command
      ->add_option("--out", options->out,
                   "Folder for all files; a repeated command keeps finished steps")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of the recording, the clone and the runs")
      ->capture_default_str();
  command
      ->add_option("--methods", options->methods,
                   "Methods to compare: none, l2, ewc, bc, ks, bc+ks, scratch; separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember({"none", "l2", "ewc", "bc", "ks", "bc+ks", "scratch"}))
      ->capture_default_str();
  command->add_option("--jobs", options->jobs, "Number of parallel processes, one core each")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->callback([&chosen, options] { chosen = [options] { return demo(*options); }; });
}

}  // namespace nethack
