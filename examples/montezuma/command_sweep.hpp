// SPDX-License-Identifier: MIT
// `montezuma sweep`: runs many seeds and methods.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/option_checks.hpp"
#include "../common/seeds.hpp"
#include "../common/sweep.hpp"
#include "../common/table.hpp"
#include "finetune_options.hpp"
#include "pyramid_choice.hpp"
#include "report.hpp"

namespace montezuma {

struct sweep_command {
  std::string out = "runs/pyramid-sweep", task = "coverage-gap";
  pyramid_choice where;
  std::vector<std::string> presets{"quick", "careful"};
  std::vector<std::string> methods{"scratch", "none", "l2", "ewc", "bc", "ks"};
  std::vector<std::string> seeds{"1-20"};
  long steps = 1'500'000, teacher_steps = 4'000'000, expert_steps = 16'000'000;
  double accept = 0.7, accept_return = 5;
  unsigned long expert_seed = 101;
  int jobs = 2;
  std::vector<std::string> extra, clone_extra;
  bool dry_run = false;

  bool of_clones() const { return task == "cloning-gap"; }
};

/// Reads the runs in the folders, and writes a report.
inline const auto report_of = [](const std::vector<std::filesystem::path>& folders,
                                 const std::filesystem::path& out) {
  return write_report(read_runs(folders), out);
};

namespace detail {

/// For each seed: a teacher, then all methods from this teacher. If the teachers are clones, one
/// expert for all of them comes first. An interrupted sweep has all methods, for fewer seeds.
inline std::vector<job> sweep_jobs(const sweep_command& command) {
  const std::filesystem::path out = command.out;
  std::vector<job> jobs;
  const auto add = [&](const std::string& name, const std::filesystem::path& product,
                       std::vector<std::string> words, std::vector<std::string> after) {
    // skip a duplicate
    if (std::any_of(jobs.begin(), jobs.end(), [&](const job& each) { return each.name == name; }))
      return;
    words.insert(words.begin(), this_program());
    jobs.push_back({.name = name,
                    .command = std::move(words),
                    .product = product,
                    .log = out / "logs" / (name + ".log"),
                    .after = std::move(after)});
  };
  const auto pretrained = [&](const std::string& name, unsigned long seed, long steps,
                              const std::vector<std::string>& accepted) {
    std::vector<std::string> words{"pretrain",
                                   "--out",
                                   (out / name).string(),
                                   "--seed",
                                   std::to_string(seed),
                                   "--steps",
                                   std::to_string(steps),
                                   "--map",
                                   command.where.game.map,
                                   "--sticky",
                                   decimals(command.where.game.sticky, 4),
                                   "--step-cap",
                                   std::to_string(command.where.game.step_cap)};
    words.insert(words.end(), accepted.begin(), accepted.end());
    words.push_back("--resume-if-possible");
    add(name, out / name / "teacher.pt", words, {});
  };
  const std::string expert = "expert";
  if (command.of_clones())
    pretrained(
        expert, command.expert_seed, command.expert_steps,
        {"--room", "1", "--accept", "0", "--accept-return", decimals(command.accept_return, 4)});
  for (const auto seed : seed_list(command.seeds)) {
    const auto teacher =
        (command.of_clones() ? "clone-seed" : "teacher-seed") + std::to_string(seed);
    if (command.of_clones()) {
      std::vector<std::string> words{"clone",
                                     "--expert",
                                     (out / expert / "teacher.pt").string(),
                                     "--out",
                                     (out / teacher).string(),
                                     "--seed",
                                     std::to_string(seed)};
      words.insert(words.end(), command.clone_extra.begin(), command.clone_extra.end());
      add(teacher, out / teacher / "teacher.pt", words, {expert});
    } else {
      pretrained(teacher, seed, command.teacher_steps, {"--accept", decimals(command.accept, 4)});
    }
    for (const auto& preset : command.presets)
      for (const auto& method : command.methods) {
        const auto name = preset + "-" + method + "-seed" + std::to_string(seed);
        std::vector<std::string> words{"finetune",
                                       "--teacher",
                                       (out / teacher / "teacher.pt").string(),
                                       "--preset",
                                       preset,
                                       "--seed",
                                       std::to_string(seed),
                                       "--steps",
                                       std::to_string(command.steps),
                                       "--out",
                                       (out / "runs" / name).string(),
                                       "--resume-if-possible",
                                       "--discard-checkpoint",
                                       "--quiet"};
        if (method == "scratch")
          words.push_back("--from-scratch");
        else
          words.insert(words.end(), {"--retain", method});
        words.insert(words.end(), command.extra.begin(), command.extra.end());
        add(name, out / "runs" / name / "evaluation.json", words, {teacher});
      }
  }
  return jobs;
}

/// The settings that all runs of a folder share. Methods, presets and seeds may differ.
inline nlohmann::json common_options(const sweep_command& command) {
  nlohmann::json common{{"world", command.where.to_json()},
                        {"task", command.task},
                        {"steps", command.steps},
                        {"extra", command.extra}};
  if (command.of_clones())
    common.update({{"expert_seed", command.expert_seed},
                   {"expert_steps", command.expert_steps},
                   {"accept_return", command.accept_return},
                   {"clone_extra", command.clone_extra}});
  else
    common.update({{"teacher_steps", command.teacher_steps}, {"accept", command.accept}});
  return common;
}

}  // namespace detail

inline int sweep(const sweep_command& command) {
  const auto jobs = detail::sweep_jobs(command);
  check_extra_options<finetune_command>(
      command.extra, declare_finetune,
      {"--teacher", "--preset", "--seed", "--steps", "--out", "--retain", "--from-scratch"});
  if (command.dry_run) return list_jobs(jobs);
  check_same_sweep(command.out, detail::common_options(command));
  return run_sweep(jobs, command.out, command.jobs, report_of);
}

inline void add_sweep(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<sweep_command>();
  auto* command = app.add_subcommand(
      "sweep", "Runs every method for many seeds, each with its own teacher; run it "
               "again to continue an interrupted sweep");
  command
      ->add_option(
          "--task", o->task,
          "coverage-gap: teachers that are trained from room 7; cloning-gap: imperfect clones "
          "of one expert on the whole task, one clone per seed")
      ->check(CLI::IsMember({"coverage-gap", "cloning-gap"}))
      ->capture_default_str();
  command->add_option("--out", o->out, "Folder of the sweep; finished runs in this folder are kept")
      ->capture_default_str();
  command
      ->add_option("--methods", o->methods,
                   "scratch, none, l2, ewc, bc, ks, bc+ks; separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember({"none", "l2", "ewc", "bc", "ks", "bc+ks", "scratch"}))
      ->capture_default_str();
  command->add_option("--presets", o->presets, "quick and careful: see `montezuma finetune --help`")
      ->delimiter(',')
      ->check(CLI::IsMember({"quick", "careful"}))
      ->capture_default_str();
  command->add_option("--seeds", o->seeds, "Seeds and ranges: 1-20 or 1,2,7")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--steps", o->steps, "Training steps per run")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--teacher-steps", o->teacher_steps, "Training steps per teacher")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--accept", o->accept, "Least success of a teacher in room 7")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option("--expert-steps", o->expert_steps, "Training steps of the expert (cloning-gap)")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--expert-seed", o->expert_seed, "Seed of the expert (cloning-gap)")
      ->capture_default_str();
  command
      ->add_option("--accept-return", o->accept_return,
                   "Least return of the expert from room 1 (cloning-gap)")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--jobs", o->jobs, "Number of parallel runs, one core each")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option(
      "--finetune", o->extra,
      "More options for every run, one option per --finetune: --finetune=--ewc-strength=30");
  command->add_option("--clone", o->clone_extra,
                      "More options for every clone: --clone=--noise=0.3");
  command->add_flag("--dry-run", o->dry_run, "Only list the commands");
  declare_world(command, o->where);
  command->callback([&chosen, o] { chosen = [o] { return sweep(*o); }; });
}

}  // namespace montezuma
