// SPDX-License-Identifier: MIT
// The world of a command.
#pragma once

#include <concepts>
#include <cstdint>
#include <vector>

#include <nlohmann/json.hpp>

#include <retain/state.hpp>

#include "emulator.hpp"
#include "policy.hpp"
#include "pyramid.hpp"
#include "pyramid_choice.hpp"

namespace montezuma {

/// The world of a command, for any game: it makes games and new policies for them. It is saved with
/// the policies that were trained in it.
///
///     game_type, policy_type
///     pretrain_preset, finetune_preset     the default presets
///     world(seed)                          a game with its own random state
///     new_policy(width)                    initialized by LibTorch's generator; 0: its own width
///     rooms()                              the first rooms of an evaluation
///     save(out), load(in)                  the part that belongs to a policy; load() keeps the
///                                          part that belongs to this machine
template <class W>
concept training_world = std::copyable<W> && requires(const W& seen, W& some, retain::state& out,
                                                      const retain::state& in) {
  requires emulator<typename W::game_type> && trainable_policy<typename W::policy_type>;
  { W::pretrain_preset } -> std::convertible_to<const char*>;
  { W::finetune_preset } -> std::convertible_to<const char*>;
  { seen(std::uint64_t{1}) } -> std::same_as<typename W::game_type>;
  { seen.new_policy(std::int64_t{64}) } -> std::same_as<typename W::policy_type>;
  { seen.rooms() } -> std::same_as<std::vector<int>>;
  { seen.to_json() } -> std::same_as<nlohmann::json>;
  seen.save(out);
  some.load(in);
};

/// Games with their own random states, which differ between seeds.
template <training_world W>
std::vector<typename W::game_type> games_of(const W& where, std::uint64_t seed,
                                            std::int64_t count) {
  std::vector<typename W::game_type> all;
  for (std::int64_t i = 0; i < count; ++i)
    all.push_back(where(seed * 100'003 + static_cast<std::uint64_t>(i)));
  return all;
}

/// The pyramid.
struct world_options : pyramid_choice {
  using game_type = pyramid;
  using policy_type = policy;
  static constexpr const char *pretrain_preset = "pretrain", *finetune_preset = "quick";

  pyramid operator()(std::uint64_t seed) const { return pyramid(seed, game); }
  policy new_policy(std::int64_t width) const {
    return make_policy({numbers_of<pyramid>(), pyramid::actions, width > 0 ? width : 64});
  }
  std::vector<int> rooms() const { return {0, 1, 2, 3, 4, 5, 6, 7}; }
  void save(retain::state& out) const {
    out.set("map", game.map);
    out.set("sticky", game.sticky);
    out.set("step_cap", game.step_cap);
  }
  void load(const retain::state& in) {
    game.map = in.text("map");
    game.sticky = in.number("sticky");
    game.step_cap = in.integer<int>("step_cap");
  }
};
static_assert(training_world<world_options>);

}  // namespace montezuma
