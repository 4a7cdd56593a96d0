// SPDX-License-Identifier: MIT
// `montezuma evaluate`: measures the return, and the success in every room as Wołczyk et al. 2024
// define it.
#pragma once

#include <cstdint>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/files.hpp"
#include "../common/option_checks.hpp"
#include "../common/statistics.hpp"
#include "../common/table.hpp"
#include "backend.hpp"
#include "evaluate.hpp"
#include "teacher.hpp"

namespace montezuma {

struct evaluate_command {
  std::string policy = "runs/finetune/policy.pt", out;
  std::vector<int> rooms;
  backend_options backend;
  int games = 256;
  std::uint64_t seed = 1;
};

template <training_world World>
int evaluate(const evaluate_command& command, const World& base) {
  auto [network, where] = read_policy(command.policy, base);
  text_table lines(
      {"from room", "games", "success there", "return", "95 % interval", "rooms", "steps"});
  nlohmann::json all = nlohmann::json::object();
  for (const int room : command.rooms.empty() ? where.rooms() : command.rooms) {
    const auto episodes = play_episodes(network, where, room, command.games,
                                        command.seed * 8 + static_cast<std::uint64_t>(room));
    const auto mean = summary_of(episodes);
    std::vector<double> rewards;
    for (const auto& one : episodes) rewards.push_back(one.reward);
    const auto interval = statistics::bootstrap_interval(rewards);
    lines.add({std::to_string(room), std::to_string(command.games), decimals(mean.success, 2),
               decimals(mean.reward, 2), range_text(interval.low, interval.high, 2),
               decimals(mean.rooms, 1), decimals(mean.steps, 0)});
    all[std::to_string(room)] = {
        {"games", command.games}, {"success", mean.success},
        {"return", mean.reward},  {"interval_95", {interval.low, interval.high}},
        {"rooms", mean.rooms},    {"steps", mean.steps}};
  }
  std::cout << lines.markdown();
  if (!command.out.empty())
    write_json(command.out, {{"policy", command.policy},
                             {"world", where.to_json()},
                             {"seed", command.seed},
                             {"rooms", all}});
  return 0;
}

inline void add_evaluate(CLI::App& app, std::function<int()>& chosen) {
  auto o = std::make_shared<evaluate_command>();
  auto* command = app.add_subcommand(
      "evaluate", "Plays a policy from every room: success in the room, return, rooms visited");
  command->add_option("--policy", o->policy, "policy.pt of a run, or teacher.pt")
      ->check(CLI::ExistingFile)
      ->capture_default_str();
  command
      ->add_option("--rooms", o->rooms,
                   "First rooms of the games, separated by commas; default: all rooms with a start")
      ->delimiter(',')
      ->check(CLI::Range(0, 23));
  declare_backend(command, o->backend);
  command->add_option("--games", o->games, "Games from each room")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--seed", o->seed, "Seed of games and actions")->capture_default_str();
  command->add_option("--out", o->out, "JSON file for the results");
  command->callback([&chosen, o] {
    chosen = [o] { return o->backend.is_ale() ? on_ale(*o) : evaluate(*o, world_options{}); };
  });
}

}  // namespace montezuma
