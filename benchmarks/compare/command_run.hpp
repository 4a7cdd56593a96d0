// SPDX-License-Identifier: MIT
// `retain-compare run`, `tune` and `list`.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdio>
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

#include "../../examples/common/table.hpp"
#include "read_experiment.hpp"
#include "runner.hpp"
#include "tuning.hpp"

namespace compare {

struct run_command {
  std::string file, out, shard;
  std::vector<std::string> programs, seeds;
  int jobs = 1, grace = 60, attempts = 3;
  bool dry_run = false, retry_failed = false;
};

namespace detail {

inline std::filesystem::path out_folder(const run_command& command, const experiment_plan& plan) {
  return std::filesystem::absolute(command.out.empty() ? std::filesystem::path("runs") / plan.name
                                                       : std::filesystem::path(command.out))
      .lexically_normal();
}

inline program_places places_of(const run_command& command) {
  program_places places;
  places.folders.assign(command.programs.begin(), command.programs.end());
  // the examples of the build of which this program is a part
  places.folders.push_back(
      (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "../../examples")
          .lexically_normal());
  places.beside = std::filesystem::absolute(command.file).parent_path();
  return places;
}

/// "3/8" → 3, 8.
inline std::pair<std::size_t, std::size_t> shard_numbers(const std::string& text) {
  const auto slash = text.find('/');
  const auto number = [&](std::size_t begin, std::size_t end) {
    std::size_t value = 0;
    const auto [at, error] = std::from_chars(text.data() + begin, text.data() + end, value);
    return error == std::errc() && at == text.data() + end ? value : 0;
  };
  const auto index = slash == std::string::npos ? 0 : number(0, slash),
             count = slash == std::string::npos ? 0 : number(slash + 1, text.size());
  if (index < 1 || count < index)
    throw std::runtime_error("--shard " + text +
                             ": give INDEX/COUNT with 1 ≤ INDEX ≤ COUNT, for "
                             "example 3/8");
  return {index, count};
}

/// The seeds of the comparison that --seeds selects.
inline std::vector<std::int64_t> seeds_to_run(const run_command& command,
                                              const experiment_plan& plan) {
  if (command.seeds.empty()) return plan.seeds;
  std::vector<std::int64_t> wanted;
  for (const auto seed : seed_list(command.seeds)) {
    const auto number = static_cast<std::int64_t>(seed);
    if (std::find(plan.seeds.begin(), plan.seeds.end(), number) == plan.seeds.end())
      throw std::runtime_error("--seeds: " + std::to_string(number) + " is not a seed of " +
                               plan.file.string() + ", which are chosen before the first run");
    wanted.push_back(number);
  }
  return wanted;
}

inline int list_units(const std::vector<unit>& units) {
  for (const auto& each : units) {
    const auto record = read_record(each.folder);
    const char* status = record.status == run_status::untouched ? "to do" : name_of(record.status);
    std::printf("%-9s %s:", status, each.name.c_str());
    for (const auto& word : each.command) std::printf(" %s", word.c_str());
    std::printf("\n");
  }
  return 0;
}

inline int run_units(std::vector<unit> units, const run_command& command,
                     const experiment_plan& plan, const std::filesystem::path& out) {
  if (!command.shard.empty()) {
    const auto [index, count] = shard_numbers(command.shard);
    units = shard_of(units, index, count);
  }
  if (command.dry_run) return list_units(units);
  std::filesystem::create_directories(out);
  // A report reads the order and the labels. Another runner that has the lock writes the same.
  if (folder_lock lock; lock.take(out)) {
    remove_half_files(out);
    const auto copy = out / "experiment.json";
    if (!std::filesystem::exists(copy) || read_ordered(copy) != plan.source)
      write_ordered(copy, plan.source);
  }
  live_view view;
  view.say(plan.name + ": " + std::to_string(units.size()) + " processes, " +
           std::to_string(command.jobs) + " at a time, in " + out.string());
  return runner(std::move(units),
                {static_cast<std::size_t>(command.jobs), command.grace, command.attempts,
                 command.retry_failed},
                view)
      .run();
}

/// Shows the candidates and the choice.
inline std::string tuning_text(const experiment_plan& plan,
                               const std::vector<tuned_method>& tuned) {
  text_table lines({"method", "task", "candidate", "mean", "each seed", "chosen"});
  for (const auto& each : tuned)
    for (const auto& candidate : each.candidates) {
      std::string values;
      for (const auto value : candidate.values)
        values += (values.empty() ? "" : ", ") + decimals(value, 3);
      lines.add({each.method, each.task.empty() ? "all" : each.task,
                 settings_text(candidate.settings), decimals(candidate.mean, 3), values,
                 candidate.chosen ? "yes" : ""});
    }
  return "Chosen by " + plan.tuning->measure + ", " +
         (plan.tuning->higher_is_better ? "highest" : "lowest") + " mean:\n\n" + lines.markdown();
}

inline CLI::App* declare_run(CLI::App& app, const std::string& name, const std::string& what,
                             const std::shared_ptr<run_command>& o) {
  auto* command = app.add_subcommand(name, what);
  command->add_option("file", o->file, "The experiment file")->required();
  command->add_option("--out", o->out, "Folder of the experiment; the default is runs/NAME");
  command->add_option("--jobs", o->jobs, "Number of parallel runs, one core each")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--shard", o->shard,
                      "INDEX/COUNT: only this part, for job arrays; the folders merge by copying");
  command->add_option("--programs", o->programs, "Folders in which programs are looked for first");
  command
      ->add_option("--grace", o->grace, "Seconds that a run has to save itself when it is stopped")
      ->check(CLI::Range(0, 86'400))
      ->capture_default_str();
  command
      ->add_option("--attempts", o->attempts,
                   "Starts of a run that is killed from outside, in one call")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command->add_flag("--retry-failed", o->retry_failed, "Start failed runs again");
  command->add_flag("--dry-run", o->dry_run, "Only list the commands");
  return command;
}

}  // namespace detail

inline void add_run(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<run_command>();
  auto* command = detail::declare_run(
      app, "run",
      "Runs every method on every task with every seed. Run it again to continue.\n"
      "Exit codes: 0 all finished, 1 an error, 2 a wrong file or option, 3 some runs failed,\n"
      "128 + N stopped by signal N",
      o);
  command->add_option("--seeds", o->seeds, "Only these seeds of the file: 1-5 or 1,2")
      ->delimiter(',');
  command->callback([&chosen, o] {
    chosen = [o] {
      const auto plan = read_experiment(o->file);
      const auto out = detail::out_folder(*o, plan);
      const auto tuned = choose(plan, out);
      planner units(plan, out, detail::places_of(*o));
      return detail::run_units(units.comparison(detail::seeds_to_run(*o, plan),
                                                [&](const task& where, const method& how) {
                                                  return chosen_settings(tuned, where, how);
                                                }),
                               *o, plan, out);
    };
  });
}

inline void add_tune(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<run_command>();
  auto* command = detail::declare_run(
      app, "tune",
      "Runs every candidate of every tuned method with the seeds of the tuning, and shows the "
      "choice, which `run` uses",
      o);
  command->callback([&chosen, o] {
    chosen = [o] {
      const auto plan = read_experiment(o->file);
      if (!plan.tuning) {
        std::printf("%s: no setting has candidates: there is nothing to tune\n", o->file.c_str());
        return 0;
      }
      const auto out = detail::out_folder(*o, plan);
      const int code =
          detail::run_units(planner(plan, out, detail::places_of(*o)).tuning(), *o, plan, out);
      if (code == 0 && !o->dry_run)
        std::printf("\n%s", detail::tuning_text(plan, choose(plan, out)).c_str());
      return code;
    };
  });
}

inline void add_list(CLI::App& app, std::function<int()>& chosen) {
  auto folders = std::make_shared<std::vector<std::string>>(1, "runs");
  auto* command =
      app.add_subcommand("list", "Lists the experiments in folders, and their progress");
  command->add_option("folders", *folders, "Folders")->capture_default_str();
  command->callback([&chosen, folders] {
    chosen = [folders] {
      std::map<std::vector<std::string>, std::map<run_status, int>> counts;
      for (const auto& folder : *folders) {
        if (!std::filesystem::is_directory(folder))
          throw std::runtime_error("there is no folder " + folder);
        for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
          if (entry.path().filename() != record_name) continue;
          const auto record = read_record(entry.path().parent_path());
          const auto& id = record.identity;
          auto status = record.status;
          if (status == run_status::running) {  // or was, until it was killed
            folder_lock lock;
            if (lock.take(entry.path().parent_path())) status = run_status::stopped;
          }
          ++counts[{id.value("experiment", ""), id.value("kind", ""), id.value("task", ""),
                    id.value("method", id.value("teacher", ""))}][status];
        }
      }
      text_table lines(
          {"experiment", "kind", "task", "method", "finished", "running", "stopped", "failed"});
      for (const auto& [names, of] : counts) {
        const auto count = [&of = of](run_status status) {
          const auto found = of.find(status);
          return std::to_string(found == of.end() ? 0 : found->second);
        };
        lines.add({names[0], names[1], names[2], names[3], count(run_status::finished),
                   count(run_status::running), count(run_status::stopped),
                   count(run_status::failed)});
      }
      std::cout << lines.markdown();
      return 0;
    };
  });
}

}  // namespace compare
