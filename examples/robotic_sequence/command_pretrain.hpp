// SPDX-License-Identifier: MIT
// `robotic_sequence pretrain`: trains a policy on unplug and push-wall only. It learns nothing
// about the earlier stages.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/files.hpp"
#include "../common/option_checks.hpp"
#include "../common/resume.hpp"
#include "run.hpp"
#include "teacher.hpp"

namespace robotic_sequence {

struct pretrain_command {
  std::string out = "runs/robot-teacher";
  std::uint64_t seed = 1;
  std::int64_t steps = 80'000, width = 64, memory = 10'000;
  int attempts = 3, final_episodes = 100;
  double accept = 0.9;
  bool one_hot = false, resume_if_possible = false, overwrite = false;
};

namespace detail {

/// Transitions of the second half of practice, drawn without replacement, in random order.
inline retain::transitions practiced(const retain::episodic_memory& buffer, std::int64_t count,
                                     std::uint64_t seed) {
  auto dice = at::detail::createCPUGenerator(seed);
  const auto from = buffer.size() / 2;
  return buffer.gather(
      at::randperm(buffer.size() - from, dice).narrow(0, 0, std::min(count, buffer.size() - from)) +
      from);
}

}  // namespace detail

/// Trains policies, each attempt with another seed, until one is good enough. This policy becomes
/// the teacher.
inline int pretrain(const pretrain_command& command) {
  const std::filesystem::path out = command.out;
  if (std::filesystem::exists(out / "teacher.pt") && !command.overwrite)
    throw std::runtime_error(out.string() + " contains a teacher already: --overwrite replaces it");
  for (int attempt = 0; attempt < command.attempts; ++attempt) {
    training_settings settings;
    settings.seed = command.seed + 1'000'000u * static_cast<std::uint64_t>(attempt);
    settings.steps = command.steps;
    settings.random_steps = 2'000;
    // the buffer keeps all transitions of practice
    settings.capacity = std::max(settings.capacity, command.steps);
    settings.agent.width = command.width;
    settings.agent.one_hot = command.one_hot;
    run_place place{out / ("attempt" + std::to_string(attempt + 1)), false,
                    command.resume_if_possible, command.overwrite, 20'000};
    const bool resuming = place.decide();
    sac_agent agent(settings.agent, {}, settings.seed);
    learner learning(agent, known_stages, settings, episode_kind::single_stage);
    const nlohmann::json config{{"seed", settings.seed},
                                {"steps", settings.steps},
                                {"width", command.width},
                                {"one_hot", command.one_hot}};
    if (resuming)
      check_same_settings(place.folder, "an attempt", read_json(place.folder / "config.json"),
                          config, {"steps"});
    if (resuming) learning.load_state(retain::state::read(place.checkpoint().string()), "learner.");
    place.clear(resuming);
    for (const auto* old : {"teacher.pt", "teacher.json"}) std::filesystem::remove(out / old);
    write_json(place.folder / "config.json", config);
    if (!run_training(learning, agent, known_stages, place, "pretrain", {})) {
      std::fprintf(stderr,
                   "stopped at step %lld and saved; to continue, run the same command with "
                   "--resume-if-possible\n",
                   static_cast<long long>(learning.steps()));
      return interrupt::exit_code;
    }
    double least = 1;
    nlohmann::json success;
    retain::state file;
    for (int stage = 0; stage < static_cast<int>(known_stages.size()); ++stage) {
      const auto* name = name_of(known_stages[static_cast<std::size_t>(stage)]);
      const double share =
          success_from(agent.actor(), known_stages, stage, false, command.final_episodes,
                       settings.seed * 31 + 7 + static_cast<std::uint64_t>(stage));
      least = std::min(least, share);
      success[name] = share;
      file.set(std::string("success.") + name, share);
    }
    const bool good = least >= command.accept;
    std::cout << "attempt " << attempt + 1 << ": success " << success.dump()
              << (good ? ": accepted\n" : ": not accepted\n");
    if (!good) continue;
    save_shape(file, settings.agent);
    agent.save_networks(file, "agent.");
    for (const auto& [name, tensor] :
         detail::practiced(learning.buffer(), command.memory, settings.seed))
      file.set("memory." + name, tensor);
    file.set("seed", settings.seed);
    file.write((out / "teacher.pt").string());
    write_json(out / "teacher.json", {{"seed", settings.seed},
                                      {"steps", settings.steps},
                                      {"attempt", attempt + 1},
                                      {"success", success}});
    std::filesystem::remove(place.checkpoint());  // the teacher has everything that is needed
    std::cout << "saved in " << (out / "teacher.pt").string() << "\n";
    return 0;
  }
  throw std::runtime_error(
      "no attempt solved both stages in a share of " + decimals(command.accept, 2) +
      " of its episodes: give more --attempts or --steps, or a lower --accept");
}

inline void add_pretrain(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<pretrain_command>();
  auto* command =
      app.add_subcommand("pretrain", "Trains a teacher: a policy for the last two stages, saved "
                                     "with transitions from its training");
  command->add_option("--out", o->out, "Folder for teacher.pt and the log of each attempt")
      ->capture_default_str();
  command->add_option("--seed", o->seed, "Seed of weights, world and batches")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--steps", o->steps, "Number of decisions and of updates")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--accept", o->accept,
                   "Least success in each of the two stages, over --final-episodes")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option("--attempts", o->attempts, "Maximum number of attempts, each with another seed")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--memory", o->memory, "Number of transitions that are saved")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--width", o->width, "Width of the two hidden layers")
      ->check(positive_number)
      ->capture_default_str();
  command->add_flag(
      "--one-hot", o->one_hot,
      "The stage is an input of the networks; otherwise each kind of stage has its own head");
  command->add_option("--final-episodes", o->final_episodes, "Episodes that decide on acceptance")
      ->check(positive_number)
      ->capture_default_str();
  command->add_flag("--resume-if-possible", o->resume_if_possible,
                    "Continue an interrupted run if --out has one");
  command->add_flag("--overwrite", o->overwrite, "Replace the files in --out");
  command->callback([&chosen, o] { chosen = [o] { return pretrain(*o); }; });
}

}  // namespace robotic_sequence
