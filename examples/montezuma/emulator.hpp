// SPDX-License-Identifier: MIT
// The interface that a game needs for training.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace montezuma {

struct step_result {
  float reward = 0;        ///< as the game pays it; an agent that uses only the sign computes it
  bool ended = false;      ///< the episode is over: by death, at the goal, or at the limit of steps
  bool truncated = false;  ///< only because of the limit of steps, which no observation shows
};

/// One game in progress. A vector of games is a training environment. Each game has its own random
/// state, so the games are independent of each other. A backend provides
///
///     value_type               type of an observation's numbers: float for planes and features,
///                              std::uint8_t for pixels
///     actions                  number of actions; an action is 0 ... actions - 1
///     observation_shape()      shape of one observation as a tensor: {157}, or {4, 84, 84} for
///                              four gray frames
///     newest_channels()        how many of the last channels are new in an observation: 1 for a
///                              stack of frames, all channels if one observation shows everything.
///                              A novelty bonus uses only these channels
///     rooms                    number of room numbers
///
///     reset(room)              starts an episode as if the hero has just entered the room. The
///                              random state continues, so two resets may differ. A backend that
///                              needs archived states throws for a room without a state, with a
///                              message that says how to make states
///     step(action)             one decision of the agent, with sticky actions and skipped frames
///     observe(values)          writes one observation of the current state. It must be up to date
///                              after restore() too, even if the backend's screen is not
///     room()                   the room of the hero
///     succeeded()              whether the room of reset() is solved: see room_success
///     place_key()              a number that is equal for equal situations only: room, position,
///                              items held, doors open. Counting it gives a bonus without a network
///     save(), restore(saved)   the whole game as bytes, with the random state. A restored game
///                              continues bit for bit. restore() throws for bytes of another game
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

/// Success in a room as Wołczyk et al. 2024 define it: a reward, a new item, or an exit through
/// another passage than the entrance. Two rooms share at most one passage, so the next room
/// identifies the passage.
struct room_success {
  static constexpr std::int8_t nowhere = -1;

  std::int8_t room = 0, came_from = nowhere;
  std::uint8_t succeeded = 0;

  void begin(int in_room, int from) {
    *this = {static_cast<std::int8_t>(in_room), static_cast<std::int8_t>(from), 0};
  }

  /// `gained`: this step paid a reward or gave an item. Leaving through the entrance and coming
  /// back does not end the attempt, but only events in the room itself count.
  void step(int before, int after, bool gained) {
    if (before == room && (gained || (after != room && after != came_from))) succeeded = 1;
    if (before != room && after == room) came_from = static_cast<std::int8_t>(before);
  }
  bool operator==(const room_success&) const = default;
};

}  // namespace montezuma
