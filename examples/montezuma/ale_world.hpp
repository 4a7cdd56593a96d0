// SPDX-License-Identifier: MIT
// The real game as the world of a command, on any machine that plays it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <retain/state.hpp>

#include "../common/saved_tensor.hpp"
#include "ale_game.hpp"
#include "pixel_policy.hpp"
#include "world.hpp"

namespace montezuma {

/// The network, the presets and the name of what an agent sees.
template <class Sight>
struct agent_of;
template <>
struct agent_of<sight_of_pixels> {
  using policy_type = pixel_policy;
  static constexpr const char *name = "pixels", *pretrain_preset = "paper",
                              *finetune_preset = "paper";
  static pixel_policy make(std::int64_t) { return make_policy(pixel_shape{joystick_actions}); }
};
template <>
struct agent_of<sight_of_memory> {
  using policy_type = policy;
  static constexpr const char *name = "ram", *pretrain_preset = "ram-pretrain",
                              *finetune_preset = "ram";
  static policy make(std::int64_t width) {
    return make_policy({sight_of_memory::numbers, joystick_actions, width > 0 ? width : 128});
  }
};

template <ale_machine Machine, class Sight = sight_of_pixels>
struct ale_world {
  using game_type = ale_game<Machine, Sight>;
  using agent = agent_of<Sight>;
  using policy_type = typename agent::policy_type;
  static constexpr const char *pretrain_preset = agent::pretrain_preset,
                              *finetune_preset = agent::finetune_preset;

  std::function<Machine(std::uint64_t seed)> machine;
  std::shared_ptr<const room_states> states;  ///< null: none
  ale_options game;
  /// how episodes began in the training of the policy that load() found; empty: as elsewhere
  std::vector<int> learned_practice = {}, learned_stay = {};

  game_type operator()(std::uint64_t seed) const {
    return game_type(machine(seed), seed, states, game);
  }
  policy_type new_policy(std::int64_t width) const { return agent::make(width); }
  std::vector<int> rooms() const {
    std::vector<int> all{game_type::first_room};
    if (states != nullptr)
      for (const auto& [room, some] : states->rooms)
        if (room != game_type::first_room && !some.empty()) all.push_back(room);
    return all;
  }
  /// Reports group runs by "map".
  nlohmann::json to_json() const {
    nlohmann::json all{{"map", "ale"},
                       {"sticky", game.sticky},
                       {"step_cap", game.step_cap},
                       {"saved_states", states == nullptr ? "none" : states->text()}};
    if constexpr (!std::is_same_v<Sight, sight_of_pixels>) all["observation"] = agent::name;
    if (!game.practice_rooms.empty()) {
      all["practice_rooms"] = game.practice_rooms;
      all["entry_share"] = game.entry_share;
    }
    if (!game.stay_rooms.empty()) all["stay_rooms"] = game.stay_rooms;
    return all;
  }
  void save(retain::state& out) const {
    out.set("map", "ale");
    out.set("sticky", game.sticky);
    out.set("step_cap", game.step_cap);
    if (!game.practice_rooms.empty())
      out.set("practice_rooms", at::tensor(numbers(game.practice_rooms)));
    if (!game.stay_rooms.empty()) out.set("stay_rooms", at::tensor(numbers(game.stay_rooms)));
  }
  void load(const retain::state& in) {
    game.sticky = in.number("sticky");
    game.step_cap = in.integer<int>("step_cap");
    learned_practice = rooms_in(in, "practice_rooms");
    learned_stay = rooms_in(in, "stay_rooms");
  }

  /// The world as the policy that load() found was trained in it, if episodes began in several
  /// places there.
  std::optional<ale_world> of_training() const {
    if (learned_practice.empty() || states == nullptr) return {};
    auto there = *this;
    there.game.practice_rooms = learned_practice;
    there.game.stay_rooms = learned_stay;
    there.game.entry_share = 0;
    return there;
  }

 private:
  static std::vector<std::int64_t> numbers(const std::vector<int>& rooms) {
    return {rooms.begin(), rooms.end()};
  }
  static std::vector<int> rooms_in(const retain::state& in, const std::string& name) {
    if (!in.contains(name)) return {};
    const auto saved = saved_tensor(in, name, at::kLong, {any_size});
    const auto* first = saved.template data_ptr<std::int64_t>();
    return {first, first + saved.numel()};
  }
};

}  // namespace montezuma
