// SPDX-License-Identifier: MIT
// What a game must offer to be trained on, whichever program plays it.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace montezuma {

struct step_result {
  float reward = 0;    ///< as the game pays it; an agent that wants its sign takes that itself
  bool ended = false;  ///< the episode is over: by death, at the goal, or at the limit of steps
};

/// One game in progress. A vector of them is a training environment: each has dice of its own, so
/// that what happens in one does not depend on the others. A backend gives
///
///     value_type                what an observation's numbers are: float for planes and features, std::uint8_t for pixels
///     actions                   how many actions there are; an action is 0 ... actions - 1
///     observation_shape()       of one observation, as a tensor's: {157}, or {4, 84, 84} for four grey frames
///     newest_channels()         how many of the last channels of an observation are new in it: 1 for a stack of frames, all for a game
///                               that shows everything at once. A bonus for novelty looks at these alone
///     rooms                     how many room numbers there are
///
///     reset(room)               a new episode as somebody begins it who has just come into that room. Dice roll on: two resets may differ.
///                               A backend that starts most rooms from archived states refuses, with a message that says how to make
///                               them, a room that it has none for
///     step(action)              one decision of the agent, sticky actions and skipped frames included
///     observe(values)           writes one observation, of the state that the game is in now: after restore() too, so a backend whose
///                               screen is stale there has to bring it up to date first
///     room()                    where the hero is
///     succeeded()               whether the room that reset() was given is solved: see room_success
///     place_key()               a number that equal situations share and others do not: room, position, what is held, what is open.
///                               Counting them gives a bonus without a network
///     save(), restore(saved)    all of the game as bytes, dice included: a restored game goes on bit for bit. restore() throws for bytes
///                               of another game
template <class E>
concept emulator =
    std::movable<E> && requires(E& game, const E& seen, int number, typename E::value_type* values,
                                std::string_view saved) {
      requires std::same_as<typename E::value_type, float> ||
                   std::same_as<typename E::value_type, std::uint8_t>;
      { E::actions } -> std::convertible_to<int>;
      { E::rooms } -> std::convertible_to<int>;
      { E::observation_shape() } -> std::same_as<std::vector<std::int64_t>>;
      { E::newest_channels() } -> std::same_as<std::int64_t>;
      game.reset(number);
      { game.step(number) } -> std::same_as<step_result>;
      seen.observe(values);
      { seen.room() } -> std::same_as<int>;
      { seen.succeeded() } -> std::same_as<bool>;
      { seen.place_key() } -> std::same_as<std::uint64_t>;
      { seen.save() } -> std::same_as<std::string>;
      game.restore(saved);
    };

/// Success in a room as Wołczyk et al. 2024 measure it: a reward, a new item, or leaving by another
/// passage than the one entered by. Two rooms share one passage at most, so that a passage is known
/// by the room behind it.
struct room_success {
  static constexpr std::int8_t nowhere = -1;

  std::int8_t room = 0, came_from = nowhere;
  std::uint8_t succeeded = 0;

  void begin(int in_room, int from) {
    *this = {static_cast<std::int8_t>(in_room), static_cast<std::int8_t>(from), 0};
  }

  /// `gained`: this step paid a reward or gave an item. Going back out and coming in again does not
  /// end the attempt; only what is done in the room itself counts.
  void step(int before, int after, bool gained) {
    if (before == room && (gained || (after != room && after != came_from))) succeeded = 1;
    if (before != room && after == room) came_from = static_cast<std::int8_t>(before);
  }
  bool operator==(const room_success&) const = default;
};

}  // namespace montezuma
