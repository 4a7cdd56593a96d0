// SPDX-License-Identifier: MIT
// `robotic_sequence pretrain`: a policy that unplugs and pushes around the wall, and knows nothing
// of the stages before.
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

/// Transitions of the last half of practice, drawn without replacement, in no order.
inline retain::transitions practised(const retain::episodic_memory& buffer, std::int64_t count,
                                     std::uint64_t seed) {
  auto dice = at::detail::createCPUGenerator(seed);
  const auto from = buffer.size() / 2;
  return buffer.gather(
      at::randperm(buffer.size() - from, dice).narrow(0, 0, std::min(count, buffer.size() - from)) +
      from);
}

}  // namespace detail

/// Trains until a policy is good enough, with another seed for each attempt; the first that is
/// becomes the teacher.
inline int pretrain(const pretrain_command& command) {
  const std::filesystem::path out = command.out;
  if (std::filesystem::exists(out / "teacher.pt") && !command.overwrite)
    throw std::runtime_error(out.string() + " holds a teacher already: --overwrite replaces it");
  for (int attempt = 0; attempt < command.attempts; ++attempt) {
    training_settings settings;
    settings.seed = command.seed + 1'000'000u * static_cast<std::uint64_t>(attempt);
    settings.steps = command.steps;
    settings.random_steps = 2'000;
    // nothing of its practice is dropped
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
      std::fprintf(
          stderr,
          "stopped at step %lld and saved; the same command with --resume-if-possible goes on\n",
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
         detail::practised(learning.buffer(), command.memory, settings.seed))
      file.set("memory." + name, tensor);
    file.set("seed", settings.seed);
    file.write((out / "teacher.pt").string());
    write_json(out / "teacher.json", {{"seed", settings.seed},
                                      {"steps", settings.steps},
                                      {"attempt", attempt + 1},
                                      {"success", success}});
    std::filesystem::remove(place.checkpoint());  // the teacher holds what is needed of it
    std::cout << "in " << (out / "teacher.pt").string() << "\n";
    return 0;
  }
  throw std::runtime_error(
      "no attempt solved both stages in a share of " + decimals(command.accept, 2) +
      " of its episodes: give more --attempts or --steps, or a lower --accept");
}

inline void add_pretrain(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<pretrain_command>();
  auto* command =
      app.add_subcommand("pretrain", "Trains a policy on the last two stages, and keeps "
                                     "transitions that it lived through: the teacher");
  command->add_option("--out", o->out, "Folder for teacher.pt and the log of each attempt")
      ->capture_default_str();
  command->add_option("--seed", o->seed, "Of weights, world and batches")
      ->check(non_negative_number)
      ->capture_default_str();
  command->add_option("--steps", o->steps, "Decisions, and updates")
      ->check(positive_number)
      ->capture_default_str();
  command
      ->add_option("--accept", o->accept, "Least success in each of the two, over --final-episodes")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--attempts", o->attempts, "How often to begin anew with another seed")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--memory", o->memory, "Transitions kept")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--width", o->width, "Of the two hidden layers")
      ->check(positive_number)
      ->capture_default_str();
  command->add_flag(
      "--one-hot", o->one_hot,
      "The networks see which stage it is; without it each kind of stage has a head of its own");
  command->add_option("--final-episodes", o->final_episodes, "Episodes that decide it")
      ->check(positive_number)
      ->capture_default_str();
  command->add_flag("--resume-if-possible", o->resume_if_possible,
                    "Go on where an earlier start stopped");
  command->add_flag("--overwrite", o->overwrite, "Replace what is in --out");
  command->callback([&chosen, o] { chosen = [o] { return pretrain(*o); }; });
}

}  // namespace robotic_sequence
