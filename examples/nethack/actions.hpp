// SPDX-License-Identifier: MIT
// The keys an agent may send: the 121 of the NetHack Learning Environment and a small set of 22.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

namespace nethack {

using key = std::uint8_t;

namespace keys {
inline constexpr key escape = 27, enter = 13;
constexpr key control(char letter) { return static_cast<key>(letter & 0x1f); }
constexpr key meta(char letter) {
  return static_cast<key>(static_cast<unsigned char>(letter) | 0x80);
}
inline constexpr key kick = control('d'), pray = meta('p');
}  // namespace keys

struct action {
  key code;
  const char* name;
};

/// The actions of the NetHack Learning Environment in its order: action i of a policy that was
/// trained there is `learning_environment_actions[i]`. Some keys have two meanings, so some codes
/// occur twice.
inline constexpr std::array<action, 121> learning_environment_actions{{
    {107, "north"},
    {108, "east"},
    {106, "south"},
    {104, "west"},
    {117, "northeast"},
    {110, "southeast"},
    {98, "southwest"},
    {121, "northwest"},
    {75, "far north"},
    {76, "far east"},
    {74, "far south"},
    {72, "far west"},
    {85, "far northeast"},
    {78, "far southeast"},
    {66, "far southwest"},
    {89, "far northwest"},
    {60, "up"},
    {62, "down"},
    {46, "wait"},
    {13, "more"},
    {35, "extended command"},
    {191, "extended list"},
    {225, "adjust"},
    {193, "annotate"},
    {97, "apply"},
    {24, "attributes"},
    {64, "autopickup"},
    {67, "call"},
    {90, "cast"},
    {227, "chat"},
    {99, "close"},
    {195, "conduct"},
    {228, "dip"},
    {100, "drop"},
    {68, "drop several"},
    {101, "eat"},
    {69, "engrave"},
    {229, "enhance"},
    {27, "escape"},
    {70, "fight"},
    {102, "fire"},
    {230, "force"},
    {59, "glance"},
    {86, "history"},
    {105, "inventory"},
    {73, "inventory of a kind"},
    {233, "invoke"},
    {234, "jump"},
    {4, "kick"},
    {92, "known"},
    {96, "known of a class"},
    {58, "look"},
    {236, "loot"},
    {237, "monster"},
    {109, "move"},
    {77, "move far"},
    {239, "offer"},
    {111, "open"},
    {79, "options"},
    {15, "overview"},
    {112, "pay"},
    {44, "pick up"},
    {240, "pray"},
    {80, "put on"},
    {113, "quaff"},
    {241, "quit"},
    {81, "quiver"},
    {114, "read"},
    {18, "redraw"},
    {82, "remove"},
    {210, "ride"},
    {242, "rub"},
    {103, "rush"},
    {71, "rush with a prefix"},
    {83, "save"},
    {115, "search"},
    {42, "see all"},
    {34, "see amulet"},
    {91, "see armor"},
    {36, "see gold"},
    {61, "see rings"},
    {43, "see spells"},
    {40, "see tools"},
    {94, "see trap"},
    {41, "see weapon"},
    {33, "shell"},
    {243, "sit"},
    {120, "swap"},
    {84, "take off"},
    {65, "take off all"},
    {20, "teleport"},
    {116, "throw"},
    {212, "tip"},
    {95, "travel"},
    {244, "turn undead"},
    {88, "two weapons"},
    {245, "untrap"},
    {246, "version, short"},
    {118, "version"},
    {87, "wear"},
    {38, "what does"},
    {47, "what is"},
    {119, "wield"},
    {247, "wipe"},
    {122, "zap"},
    {43, "text: plus"},
    {45, "text: minus"},
    {32, "text: space"},
    {39, "text: apostrophe"},
    {34, "text: quotation mark"},
    {48, "text: 0"},
    {49, "text: 1"},
    {50, "text: 2"},
    {51, "text: 3"},
    {52, "text: 4"},
    {53, "text: 5"},
    {54, "text: 6"},
    {55, "text: 7"},
    {56, "text: 8"},
    {57, "text: 9"},
    {36, "text: dollar"},
}};

/// The actions of the small policy: what a Monk needs to walk, fight, eat, pray and go down. The
/// answers to the game's questions are keys of the same set: a direction, y or n, an item's letter
/// (f g i d ...). To add a key, add a line here. An action is the index of its line.
inline constexpr std::array small_actions{
    action{'k', "north"},
    action{'l', "east"},
    action{'j', "south"},
    action{'h', "west"},
    action{'u', "northeast"},
    action{'n', "southeast"},
    action{'b', "southwest"},
    action{'y', "northwest, yes"},
    action{'s', "search"},
    action{'F', "fight"},
    action{'e', "eat"},
    action{keys::pray, "pray"},
    action{keys::kick, "kick"},
    action{'>', "down"},
    action{'f', "item f"},
    action{'g', "item g"},
    action{'i', "item i"},
    action{'d', "item d"},
    action{keys::escape, "escape"},
    action{'<', "up"},
    action{',', "pick up"},
    action{'q', "quaff"},
};

/// The index of a key in `small_actions`, or -1 if the key is not in the set.
constexpr int small_action_of(key code) {
  for (std::size_t i = 0; i < small_actions.size(); ++i)
    if (small_actions[i].code == code) return static_cast<int>(i);
  return -1;
}

/// Keys that leave the game or change its settings. `environment` sends escape instead.
constexpr bool is_forbidden(key code) {
  return code == 'S' || code == '!' || code == '#' || code == 'O' || code == keys::control('z') ||
         code == keys::meta('q') || code == keys::meta('?') || code == keys::control('c');
}

/// A key as a person writes it: "k", "^D", "M-p", "ESC".
inline std::string key_name(key code) {
  if (code == keys::escape) return "ESC";
  if (code == keys::enter) return "RET";
  if (code == ' ') return "SPC";
  if (code >= 0x80) return "M-" + key_name(static_cast<key>(code & 0x7f));
  if (code < 0x20) return std::string("^") + static_cast<char>(code + 0x40);
  return {static_cast<char>(code)};
}

}  // namespace nethack
