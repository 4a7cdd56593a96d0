// SPDX-License-Identifier: MIT
// The scripted player, whose games are recorded as demonstrations.
//
// It is written to be easy to imitate. Every key follows from the screen, from the earlier screens
// of this level, and from a few counters. There are no hidden plans of many keys. The player is
// deterministic where a rule works as well as chance.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <random>
#include <string>

#include "actions.hpp"
#include "observation.hpp"
#include "player_map.hpp"

namespace nethack {

/// The parameters of the player. The defaults are the best that were measured.
struct player_settings {
  int first_prayer_turn = 110;  ///< prayers before turn 100 do not work
  /// turns between prayers; the time until a prayer works again is random, with a median of 350
  int prayer_interval = 700;
  /// share of the hit points below which it rests if no monster is near
  double rest_below = 0.65;
  int rest_turns = 150;  ///< per level
  /// share of the hit points below which it drinks one of its three potions of healing; 0: never
  double quaff_below = 0.34;
  int searches_per_spot = 12;  ///< before it searches at another place
  int kicks_per_level = 60;    ///< at locked doors

  /// As one line, for the header of a recording.
  std::string description() const {
    std::string text = "scripted player";
    const auto add = [&](const char* name, double value) {
      char number[32];
      std::snprintf(number, sizeof number, "%g", value);
      text += std::string("; ") + name + " " + number;
    };
    add("first prayer", first_prayer_turn);
    add("prayer interval", prayer_interval);
    add("rest below", rest_below);
    add("rest turns", rest_turns);
    add("quaff below", quaff_below);
    add("searches", searches_per_spot);
    add("kicks", kicks_per_level);
    return text;
  }
};

class player {
 public:
  explicit player(std::uint64_t seed, player_settings settings = {}) : settings_(settings) {
    reset(seed);
  }

  /// Forgets the previous game.
  void reset(std::uint64_t seed) {
    mind_ = {};
    mind_.random.seed(seed);
  }

  /// Returns the key to press for the current screen.
  std::uint8_t next(const observation& seen) {
    const std::uint8_t chosen = seen.waiting == prompt::question ? answer(seen) : command(seen);
    mind_.last_key = chosen;
    return chosen;
  }

  /// Call this if `pressed` was sent instead of the player's last command. Otherwise the player
  /// would draw wrong conclusions about the level.
  void was_replaced_by(key pressed) {
    mind_.last_key = pressed;
    mind_.stepping = false;
    const auto d = std::find(direction_keys.begin(), direction_keys.end(), pressed);
    if (d != direction_keys.end())
      mind_.step_direction = static_cast<std::size_t>(d - direction_keys.begin());
  }

 private:
  static bool says(const observation& seen, std::string_view words) {
    return seen.message.find(words) != std::string::npos;
  }

  glyph shown(const observation& seen, place p) const {
    return {seen.character(p.row, p.column), seen.color(p.row, p.column)};
  }

  // ---- questions

  std::uint8_t answer(const observation& seen) {
    if (says(seen, "want to pray")) return 'y';
    if (says(seen, "n what direction")) return direction_keys[mind_.kick_direction];
    if (says(seen, "Really attack")) {
      const place target = mind_.hero + directions[mind_.step_direction];
      if (on_map(target)) map().shunned_until[target] = seen.stats.turn + 40;
      return keys::escape;
    }
    if (says(seen, "eat it?")) return 'n';
    if (says(seen, "want to eat?")) {
      const std::string letters = offered(seen.message);
      if (!letters.empty()) return static_cast<std::uint8_t>(letters[0]);
      mind_.meals_tried = 1000;
      return keys::escape;
    }
    if (says(seen, "want to drink?")) {
      const std::string letters = offered(seen.message);
      if (!letters.empty() && letters[0] == 'e') return 'e';
      mind_.potions = 0;
      return keys::escape;
    }
    return keys::escape;
  }

  /// The letters in "What do you want to eat? [fgh or ?*]". A range such as f-i gives only its two
  /// ends.
  static std::string offered(const std::string& message) {
    const auto open = message.rfind('[');
    std::string letters;
    if (open == std::string::npos) return letters;
    for (std::size_t i = open + 1;
         i < message.size() && std::isalpha(static_cast<unsigned char>(message[i])); ++i)
      letters += message[i];
    return letters;
  }

  // ---- commands

  level_map& map() { return mind_.levels[mind_.depth]; }

  std::uint8_t command(const observation& seen) {
    notice(seen);
    const status& now = seen.stats;

    if (mind_.idle > 12) {  // no command takes game time: try a random one
      mind_.idle = 0;
      const auto d = static_cast<std::size_t>(mind_.random() % 8);
      return step(d);
    }

    const bool dying = now.hp < 6 || now.hp * 7 < now.hp_max;
    if ((dying || now.hunger >= 3) && may_pray(now)) {
      mind_.last_prayer = now.turn;
      return keys::pray;
    }
    const auto enemy = adjacent_enemy(seen);
    if (mind_.potions > 0 && now.hp < settings_.quaff_below * now.hp_max) {
      --mind_.potions;
      return 'q';
    }
    if (enemy) return attack(*enemy);

    const bool threatened = enemy_within(seen, 7);
    if (now.hunger >= 2 && !threatened && mind_.meals_tried < 3) {
      ++mind_.meals_tried;
      return 'e';
    }
    if (now.hunger < 2) mind_.meals_tried = 0;

    if (now.hp < settings_.rest_below * now.hp_max && !threatened && now.hunger < 2 &&
        mind_.rested < settings_.rest_turns) {
      ++mind_.rested;
      return 's';
    }
    return travel(seen);
  }

  void notice(const observation& seen) {
    const status& now = seen.stats;
    const place before = mind_.hero;
    mind_.hero = {std::clamp(seen.hero_row, 1, 21), std::clamp(seen.hero_column, 1, columns - 1)};
    const bool new_level = now.depth != mind_.depth;
    if (new_level) {
      mind_.depth = now.depth;
      const bool known = mind_.levels.count(mind_.depth) != 0;
      if (!known || mind_.last_key == '>') mind_.levels[mind_.depth] = level_map{};
      map().entered_turn = now.turn;
      mind_.rested = 0;
      mind_.searched_here = 0;
    }
    map().see(seen, mind_.hero, new_level);
    if (map().ground[mind_.hero].symbol == ' ') map().ground[mind_.hero] = {'.', color::gray};
    if (says(seen, "staircase down here") || says(seen, "stairs down here") ||
        says(seen, "ladder down here"))
      map().stairs_down = mind_.hero;

    const bool moved = new_level || before != mind_.hero;
    if (moved) {
      ++map().visits[mind_.hero];
      mind_.searched_here = 0;
      mind_.unmoved = 0;
    } else if (mind_.stepping) {
      // A monster in the way moves on; a wall or a boulder stays.
      // A trap holds the hero without a message from the second turn on, so only a longer silence
      // counts.
      ++mind_.unmoved;
      const place ahead = mind_.hero + directions[mind_.step_direction];
      if (on_map(ahead) &&
          (says(seen, "in the way") || says(seen, "in your way") || says(seen, "You stop")))
        map().shunned_until[ahead] = now.turn + 3;
      else if (says(seen, "solid") || says(seen, "wall") || says(seen, "boulder") ||
               says(seen, "diagonally") || mind_.unmoved % 12 == 0)
        ++map().refused[mind_.hero][mind_.step_direction];
    }
    if (says(seen, "Closed for inventory") || says(seen, "watchman") || says(seen, "watch captain"))
      map().guarded = true;
    if (says(seen, "statue of")) map().statue[mind_.hero] = true;
    if (says(seen, "Perhaps that's why you cannot move past it"))
      map().refused[mind_.hero][mind_.step_direction] = 9;
    // a monster that bites the hero, and not another monster, is not a pet
    for (const char* animal : {"dog", "cat", "kitten"})
      for (const char* deed : {" bites!", " misses!", " just misses!"})
        if (says(seen, std::string(animal) + deed)) mind_.bitten_turn = now.turn;
    mind_.door_locked = says(seen, "door is locked");
    mind_.idle = now.turn == mind_.last_turn ? mind_.idle + 1 : 0;
    mind_.last_turn = now.turn;
    mind_.stepping = false;
  }

  bool may_pray(const status& now) const {
    return mind_.last_prayer < 0 ? now.turn >= settings_.first_prayer_turn
                                 : now.turn - mind_.last_prayer > settings_.prayer_interval;
  }

  std::uint8_t step(std::size_t direction) {
    mind_.step_direction = direction;
    mind_.stepping = true;
    return direction_keys[direction];
  }

  /// An attack is a step into a monster. If it does not move the hero, the way is not blocked.
  std::uint8_t attack(std::size_t direction) {
    mind_.step_direction = direction;
    return direction_keys[direction];
  }

  // ---- fighting

  /// Whether to attack the shown monster: no pets, and no monsters that harm an attacker.
  bool is_enemy(const observation& seen, place p) {
    const glyph there = shown(seen, p);
    if (!there.is_monster() || (there.is_pet() && seen.stats.turn > mind_.bitten_turn + 20) ||
        map().shunned_until[p] > seen.stats.turn)
      return false;
    if (map().statue[p] || there.is_harmful()) return false;
    // an acid blob, passive
    return !(there.symbol == 'b' && there.hue() == color::green && seen.stats.hp < 15);
  }

  std::optional<std::size_t> adjacent_enemy(const observation& seen) {
    for (std::size_t d = 0; d < 8; ++d) {
      const place p = mind_.hero + directions[d];
      if (!on_map(p) || !is_enemy(seen, p)) continue;
      if (d >= 4 && (map().ground[mind_.hero].is_door() || map().ground[p].is_door())) continue;
      return d;
    }
    return std::nullopt;
  }

  bool enemy_within(const observation& seen, int reach) {
    for (int row = std::max(1, mind_.hero.row - reach); row <= std::min(21, mind_.hero.row + reach);
         ++row)
      for (int column = std::max(1, mind_.hero.column - reach);
           column <= std::min(columns - 1, mind_.hero.column + reach); ++column) {
        const place p{row, column};
        if (p != mind_.hero && is_enemy(seen, p)) return true;
      }
    return false;
  }

  // ---- finding the way

  std::uint8_t travel(const observation& seen) {
    const status& now = seen.stats;
    level_map& here = map();
    route_finder::rules allowed{};
    allowed.turn = now.turn;

    if (mind_.door_locked) {
      mind_.kick_direction = mind_.step_direction;
      if (here.guarded) {
        here.refused[mind_.hero][mind_.step_direction] = 9;
      } else if (here.kicks < settings_.kicks_per_level) {
        ++here.kicks;
        return keys::kick;
      }
    }
    routes_.explore(here, seen, mind_.hero, allowed);

    if (const auto gold = nearest([&](place p) { return here.ground[p].symbol == '$'; }))
      return walk_to(*gold);
    if (here.stairs_down) {
      if (mind_.hero == *here.stairs_down) return '>';
      if (routes_.reaches(*here.stairs_down)) return walk_to(*here.stairs_down);
    }
    const auto trap =
        nearest([&](place p) { return here.ground[p].is_useful_trap() && here.visits[p] < 3; });
    if (trap) return walk_to(*trap);
    if (const auto frontier = nearest([&](place p) { return here.is_frontier(p); }))
      return walk_to(*frontier);

    allowed.push_boulders = true;
    allowed.cross_traps = true;
    routes_.explore(here, seen, mind_.hero, allowed);
    if (here.stairs_down && routes_.reaches(*here.stairs_down)) return walk_to(*here.stairs_down);
    const auto beyond = nearest([&](place p) {
      return here.is_frontier(p) || (here.ground[p].is_boulder() && !here.visits[p]);
    });
    if (beyond) return walk_to(*beyond);
    if (now.turn > here.forgiven_turn + 150) {  // the obstacle may have moved
      here.forgiven_turn = now.turn;
      here.refused.fill({});
    }
    return look_for_hidden();
  }

  template <class Wanted>
  std::optional<place> nearest(Wanted wanted) const {
    for (const place p : routes_.reached())
      if (p != mind_.hero && wanted(p)) return p;
    return std::nullopt;
  }

  std::uint8_t walk_to(place goal) {
    const std::size_t d = routes_.first_step(goal);
    return step(d);
  }

  /// Nothing new to explore: search where a hidden passage is likely, the most likely place first.
  std::uint8_t look_for_hidden() {
    level_map& here = map();
    place spot = mind_.hero;
    if (mind_.searched_here == 0) {  // otherwise finish the search at this place
      double best = -1e9;
      for (const place p : routes_.reached()) {
        const double value = promise(here, p) - 0.3 * routes_.steps_to(p) - 4.0 * here.searches[p];
        if (value > best) best = value, spot = p;
      }
    }
    if (spot == mind_.hero) {
      if (++mind_.searched_here >= settings_.searches_per_spot) {
        mind_.searched_here = 0;
        for (int row = -1; row <= 1; ++row)
          for (int column = -1; column <= 1; ++column) {
            const place near{mind_.hero.row + row, mind_.hero.column + column};
            if (on_map(near))
              here.searches[near] = static_cast<std::uint16_t>(here.searches[near] + 2);
          }
      }
      return 's';
    }
    return walk_to(spot);
  }

  /// How likely a hidden passage is next to `p`: dead ends first, then walls with a large blank
  /// area behind them.
  static double promise(const level_map& here, place p) {
    const glyph ground = here.ground[p];
    double value = 0;
    if (ground.symbol == '#' && here.walkable_neighbours(p) <= 1) value += 25;
    for (std::size_t d = 0; d < 4; ++d) {
      const place wall = p + directions[d];
      if (!on_map(wall) || (!here.ground[wall].is_wall() && ground.symbol != '#')) continue;
      int blank = 0;
      for (int ahead = 1; ahead <= 8; ++ahead)
        for (int aside = -2; aside <= 2; ++aside) {
          const place far{
              wall.row + directions[d].row * ahead + (directions[d].row == 0 ? aside : 0),
              wall.column + directions[d].column * ahead + (directions[d].column == 0 ? aside : 0)};
          if (here.is_blank(far)) ++blank;
        }
      value += blank * 0.25;
    }
    return value;
  }

  /// Everything that the player remembers of a game.
  struct mind {
    std::map<int, level_map> levels;  ///< by depth
    std::mt19937_64 random;           ///< used only if no command takes game time
    place hero;
    int depth = 0;
    int last_prayer = -1, last_turn = -1;
    int idle = 0;     ///< commands in a row that took no game time
    int unmoved = 0;  ///< steps in a row that did not move the hero
    int rested = 0;   ///< turns on this level
    int searched_here = 0;
    int potions = 3;          ///< of healing; a Monk starts with three
    int bitten_turn = -1000;  ///< when a monster that looks like a pet last bit the hero
    int meals_tried = 0;      ///< since the hero was last not hungry
    std::size_t step_direction = 0, kick_direction = 0;
    bool stepping = false;  ///< the last key was a step, not an attack
    bool door_locked = false;
    std::uint8_t last_key = 0;
  };

  player_settings settings_;
  mind mind_;
  route_finder routes_;
};

}  // namespace nethack
