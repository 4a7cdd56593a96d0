// SPDX-License-Identifier: MIT
// The scripted player: the teacher whose games are recorded as demonstrations.
//
// It is written to be imitated. Every key follows from what the screen shows, from what it showed before on this
// level, and from a few counters; there are no hidden plans of many keys, and no dice where a rule does as well.
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

/// The numbers that shape how the player plays; the defaults are the best found by measurement.
struct player_settings {
  int first_prayer_turn = 110;      ///< before turn 100 no prayer is heard
  int prayer_interval = 700;        ///< turns between prayers; the gods' patience is random, with a median of 350
  double rest_below = 0.65;         ///< share of the hit points under which it rests when nobody is near
  int rest_turns = 150;             ///< per level
  int linger_below_level = 0;       ///< experience level under which it sees all of a level before it leaves
  double quaff_below = 0.34;        ///< share of the hit points under which it drinks a potion of healing
  bool quaff_potions = true;
  int searches_per_spot = 12;

  /// In one line, for the header of a recording.
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
    add("quaff", quaff_potions);
    add("searches", searches_per_spot);
    return text;
  }
};

class player {
 public:
  explicit player(std::uint64_t seed, player_settings settings = {}) : settings_(settings) { reset(seed); }

  void reset(std::uint64_t seed) {
    random_.seed(seed);
    levels_.clear();
    depth_ = 0;
    last_prayer_ = -1;
    last_turn_ = -1;
    idle_ = 0;
    last_key_ = 0;
    potions_ = 3;
    eats_refused_ = 0;
    unmoved_ = 0;
  }

  /// The key to press, given what the game shows now.
  std::uint8_t next(const observation& seen) {
    const std::uint8_t chosen = seen.waiting == prompt::question ? answer(seen) : command(seen);
    last_key_ = chosen;
    return chosen;
  }

  /// Tells the player that `pressed` was sent in place of the command it chose last, so that it does not learn
  /// wrong things about the level from what comes of it.
  void was_replaced_by(key pressed) {
    last_key_ = pressed;
    stepping_ = false;
    const auto d = std::find(direction_keys.begin(), direction_keys.end(), pressed);
    if (d != direction_keys.end()) step_direction_ = static_cast<std::size_t>(d - direction_keys.begin());
  }

 private:
  static bool says(const observation& seen, std::string_view words) { return seen.message.find(words) != std::string::npos; }

  glyph shown(const observation& seen, place p) const { return {seen.character(p.row, p.column), seen.color(p.row, p.column)}; }

  // ---- questions -------------------------------------------------------------------------------------------------

  std::uint8_t answer(const observation& seen) {
    if (says(seen, "want to pray")) return 'y';
    if (says(seen, "n what direction")) return direction_keys[kick_direction_];
    if (says(seen, "Really attack")) {
      const place target = hero_ + directions[step_direction_];
      if (on_map(target)) map().shunned_until[target] = seen.stats.turn + 40;
      return keys::escape;
    }
    if (says(seen, "eat it?")) return 'n';
    if (says(seen, "want to eat?")) {
      const std::string letters = offered(seen.message);
      if (!letters.empty()) return static_cast<std::uint8_t>(letters[0]);
      eats_refused_ = 1000;
      return keys::escape;
    }
    if (says(seen, "want to drink?")) {
      const std::string letters = offered(seen.message);
      if (!letters.empty() && letters[0] == 'e') return 'e';
      potions_ = 0;
      return keys::escape;
    }
    return keys::escape;
  }

  /// The letters in "What do you want to eat? [fgh or ?*]", ranges such as f-i written out by their ends only.
  static std::string offered(const std::string& message) {
    const auto open = message.rfind('[');
    std::string letters;
    if (open == std::string::npos) return letters;
    for (std::size_t i = open + 1; i < message.size() && std::isalpha(static_cast<unsigned char>(message[i])); ++i) letters += message[i];
    return letters;
  }

  // ---- commands --------------------------------------------------------------------------------------------------

  level_map& map() { return levels_[depth_]; }

  std::uint8_t command(const observation& seen) {
    notice(seen);
    const status& now = seen.stats;

    if (idle_ > 12) {  // nothing takes time any more: shake loose
      idle_ = 0;
      const auto d = static_cast<std::size_t>(random_() % 8);
      return step(d);
    }

    const bool dying = now.hp < 6 || now.hp * 7 < now.hp_max;
    if ((dying || now.hunger >= 3) && may_pray(now)) {
      last_prayer_ = now.turn;
      return keys::pray;
    }
    const auto enemy = adjacent_enemy(seen);
    if (settings_.quaff_potions && potions_ > 0 && now.hp < settings_.quaff_below * now.hp_max) {
      --potions_;
      return 'q';
    }
    if (enemy) return attack(*enemy);

    const bool threatened = enemy_within(seen, 7);
    if (now.hunger >= 2 && !threatened && eats_refused_ < 3) {
      ++eats_refused_;
      return 'e';
    }
    if (now.hunger < 2) eats_refused_ = 0;

    if (now.hp < settings_.rest_below * now.hp_max && !threatened && now.hunger < 2 && rested_ < settings_.rest_turns) {
      ++rested_;
      return 's';
    }
    return travel(seen);
  }

  void notice(const observation& seen) {
    const status& now = seen.stats;
    const place before = hero_;
    hero_ = {seen.hero_row, seen.hero_column};
    const bool new_level = now.depth != depth_;
    if (new_level) {
      depth_ = now.depth;
      const bool known = levels_.count(depth_) != 0;
      if (!known || last_key_ == '>') levels_[depth_] = level_map{};
      map().entered_turn = now.turn;
      rested_ = 0;
      searched_here_ = 0;
    }
    map().see(seen, hero_, new_level || seen.waiting == prompt::question);
    if (map().ground[hero_].symbol == ' ') map().ground[hero_] = {'.', color::gray};
    if (says(seen, "staircase down here") || says(seen, "stairs down here") || says(seen, "ladder down here")) map().stairs_down = hero_;

    const bool moved = new_level || before != hero_;
    if (moved) {
      ++map().visits[hero_];
      searched_here_ = 0;
      unmoved_ = 0;
    } else if (stepping_) {
      // Someone who stands in the way moves on; a wall or a boulder stays.
      // Traps hold without a word from the second turn on, so silence counts only when it lasts.
      ++unmoved_;
      if (says(seen, "in the way") || says(seen, "in your way") || says(seen, "You stop"))
        map().shunned_until[hero_ + directions[step_direction_]] = now.turn + 3;
      else if (says(seen, "solid") || says(seen, "wall") || says(seen, "boulder") || says(seen, "diagonally") || unmoved_ % 12 == 0)
        ++map().refused[hero_][step_direction_];
    }
    if (says(seen, "Closed for inventory") || says(seen, "watchman") || says(seen, "watch captain")) map().guarded = true;
    if (says(seen, "statue of")) map().statue[hero_] = true;
    if (says(seen, "Perhaps that's why you cannot move past it")) map().refused[hero_][step_direction_] = 9;
    door_locked_ = says(seen, "door is locked");
    idle_ = now.turn == last_turn_ ? idle_ + 1 : 0;
    last_turn_ = now.turn;
    stepping_ = false;
  }

  bool may_pray(const status& now) const {
    return last_prayer_ < 0 ? now.turn >= settings_.first_prayer_turn : now.turn - last_prayer_ > settings_.prayer_interval;
  }

  std::uint8_t step(std::size_t direction) {
    step_direction_ = direction;
    stepping_ = true;
    return direction_keys[direction];
  }

  /// Attacking is walking into a monster; that it leads nowhere says nothing about the way.
  std::uint8_t attack(std::size_t direction) {
    step_direction_ = direction;
    return direction_keys[direction];
  }

  // ---- fighting --------------------------------------------------------------------------------------------------

  /// Whether to attack what is shown there: not pets, not what harms the one who touches it.
  bool is_enemy(const observation& seen, place p) {
    const glyph there = shown(seen, p);
    if (!there.is_monster() || there.is_pet() || map().shunned_until[p] > seen.stats.turn) return false;
    if (map().statue[p] || there.is_harmful()) return false;
    return !(there.symbol == 'b' && there.hue() == color::green && seen.stats.hp < 15);  // an acid blob, passive
  }

  std::optional<std::size_t> adjacent_enemy(const observation& seen) {
    for (std::size_t d = 0; d < 8; ++d) {
      const place p = hero_ + directions[d];
      if (!on_map(p) || !is_enemy(seen, p)) continue;
      if (d >= 4 && (map().ground[hero_].is_door() || map().ground[p].is_door())) continue;
      return d;
    }
    return std::nullopt;
  }

  bool enemy_within(const observation& seen, int reach) {
    for (int row = std::max(1, hero_.row - reach); row <= std::min(21, hero_.row + reach); ++row)
      for (int column = std::max(1, hero_.column - reach); column <= std::min(columns - 1, hero_.column + reach); ++column) {
        const place p{row, column};
        if (p != hero_ && is_enemy(seen, p)) return true;
      }
    return false;
  }

  // ---- finding the way -------------------------------------------------------------------------------------------

  std::uint8_t travel(const observation& seen) {
    const status& now = seen.stats;
    level_map& here = map();
    route_finder::rules allowed{};
    allowed.turn = now.turn;

    if (door_locked_) {
      kick_direction_ = step_direction_;
      if (here.guarded) {
        here.refused[hero_][step_direction_] = 9;
      } else if (here.kicks < 60) {
        ++here.kicks;
        return keys::kick;
      }
    }
    routes_.explore(here, seen, hero_, allowed);

    if (const auto gold = nearest(here, [&](place p) { return here.ground[p].symbol == '$'; })) return walk_to(*gold);
    const auto frontier = nearest(here, [&](place p) { return here.is_frontier(p); });
    if (frontier && now.level < settings_.linger_below_level) return walk_to(*frontier);
    if (here.stairs_down) {
      if (hero_ == *here.stairs_down) return '>';
      if (routes_.reaches(*here.stairs_down)) return walk_to(*here.stairs_down);
    }
    if (const auto trap = nearest(here, [&](place p) { return here.ground[p].is_useful_trap() && here.visits[p] < 3; })) return walk_to(*trap);
    if (frontier) return walk_to(*frontier);

    allowed.push_boulders = true;
    allowed.cross_traps = true;
    routes_.explore(here, seen, hero_, allowed);
    if (here.stairs_down && routes_.reaches(*here.stairs_down)) return walk_to(*here.stairs_down);
    if (const auto beyond = nearest(here, [&](place p) { return here.is_frontier(p) || (here.ground[p].is_boulder() && !here.visits[p]); })) return walk_to(*beyond);
    if (now.turn > here.forgiven_turn + 150) {  // what was in the way may have gone
      here.forgiven_turn = now.turn;
      here.refused.fill({});
    }
    return look_for_hidden(seen);
  }

  template <class Wanted>
  std::optional<place> nearest(const level_map&, Wanted wanted) const {
    for (const place p : routes_.reached())
      if (p != hero_ && wanted(p)) return p;
    return std::nullopt;
  }

  std::uint8_t walk_to(place goal) {
    const std::size_t d = routes_.first_step(goal);
    return step(d);
  }

  /// Nothing left to see: search where a passage is likely to hide, the most likely place first.
  std::uint8_t look_for_hidden(const observation&) {
    level_map& here = map();
    double best = -1e9;
    place spot = hero_;
    for (const place p : routes_.reached()) {
      const double value = promise(here, p) - 0.3 * routes_.steps_to(p) - 4.0 * here.searches[p];
      if (value > best) best = value, spot = p;
    }
    if (spot == hero_) {
      if (++searched_here_ >= settings_.searches_per_spot) {
        searched_here_ = 0;
        for (int row = -1; row <= 1; ++row)
          for (int column = -1; column <= 1; ++column) {
            const place near{hero_.row + row, hero_.column + column};
            if (on_map(near)) here.searches[near] = static_cast<std::uint16_t>(here.searches[near] + 2);
          }
      }
      return 's';
    }
    return walk_to(spot);
  }

  /// How likely a hidden passage is next to `p`: dead ends first, then walls with much blank behind them.
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
          const place far{wall.row + directions[d].row * ahead + (directions[d].row == 0 ? aside : 0),
                          wall.column + directions[d].column * ahead + (directions[d].column == 0 ? aside : 0)};
          if (here.is_blank(far)) ++blank;
        }
      value += blank * 0.25;
    }
    return value;
  }

  player_settings settings_;
  std::mt19937_64 random_;
  std::map<int, level_map> levels_;
  route_finder routes_;
  place hero_;
  int depth_ = 0;
  int last_prayer_ = -1, last_turn_ = -1, idle_ = 0, rested_ = 0, searched_here_ = 0, potions_ = 3, eats_refused_ = 0, unmoved_ = 0;
  std::size_t step_direction_ = 0, kick_direction_ = 0;
  bool stepping_ = false, door_locked_ = false;
  std::uint8_t last_key_ = 0;
};

}  // namespace nethack
