// SPDX-License-Identifier: MIT
// `montezuma finetune`: trains on the whole task from room 1, from a policy that was trained from
// room 7.
#pragma once

#include <torch/version.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <retain/monitor.hpp>

#include "../common/files.hpp"
#include "../common/resume.hpp"
#include "backend.hpp"
#include "finetune_options.hpp"
#include "run.hpp"
#include "teacher.hpp"
#include "trainer.hpp"

namespace montezuma {
namespace detail {

/// Every option with its final value, and the versions of the program.
inline nlohmann::json config_of(const finetune_command& command, const std::string& preset_name,
                                const training_settings& settings, const retention_settings& kept,
                                const nlohmann::json& where, std::uint64_t teacher_seed) {
  return {{"arguments", command.arguments},
          {"working_directory", std::filesystem::current_path().string()},
          {"method", command.method()},
          {"preset", preset_name},
          {"teacher", command.teacher},
          {"teacher_seed", teacher_seed},
          {"world", where},
          {"settings", to_json(settings)},
          {"retention", to_json(kept)},
          {"versions",
           {{"retain", RETAIN_VERSION}, {"libtorch", TORCH_VERSION}, {"compiler", __VERSION__}}}};
}

/// Success and return from the teacher's room (FAR), return from room 1, the return from the places
/// where episodes of the teacher's training began if that were several, and the KL of the policy
/// from its teacher on the memory.
template <training_world World>
class examiner {
 public:
  using policy_type = typename World::policy_type;

  examiner(const teacher_in<World>& teacher, bool compare)
      : where_(teacher.where), far_(teacher.room) {
    if (!compare) return;
    watch_.emplace(teacher_of<policy_type>{teacher.network});
    watch_->add("far", teacher.memory);
  }

  static std::vector<std::string> columns() {
    std::vector<std::string> all{"far/success",  "far/return",  "far/rooms", "start/success",
                                 "start/return", "start/rooms", "far/kl",    "far/agreement"};
    if constexpr (requires(const World& where) { where.of_training(); })
      all.push_back("places/return");
    return all;
  }

  std::map<std::string, double> measure(policy_type& network, int games, std::uint64_t seed,
                                        std::int64_t steps) {
    const auto far = summary_of(play_episodes(network, where_, far_, games, seed));
    const auto start = summary_of(play_episodes(network, where_, 1, games, seed + 1));
    std::map<std::string, double> row{
        {"far/success", far.success},   {"far/return", far.reward},
        {"far/rooms", far.rooms},       {"start/success", start.success},
        {"start/return", start.reward}, {"start/rooms", start.rooms}};
    if constexpr (requires { where_.of_training(); })
      if (const auto there = where_.of_training())
        row["places/return"] =
            summary_of(play_episodes(network, *there, far_, games, seed + 2, true)).reward;
    if (watch_) {
      watch_->report_success("far", far.success);
      const auto rows =
          watch_->measure([&](const at::Tensor& states) { return network->forward(states); },
                          static_cast<double>(steps));
      row["far/kl"] = rows.front().kl;
      row["far/agreement"] = rows.front().agreement;
    }
    return row;
  }

  /// Adapts every strength to the last measurement.
  void hold(retention_terms& keep, double kl) const {
    for (const auto& name : keep.names()) keep.adapt(name, *watch_, "far", kl);
  }

  void save_state(retain::state& out, const std::string& prefix) const {
    if (watch_) watch_->save_state(out, prefix);
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    if (watch_) watch_->load_state(in, prefix);
  }

 private:
  World where_;
  int far_;
  std::optional<retain::monitor<teacher_of<policy_type>>> watch_;
};

}  // namespace detail

/// `base`: the part of the world that belongs to this machine. The rest is from the teacher.
template <training_world World>
int finetune(const finetune_command& command, const World& base) {
  using policy_type = typename World::policy_type;
  if (command.from_scratch && command.retain != "none")
    throw std::runtime_error("--from-scratch has nothing to retain: remove --retain");
  if (!std::filesystem::exists(command.teacher))
    throw std::runtime_error("no teacher in " + command.teacher +
                             ": name one with --teacher; `montezuma pretrain` makes one");
  const run_place place{command.out, !command.resume.empty(), command.resume_if_possible,
                        command.overwrite, command.checkpoint_every};
  const bool resuming = place.decide();
  const auto teacher = teacher_in<World>::read(command.teacher, base);
  const auto& where = teacher.where;
  const std::string preset_name = command.preset.empty() ? World::finetune_preset : command.preset;
  auto settings = preset(preset_name);
  command.learning.apply(settings);
  settings.seed = command.seed;
  auto kept = command.strengths;
  kept.choose(command.retain);

  at::manual_seed(settings.seed);  // of a network from scratch
  auto network =
      command.from_scratch ? make_policy(shape_of(teacher.network)) : copy_of(teacher.network);
  auto terms = make_retention(network, teacher.memory, kept, settings.seed);
  trainer<typename World::game_type, policy_type> learner(
      network, games_of(where, settings.seed, settings.games), settings, std::move(terms), kept);
  detail::examiner<World> examiner(teacher, !command.from_scratch);
  const auto config =
      detail::config_of(command, preset_name, settings, kept, where.to_json(), teacher.seed);
  if (resuming) {
    // The same file name may have another teacher since the run started.
    const auto before = read_json(place.folder / "config.json");
    check_same_settings(place.folder, "a run", before.at("world"), config.at("world"),
                        {"saved_states"});
    if (before.contains("teacher_seed"))
      check_same_settings(place.folder, "a run", before, {{"teacher_seed", teacher.seed}});
    const auto in = retain::state::read(place.checkpoint().string());
    learner.load_state(in, "trainer.");
    examiner.load_state(in, "monitor.");
    place.check_steps(learner.steps(), settings.steps, settings.games * settings.horizon);
  }
  // throws if no episode can start there, before any file is replaced
  where(settings.seed).reset(teacher.room);
  place.clear(resuming);
  write_json(place.folder / "config.json", config);

  run_watch watch;
  watch.columns = detail::examiner<World>::columns();
  for (auto& column : training_columns(learner.retention().names()))
    watch.columns.push_back(std::move(column));
  double steps_per_second = 0;
  watch.measure = [&](std::int64_t steps) {
    // Equal games for every method at equal steps.
    auto row = examiner.measure(network, settings.evaluation_games,
                                settings.seed * 31 + static_cast<std::uint64_t>(steps) * 2, steps);
    if (kept.hold_kl > 0) examiner.hold(learner.retention(), kept.hold_kl);
    return row;
  };
  watch.note = [&](const std::map<std::string, double>& row) {
    if (const auto speed = row.find("charts/SPS"); speed != row.end())
      steps_per_second = speed->second;
    return "from room 1: " + decimals(row.at("start/return"), 2) + ", room " +
           std::to_string(teacher.room) + ": success " + decimals(row.at("far/success"), 2);
  };
  watch.save = [&](retain::state& out) { examiner.save_state(out, "monitor."); };
  const bool finished = run_training(learner, place, watch, command.method());
  write_policy((place.folder / "policy.pt").string(), network, where);
  if (!finished) {
    std::fprintf(
        stderr,
        "stopped at step %lld and saved; to continue: ./run montezuma finetune --resume %s\n",
        static_cast<long long>(learner.steps()), place.folder.string().c_str());
    return interrupt::exit_code;
  }

  const auto seed = settings.seed * 31 + 999'999'937u;
  const auto far =
      summary_of(play_episodes(network, where, teacher.room, command.final_games, seed));
  const auto start = summary_of(play_episodes(network, where, 1, command.final_games, seed + 1));
  const auto side = [](const summary& of) {
    return nlohmann::json{
        {"success", of.success}, {"return", of.reward}, {"rooms", of.rooms}, {"steps", of.steps}};
  };
  nlohmann::json file{{"method", command.method()},
                      {"preset", preset_name},
                      {"world", where.to_json()},
                      {"seed", settings.seed},
                      {"steps", learner.steps()},
                      {"games", command.final_games},
                      {"teacher",
                       {{"file", command.teacher},
                        {"seed", teacher.seed},
                        {"room", teacher.room},
                        {"success", teacher.success},
                        {"task", teacher.task}}},
                      {"far", side(far)},
                      {"start", side(start)}};
  // 0: the run was resumed at its last step
  if (steps_per_second > 0) file["steps_per_second"] = steps_per_second;
  write_json(place.evaluation(), file);
  if (command.discard_checkpoint) std::filesystem::remove(place.checkpoint());
  if (!command.quiet) {
    text_table lines({command.method(), "success there", "return", "rooms", "steps"});
    for (const auto& [name, of] : {std::pair{"from room " + std::to_string(teacher.room), far},
                                   std::pair{std::string("from room 1"), start}})
      lines.add({name, decimals(of.success, 2), decimals(of.reward, 2), decimals(of.rooms, 1),
                 decimals(of.steps, 0)});
    std::cout << lines.markdown() << "in " << place.folder.string() << "\n";
  }
  return 0;
}

/// `arguments`: the command line after the name of the subcommand.
inline void add_finetune(CLI::App& app, std::function<int()>& chosen,
                         const std::vector<std::string>& arguments) {
  auto options = std::make_shared<finetune_command>();
  auto* command = app.add_subcommand(
      "finetune", "Trains a teacher on the whole task, with or without retention");
  declare_finetune(command, *options);
  command->callback([&chosen, command, options, arguments] {
    chosen = [command, options, arguments] {
      options->arguments = arguments;
      if (options->resume.empty())
        note_unused_options(*command, retention_named<retention_settings>(options->retain).terms());
      if (options->resume.empty() && options->resume_if_possible &&
          std::filesystem::exists(run_place{options->out}.checkpoint()))
        check_same_run<finetune_command>(options->out, arguments, declare_finetune, may_change);
      const auto said = options->resume.empty()
                            ? *options
                            : resumed_command<finetune_command>(options->resume, arguments,
                                                                declare_finetune, may_change);
      return said.backend.is_ale() ? on_ale(said) : finetune(said, world_options{});
    };
  });
}

}  // namespace montezuma
