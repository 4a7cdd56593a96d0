// SPDX-License-Identifier: MIT
// `robotic_sequence sweep`: runs many seeds and methods.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/methods.hpp"
#include "../common/option_checks.hpp"
#include "../common/seeds.hpp"
#include "../common/sweep.hpp"
#include "../common/table.hpp"
#include "finetune_options.hpp"
#include "report.hpp"
#include "settings.hpp"

namespace robotic_sequence {

struct sweep_command {
  std::string out = "runs/robot-sweep";
  std::vector<std::string> methods{"scratch", "none", "l2", "ewc", "bc", "em", "bc+em"};
  std::vector<int> stages{4};
  std::vector<std::string> seeds{"1-20"};
  long steps = 80'000;
  long teacher_steps = 0;  ///< 0: the default of `pretrain`
  double accept = 0.9;
  int attempts = 3;
  int jobs = 2;
  std::vector<std::string> extra;
  bool dry_run = false;
};

/// Reads the runs in the folders, and writes a report.
inline const auto report_of = [](const std::vector<std::filesystem::path>& folders,
                                 const std::filesystem::path& out) {
  return write_report(read_runs(folders), out);
};

namespace detail {

/// The options of `finetune` for a method, named as in the tables.
inline std::vector<std::string> method_options(const std::string& method) {
  if (method == "scratch") return {"--from-scratch"};
  if (method == "ewc-cw") return {"--retain", "ewc", "--fisher", "continual-world"};
  return {"--retain", method};
}

/// For each seed: a teacher, then all methods from this teacher. An interrupted sweep has all
/// methods, for fewer seeds.
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
  for (const auto seed : seed_list(command.seeds)) {
    const auto number = std::to_string(seed), teacher = "teacher-seed" + number;
    const auto policy = out / teacher / "teacher.pt";
    std::vector<std::string> lesson{"pretrain",
                                    "--out",
                                    (out / teacher).string(),
                                    "--seed",
                                    number,
                                    "--accept",
                                    decimals(command.accept, 4),
                                    "--attempts",
                                    std::to_string(command.attempts),
                                    "--resume-if-possible"};
    if (command.teacher_steps > 0)
      lesson.insert(lesson.end(), {"--steps", std::to_string(command.teacher_steps)});
    add(teacher, policy, lesson, {});
    for (const int stages : command.stages)
      for (const auto& method : command.methods) {
        const auto name = std::to_string(stages) + "-stages-" + method + "-seed" + number;
        std::vector<std::string> words{"finetune",
                                       "--teacher",
                                       policy.string(),
                                       "--stages",
                                       std::to_string(stages),
                                       "--seed",
                                       number,
                                       "--steps",
                                       std::to_string(command.steps),
                                       "--out",
                                       (out / "runs" / name).string(),
                                       "--resume-if-possible",
                                       "--discard-checkpoint",
                                       "--quiet"};
        const auto options = method_options(method);
        words.insert(words.end(), options.begin(), options.end());
        words.insert(words.end(), command.extra.begin(), command.extra.end());
        add(name, out / "runs" / name / "evaluation.json", words, {teacher});
      }
  }
  return jobs;
}

/// The settings that all runs of a folder share. Methods, lengths of the sequence and seeds may
/// differ.
inline nlohmann::json common_options(const sweep_command& command) {
  const retention_settings usual;  // defaults of this version; another version may differ
  const training_settings learning;
  return {{"steps", command.steps},
          {"teacher_steps", command.teacher_steps},
          {"accept", command.accept},
          {"extra", command.extra},
          {"capacity", learning.capacity},
          {"value_bound", learning.agent.value_bound},
          {"alpha_floor", learning.agent.alpha_floor},
          {"known_alpha_cap", learning.agent.known_alpha_cap},
          {"strengths",
           {{"l2", usual.l2_strength},
            {"ewc", usual.ewc_strength},
            {"bc", usual.bc_strength},
            {"ks", usual.ks_strength}}}};
}

inline std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const auto& style : method_styles) names.emplace_back(style.method);
  return names;
}

}  // namespace detail

inline int sweep(const sweep_command& command) {
  const auto jobs = detail::sweep_jobs(command);
  check_extra_options<finetune_command>(command.extra, declare_finetune,
                                        {"--teacher", "--stages", "--seed", "--steps", "--out",
                                         "--retain", "--from-scratch", "--fisher"});
  if (command.dry_run) return list_jobs(jobs);
  check_same_sweep(command.out, detail::common_options(command));
  return run_sweep(jobs, command.out, command.jobs, report_of);
}

inline void add_sweep(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<sweep_command>();
  auto* command = app.add_subcommand(
      "sweep", "Runs every method for many seeds, each with its own teacher; run it "
               "again to continue an interrupted sweep");
  command->add_option("--out", o->out, "Folder of the sweep; finished runs in this folder are kept")
      ->capture_default_str();
  command
      ->add_option("--methods", o->methods,
                   "scratch, none, l2, ewc, ewc-cw (Continual World's Fisher), bc, em, bc+em, ks, "
                   "bc+ks; separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember(detail::method_names()))
      ->capture_default_str();
  command
      ->add_option("--stages", o->stages,
                   "Lengths of the sequence, separated by commas; the last two stages are known, "
                   "the others new")
      ->delimiter(',')
      ->check(CLI::Range(3, 6))
      ->capture_default_str();
  command->add_option("--seeds", o->seeds, "Seeds and ranges: 1-20 or 1,2,7")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--steps", o->steps, "Training steps per run")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--teacher-steps", o->teacher_steps,
                   "Training steps per teacher; 0: the default of `robotic_sequence pretrain`")
      ->check(non_negative_number)
      ->capture_default_str();
  command
      ->add_option("--accept", o->accept,
                   "Least success of a teacher in each of the two known stages")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option("--attempts", o->attempts,
                   "Maximum number of attempts for a teacher, each with another seed")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--jobs", o->jobs, "Number of parallel runs, one core each")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option(
      "--finetune", o->extra,
      "More options for every run, one option per --finetune: --finetune=--ewc-strength=30");
  command->add_flag("--dry-run", o->dry_run, "Only list the commands");
  command->callback([&chosen, o] { chosen = [o] { return sweep(*o); }; });
}

}  // namespace robotic_sequence
