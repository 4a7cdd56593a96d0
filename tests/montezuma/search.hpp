// SPDX-License-Identifier: MIT
// Breadth-first search over the states of a pyramid without sticky actions.
#pragma once

#include <cstddef>
#include <cstring>
#include <map>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "pyramid.hpp"

namespace montezuma_search {

struct found {
  std::size_t states = 0;
  std::map<std::string, int> first;  ///< the least number of steps to what is named so
};

/// What a state is for the search: without clock, dice and records.
inline std::string essence(montezuma::pyramid::state s) {
  s.random = 0;
  s.steps = 0;
  s.last_action = 0;
  s.success = {};
  return {reinterpret_cast<const char*>(&s), sizeof s};
}

/// Every state that actions lead to, in the order of distance. `from` must have no sticky actions
/// and no near limit of steps.
inline found explore(const montezuma::pyramid& from) {
  using montezuma::item;
  found result;
  std::vector<montezuma::pyramid::state> now{from.now()}, next;
  std::unordered_set<std::string> seen{essence(from.now())};
  montezuma::pyramid world = from;
  const auto note = [&](const std::string& what, int distance) {
    result.first.try_emplace(what, distance);
  };
  for (int distance = 0; !now.empty(); ++distance, now.swap(next)) {
    next.clear();
    for (const auto& state : now) {
      world.set(state);
      note("room " + std::to_string(state.room), distance);
      if (world.took(item::red_key)) note("red key", distance);
      if (world.opened(item::red_key)) note("red door", distance);
      if (world.took(item::blue_key)) note("blue key", distance);
      if (world.opened(item::blue_key)) note("blue door", distance);
      if (world.took(item::blue_key) && state.room != 7)
        note("out of room 7 with the blue key", distance);
      if (world.took(item::coin)) note("coin", distance);
      if (world.took(item::treasure)) note("treasure", distance);
      if (world.took(item::treasure) && world.took(item::coin)) note("everything", distance);
      if (world.dead()) note("death", distance);
      if (state.ended) continue;
      for (int action = 0; action < montezuma::pyramid::actions; ++action) {
        world.set(state);
        world.step(action);
        if (seen.insert(essence(world.now())).second) next.push_back(world.now());
      }
    }
  }
  result.states = seen.size();
  return result;
}

}  // namespace montezuma_search
