// SPDX-License-Identifier: MIT
// The two status rows at the bottom of the screen as numbers:
//
//   Agent the Candidate          St:18/02 Dx:17 Co:18 In:8 Wi:10 Ch:9  Neutral S:0
//   Dlvl:1  $:0  HP:14(14) Pw:4(4) AC:4  Xp:1/0 T:1 Hungry Burdened Blind
#pragma once

#include <array>
#include <string_view>

#include "observation.hpp"

namespace nethack {
namespace detail {

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Reads the integer at the front of `text` and removes it. `value` does not change if there is no
/// number.
inline bool take_number(std::string_view& text, int& value) {
  std::string_view rest = text;
  const bool negative = !rest.empty() && rest.front() == '-';
  if (negative) rest.remove_prefix(1);
  if (rest.empty() || !is_digit(rest.front())) return false;
  long number = 0;
  while (!rest.empty() && is_digit(rest.front())) {
    if (number < 100'000'000) number = number * 10 + (rest.front() - '0');
    rest.remove_prefix(1);
  }
  value = static_cast<int>(negative ? -number : number);
  text = rest;
  return true;
}

/// Removes the next word (between blanks) from `text` and returns it; empty at the end.
inline std::string_view take_word(std::string_view& text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  std::size_t length = 0;
  while (length < text.size() && text[length] != ' ') ++length;
  const std::string_view word = text.substr(0, length);
  text.remove_prefix(length);
  return word;
}

/// Both numbers of "14(20)" or "3/154".
inline void take_pair(std::string_view text, int& first, int& second) {
  if (!take_number(text, first) || text.empty()) return;
  text.remove_prefix(1);
  take_number(text, second);
}

/// "18/07" is between 18 and 19; "18/**" is 18/100.
inline void take_strength(std::string_view text, status& out) {
  out.strength_percent = 0;
  if (!take_number(text, out.strength) || text.empty() || text.front() != '/') return;
  text.remove_prefix(1);
  if (!text.empty() && text.front() == '*')
    out.strength_percent = 100;
  else
    take_number(text, out.strength_percent);
}

struct status_word {
  std::string_view text;
  int status::* field;
  int value;
};

/// The words after the numbers. Conditions are bits and add up.
inline constexpr std::array<status_word, 23> status_words{{
    {"Satiated", &status::hunger, 0},      {"Hungry", &status::hunger, 2},
    {"Weak", &status::hunger, 3},          {"Fainting", &status::hunger, 4},
    {"Fainted", &status::hunger, 5},       {"Burdened", &status::burden, 1},
    {"Stressed", &status::burden, 2},      {"Strained", &status::burden, 3},
    {"Overtaxed", &status::burden, 4},     {"Overloaded", &status::burden, 5},
    {"Stone", &status::condition, 1},      {"Slime", &status::condition, 2},
    {"Strngl", &status::condition, 4},     {"FoodPois", &status::condition, 8},
    {"TermIll", &status::condition, 0x10}, {"Blind", &status::condition, 0x20},
    {"Deaf", &status::condition, 0x40},    {"Stun", &status::condition, 0x80},
    {"Conf", &status::condition, 0x100},   {"Hallu", &status::condition, 0x200},
    {"Lev", &status::condition, 0x400},    {"Fly", &status::condition, 0x800},
    {"Ride", &status::condition, 0x1000},
}};

inline bool take_field(std::string_view word, std::string_view name, int& value) {
  if (!word.starts_with(name)) return false;
  word.remove_prefix(name.size());
  take_number(word, value);
  return true;
}

}  // namespace detail

/// Reads both rows into `out`. Returns false and does not change `out` if they are not status rows
/// (a menu or a text covers them). A field that a row does not show keeps its value: a polymorphed
/// hero shows HD instead of Xp, and the quest's home shows no Dlvl.
inline bool parse_status(std::string_view upper, std::string_view lower, status& out) {
  using namespace detail;
  const std::size_t attributes = upper.find(" St:");
  if (attributes == std::string_view::npos || lower.find(" HP:") == std::string_view::npos)
    return false;

  for (std::string_view rest = upper.substr(attributes), word; !(word = take_word(rest)).empty();) {
    if (word.starts_with("St:"))
      take_strength(word.substr(3), out);
    else if (word == "Lawful")
      out.alignment = 1;
    else if (word == "Neutral")
      out.alignment = 0;
    else if (word == "Chaotic")
      out.alignment = -1;
    else
      (void)(take_field(word, "Dx:", out.dexterity) || take_field(word, "Co:", out.constitution) ||
             take_field(word, "In:", out.intelligence) || take_field(word, "Wi:", out.wisdom) ||
             take_field(word, "Ch:", out.charisma) || take_field(word, "S:", out.score));
  }

  out.hunger = 1;
  out.burden = out.condition = 0;
  out.hit_dice = 0;
  for (std::string_view rest = lower, word; !(word = take_word(rest)).empty();) {
    if (word.starts_with("HP:"))
      take_pair(word.substr(3), out.hp, out.hp_max);
    else if (word.starts_with("Pw:"))
      take_pair(word.substr(3), out.energy, out.energy_max);
    else if (word.starts_with("Xp:"))
      take_pair(word.substr(3), out.level, out.experience);
    else if (take_field(word, "Dlvl:", out.depth) || take_field(word, "$:", out.gold) ||
             take_field(word, "AC:", out.armor_class) || take_field(word, "T:", out.turn) ||
             take_field(word, "HD:", out.hit_dice))
      continue;
    else
      for (const status_word& known : status_words)
        if (word == known.text) {
          out.*known.field =
              known.field == &status::condition ? out.condition | known.value : known.value;
          break;
        }
  }
  return true;
}

}  // namespace nethack
