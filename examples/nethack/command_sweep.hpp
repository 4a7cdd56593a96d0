// SPDX-License-Identifier: MIT
// `nethack sweep` and `nethack report`: many runs, and a report over them.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "../common/jobs.hpp"
#include "../common/option_checks.hpp"
#include "../common/seeds.hpp"
#include "../common/sweep.hpp"
#include "finetune_command.hpp"
#include "pipeline.hpp"
#include "report.hpp"

namespace nethack {

struct sweep_options {
  std::string out = "runs/sweep", clone, demonstrations, held_out, saves;
  std::vector<std::string> recipes{"quick", "careful"};
  std::vector<std::string> methods{"scratch", "none", "l2", "ewc", "bc", "ks", "bc+ks"};
  std::vector<std::string> seeds{"1-10"};
  std::vector<int> turns{2000};
  long steps = 400'000;
  int games = 100, clone_games = 400, saved_games = 40, jobs = 2;
  long monitor_states = 3000;
  unsigned long seed = 1;
  std::vector<std::string> extra;
  bool dry_run = false;
};

namespace detail {

/// The settings that all runs of a folder share. Methods, recipes and seeds may differ.
inline nlohmann::json common_options(const sweep_options& options) {
  return {{"steps", options.steps},
          {"games", options.games},
          {"saved_games", options.saved_games},
          {"monitor_states", options.monitor_states},
          {"clone", options.clone},
          {"demonstrations", options.demonstrations},
          {"held_out", options.held_out},
          {"saves", options.saves},
          {"seed", options.seed},
          {"extra", options.extra}};
}

/// Uses an existing file instead of running the step that makes it.
inline void adopt(const std::string& source, const std::filesystem::path& place) {
  if (source.empty() || std::filesystem::exists(place)) return;
  if (!std::filesystem::exists(source)) throw std::runtime_error("no file " + source);
  std::filesystem::create_directories(place.parent_path());
  std::filesystem::create_symlink(std::filesystem::absolute(source), place);
}

}  // namespace detail

inline int sweep(const sweep_options& options) {
  experiment setup;
  setup.folder = options.out;
  setup.seed = options.seed;
  setup.games = options.games;
  setup.saved_games = options.saved_games;
  setup.steps = options.steps;
  setup.monitor_states = options.monitor_states;
  const auto seeds = seed_list(options.seeds);

  std::vector<job> jobs{record_job(setup), held_out_job(setup), pretrain_job(setup)};
  if (setup.saved_games > 0) jobs.push_back(save_states_job(setup));
  auto reference = setup;
  reference.games = options.clone_games;
  for (const auto* name : {"clone", "player", "random"})
    jobs.push_back(reference_job(reference, name));
  // Seed by seed, so that an interrupted sweep has all methods, for fewer seeds.
  for (const auto seed : seeds)
    for (const int turns : options.turns)
      for (const auto& recipe : options.recipes)
        for (const auto& method : options.methods) {
          const finetune_plan plan{method, recipe, seed, turns};
          auto more = options.extra;
          more.insert(more.begin(), "--discard-checkpoint");  // hundreds of them would fill a disk
          jobs.push_back(finetune_job(setup, plan, plan.name(), more));
        }
  check_extra_options<finetune_command>(
      options.extra, declare_finetune,
      {"--policy", "--demonstrations", "--held-out", "--recipe", "--retain", "--from-scratch",
       "--seed", "--steps", "--turns", "--out", "--name", "--saves", "--evaluation-games",
       "--monitor-states"});
  if (options.dry_run) return list_jobs(jobs);

  check_same_sweep(setup.folder, detail::common_options(options));
  detail::adopt(options.demonstrations, setup.demonstrations());
  detail::adopt(options.held_out, setup.held_out());
  detail::adopt(options.clone, setup.clone());
  detail::adopt(options.saves, setup.saves());
  const auto result = job_runner(jobs, static_cast<std::size_t>(options.jobs), true).run();
  const auto again = "the same command";
  if (!result.ok()) return explain_stop(result, setup, again);
  std::cout << write_report(read_evaluations({setup.folder}), setup.folder / "report") << "in "
            << (setup.folder / "report").string() << "\n";
  return 0;
}

inline void add_sweep(CLI::App& app, std::function<int()>& chosen) {
  auto options = std::make_shared<sweep_options>();
  auto* command = app.add_subcommand(
      "sweep", "Fine-tunes, evaluates and compares many runs; run it again to continue a sweep");
  command
      ->add_option("--out", options->out,
                   "Folder of the sweep; finished runs in this folder are kept")
      ->capture_default_str();
  command
      ->add_option("--methods", options->methods,
                   "scratch, none, l2, ewc, bc, ks, bc+ks; separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember({"none", "l2", "ewc", "bc", "ks", "bc+ks", "scratch"}))
      ->capture_default_str();
  command
      ->add_option("--recipes", options->recipes,
                   "quick, careful, paper: see `nethack finetune --help`")
      ->delimiter(',')
      ->check(CLI::IsMember({"quick", "careful", "paper"}))
      ->capture_default_str();
  command->add_option("--seeds", options->seeds, "Seeds and ranges: 1-10 or 1,2,7")
      ->delimiter(',')
      ->capture_default_str();
  command
      ->add_option("--turns", options->turns, "Caps of the training games, in game turns: 2000,300")
      ->delimiter(',')
      ->check(CLI::Range(50, 1000000))
      ->capture_default_str();
  command->add_option("--steps", options->steps, "Training steps per run")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--games", options->games, "New games in the evaluation of each run")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--clone-games", options->clone_games,
                   "New games in the evaluation of the clone, the player and the random policy")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--saved-games", options->saved_games,
                   "Saved games at depth 3 and at depth 4 each; 0: none")
      ->check(non_negative_number)
      ->capture_default_str();
  command
      ->add_option("--clone", options->clone,
                   "An existing clone (with --demonstrations and --held-out); default: train one")
      ->check(CLI::ExistingFile);
  command
      ->add_option("--demonstrations", options->demonstrations,
                   "The training data of --clone; default: record them")
      ->check(CLI::ExistingFile);
  command
      ->add_option("--held-out", options->held_out,
                   "Demonstrations that the clone was not trained on; default: record them")
      ->check(CLI::ExistingFile);
  command
      ->add_option("--saves", options->saves,
                   "An existing folder of `nethack save-states`; default: make one")
      ->check(CLI::ExistingDirectory);
  command
      ->add_option("--monitor-states", options->monitor_states,
                   "Held-out states in each of CLOSE and FAR")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of the recording, the clone and the saves")
      ->capture_default_str();
  command->add_option("--jobs", options->jobs, "Number of parallel runs, one core each")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option(
      "--finetune", options->extra,
      "More options for every run, one option per --finetune: --finetune=--learning-rate=1e-4");
  command->add_flag("--dry-run", options->dry_run, "Only list the commands");
  command->callback([&chosen, options] { chosen = [options] { return sweep(*options); }; });
}

inline void add_report(CLI::App& app, std::function<int()>& chosen) {
  struct report_options {
    std::vector<std::string> folders;
    std::string out;
    bool games = false;
  };
  auto options = std::make_shared<report_options>();
  auto* command =
      app.add_subcommand("report", "Writes tables, CSV and pictures from folders of finished runs");
  command->add_option("folders", options->folders, "Folders of sweeps, demos or single runs")
      ->required();
  command->add_option("--out", options->out,
                      "Folder for the report; default: report/ in the first folder");
  command->add_flag("--games", options->games,
                    "One row per run with the interval over its games, instead of over seeds");
  command->callback([&chosen, options] {
    chosen = [options] {
      const auto runs = read_evaluations({options->folders.begin(), options->folders.end()});
      const auto out = options->out.empty()
                           ? std::filesystem::path(options->folders.front()) / "report"
                           : std::filesystem::path(options->out);
      const auto text = write_report(runs, out);
      std::cout << (options->games ? games_report(runs) : text) << "in " << out.string() << "\n";
      return 0;
    };
  });
}

}  // namespace nethack
