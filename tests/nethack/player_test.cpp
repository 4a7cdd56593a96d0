// SPDX-License-Identifier: MIT
// The scripted player: what it does on small made-up screens, and that it plays the real game
// decently.
#include "catch2.hpp"

#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

#include "environment.hpp"
#include "player.hpp"

namespace nethack_player_test {

using nethack::observation;
using nethack::player;

namespace {

bool game_is_missing() {
  if (access((nethack::default_package + "/nethack-console").c_str(), R_OK) == 0) return false;
  skip_test("nethack-console is not installed");
  return true;
}

/// A level drawn from row 5, column 10 on, with the hero at the '@'; healthy and fed at turn 500
/// unless changed.
observation drawn(const std::vector<std::string>& lines, std::string message = "") {
  observation seen;
  seen.chars.fill(' ');
  seen.colors.fill(nethack::color::gray);
  for (std::size_t row = 0; row < lines.size(); ++row)
    for (std::size_t column = 0; column < lines[row].size(); ++column) {
      const std::size_t cell = (row + 5) * nethack::columns + column + 10;
      const char shown = lines[row][column];
      seen.chars[cell] = static_cast<std::uint8_t>(shown);
      if (shown == '+') seen.colors[cell] = nethack::color::brown;
      if (shown == 'F') seen.colors[cell] = nethack::color::green;
      if (shown == 'e') seen.colors[cell] = nethack::color::blue;
      if (shown == 'c') seen.colors[cell] = nethack::color::yellow;
      if (shown == 'd') seen.colors[cell] = nethack::color::brown;
      if (shown == 'f') seen.colors[cell] = nethack::color::white | 16;
      if (shown == '@') {
        seen.hero_row = seen.cursor_row = static_cast<int>(row + 5);
        seen.hero_column = seen.cursor_column = static_cast<int>(column + 10);
        seen.colors[cell] = nethack::color::white;
      }
    }
  seen.message = std::move(message);
  seen.stats.hp = seen.stats.hp_max = 30;
  seen.stats.depth = 2;
  seen.stats.level = 3;
  seen.stats.turn = 500;
  return seen;
}

char key_for(const observation& seen) { return static_cast<char>(player(1).next(seen)); }

}  // namespace

TEST_CASE(
    "the player attacks what can be fought and leaves alone what harms the one who touches it",
    "[player]") {
  CHECK(key_for(drawn({"-----", "|...|", "|.@d|", "|..>|", "-----"})) == 'l');
  for (const char harmful : {'F', 'e', 'c'})
    CHECK(key_for(drawn(
              {"-----", "|...|", std::string("|.@") + harmful + "|", "|>..|", "-----"})) == 'b');
  CHECK(key_for(drawn({"-----", "|...|", "|.@f|", "|>..|", "-----"})) == 'b');  // a pet
}

TEST_CASE("the player walks to the stairs and down, around what is in the way", "[player]") {
  CHECK(key_for(drawn({"-----", "|@..|", "|...|", "|..>|", "-----"})) == 'n');
  CHECK(key_for(drawn({"-----", "|@|.|", "|.|.|", "|..>|", "-----"})) == 'j');

  player hero(1);
  hero.next(drawn({"-----", "|...|", "|.@>|", "-----"}));
  auto arrived = drawn({"-----", "|...|", "|..@|", "-----"}, "There is a staircase down here.");
  CHECK(hero.next(arrived) == '>');
}

TEST_CASE("the player prays when it is about to die, and not again at once", "[player]") {
  auto dying = drawn({"-----", "|...|", "|.@d|", "-----"});
  dying.stats.hp = 3;
  player hero(1);
  CHECK(hero.next(dying) == nethack::keys::pray);
  auto asked = dying;
  asked.waiting = nethack::prompt::question;
  asked.message = "Are you sure you want to pray? [yn] (n)";
  CHECK(hero.next(asked) == 'y');
  dying.stats.turn += 3;
  CHECK(hero.next(dying) != nethack::keys::pray);
  dying.stats.turn = 50;
  CHECK(player(1).next(dying) != nethack::keys::pray);  // too early to be heard
}

TEST_CASE("the player eats when hungry and answers with a letter it is offered", "[player]") {
  auto hungry = drawn({"-----", "|...|", "|.@.|", "-----"});
  hungry.stats.hunger = 2;
  player hero(1);
  REQUIRE(hero.next(hungry) == 'e');
  hungry.waiting = nethack::prompt::question;
  hungry.message = "What do you want to eat? [fghi or ?*]";
  CHECK(hero.next(hungry) == 'f');
}

TEST_CASE("the player does not attack the peaceful", "[player]") {
  player hero(1);
  auto seen = drawn({"-----", "|...|", "|.@d|", "|>..|", "-----"});
  REQUIRE(hero.next(seen) == 'l');
  auto asked = seen;
  asked.waiting = nethack::prompt::question;
  asked.message = "Really attack the peaceful jackal?";
  CHECK(hero.next(asked) == nethack::keys::escape);
  CHECK(hero.next(seen) == 'b');
}

TEST_CASE("the player opens closed doors by walking and locked ones by kicking", "[player]") {
  player hero(1);
  const auto closed = drawn({"-----", "|...|", "|..@+", "|...|", "-----"});
  REQUIRE(hero.next(closed) == 'l');
  auto locked = closed;
  locked.message = "This door is locked.";
  REQUIRE(hero.next(locked) == nethack::keys::kick);
  auto asked = locked;
  asked.waiting = nethack::prompt::question;
  asked.message = "In what direction?";
  CHECK(hero.next(asked) == 'l');
}

TEST_CASE("the player is a function of what it has seen", "[player]") {
  const auto seen = drawn({"-----", "|...|", "|.@.|", "|...|", "-----"});
  player once(5), again(9);
  again.next(drawn({"---", "|@|", "---"}));
  again.reset(5);
  for (int i = 0; i < 50; ++i) REQUIRE(once.next(seen) == again.next(seen));
}

TEST_CASE("the player plays the real game far better than chance, with keys of the small set",
          "[player][game]") {
  if (game_is_missing()) return;
  constexpr int games = 30;  // a random player has 15 points, this one about 1600
  nethack::environment game;
  player hero(0);
  double sum = 0;
  for (int i = 0; i < games; ++i) {
    game.reset(static_cast<std::uint64_t>(500 + i));
    hero.reset(static_cast<std::uint64_t>(i));
    while (!game.done()) {
      const auto pressed = hero.next(game.view());
      REQUIRE(nethack::small_action_of(pressed) >= 0);
      game.step(pressed);
    }
    sum += game.score();
  }
  CHECK(sum / games > 800);
}

}  // namespace nethack_player_test
