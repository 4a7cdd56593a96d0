// SPDX-License-Identifier: MIT
// The NetHack Learning Environment as the second backend, where its package is installed.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

#include "../../examples/common/temporary_folder.hpp"
#include "catch2.hpp"
#include "vector_environment.hpp"

namespace nle_test {

using Catch::Matchers::Contains;
using nethack::key;

namespace {

/// True where the Learning Environment is not installed.
bool skipped() {
  try {
    nethack::find_nle();
    return false;
  } catch (const std::runtime_error& error) {
    skip_test(std::string(error.what()) + ", or activate its virtual environment");
    return true;
  }
}

nethack::environment_options options() {
  nethack::environment_options chosen;
  chosen.source.backend = nethack::backend::nle;
  return chosen;
}

/// Plays random keys and returns a number that depends on everything that was seen.
std::uint64_t played(nethack::environment& game, std::uint64_t seed, int steps) {
  std::uint64_t hash = 14695981039346656037u;
  const auto mix = [&](std::uint64_t value) { hash = (hash ^ value) * 1099511628211u; };
  std::mt19937 random(static_cast<unsigned>(seed));
  game.reset(seed);
  for (int i = 0; i < steps && !game.done(); ++i) {
    const auto& keys = nethack::small_actions;
    const auto result = game.step(keys[random() % keys.size()].code);
    mix(static_cast<std::uint64_t>(result.reward));
    for (const auto c : game.view().chars) mix(c);
    for (const auto c : game.view().colors) mix(c);
    for (const char c : game.view().message) mix(static_cast<unsigned char>(c));
  }
  return hash;
}

}  // namespace

TEST_CASE("nle: a game begins as Debian's does: the same hero, the welcome, a command",
          "[nethack][nle]") {
  if (skipped()) return;
  nethack::environment game(options());
  const auto& seen = game.reset(7);
  CHECK_THAT(seen.message, Contains("welcome to NetHack!  You are a neutral male human Monk."));
  CHECK(seen.waiting == nethack::prompt::command);
  CHECK(seen.character(seen.hero_row, seen.hero_column) == '@');
  CHECK(seen.stats.depth == 1);
  CHECK(seen.stats.turn == 1);
  CHECK(seen.stats.hp == seen.stats.hp_max);
  CHECK(seen.stats.alignment == 0);
  CHECK_THAT(std::string(seen.line(22)), Contains("Agent the Candidate"));
}

TEST_CASE("nle: the same seed is the same game, whatever was played before", "[nethack][nle]") {
  if (skipped()) return;
  nethack::environment one(options()), other(options());
  const auto first = played(one, 5, 400);
  CHECK(played(other, 6, 300) != first);
  CHECK(played(other, 5, 400) == first);
  CHECK(played(one, 5, 400) == first);
}

TEST_CASE("nle: the numbers read from the screen are the game's own", "[nethack][nle]") {
  if (skipped()) return;
  nethack::environment game(options());
  std::mt19937 random(2);
  int compared = 0;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    game.reset(seed);
    for (int i = 0; i < 700 && !game.done(); ++i) {
      const auto& keys = nethack::small_actions;
      game.step(keys[random() % keys.size()].code);
      if (game.done() || game.view().waiting != nethack::prompt::command) continue;
      const auto read = game.blstats();
      const auto& own = game.game().full()->blstats;
      // strength, score and the dungeon's number: the screen shows them otherwise or not at all
      for (const std::size_t column : {0u,  1u,  3u,  4u,  5u,  6u,  7u,  8u,  10u, 11u, 12u,
                                       13u, 14u, 15u, 16u, 18u, 19u, 20u, 21u, 22u, 26u}) {
        CAPTURE(seed, i, column);
        REQUIRE(read[column] == own[column]);
      }
      ++compared;
    }
  }
  CHECK(compared > 500);
}

TEST_CASE("nle: what the screen does not show: glyphs and the inventory", "[nethack][nle]") {
  if (skipped()) return;
  nethack::environment game(options());
  game.reset(3);
  const auto* full = game.game().full();
  REQUIRE(full != nullptr);
  CHECK(full->inventory_letters[0] == 'a');
  const std::string first(reinterpret_cast<const char*>(full->inventory_texts.data()));
  CHECK_THAT(first, Contains("leather gloves"));
  const auto x = full->blstats[0], y = full->blstats[1];
  // glyphs 0 to 380 are monsters, of which the hero is one
  CHECK(full->glyphs[static_cast<std::size_t>(y * 79 + x)] >= 0);
  CHECK(full->glyphs[static_cast<std::size_t>(y * 79 + x)] < 381);
}

TEST_CASE("nle: games end, and others begin in their place", "[nethack][nle]") {
  if (skipped()) return;
  auto chosen = options();
  chosen.turn_cap = 100000;
  nethack::vector_environment games(4, 11, chosen);
  games.reset();
  std::mt19937 random(1);
  std::vector<key> keys(4);
  std::vector<nethack::step_result> results(4);
  int died = 0;
  double least = 0;
  for (int i = 0; i < 20000 && died < 2; ++i) {
    for (auto& code : keys)
      code = nethack::small_actions[random() % nethack::small_actions.size()].code;
    games.step(keys, results);
    for (const auto& ended : games.finished()) {
      died += ended.ending == nethack::ending::death;
      least = std::min(least, ended.score);
    }
  }
  CHECK(died >= 2);
  CHECK(least >= 0);
  CHECK(games.replaced() == 0);
}

TEST_CASE("nle: what it cannot do, and where it is not, is said", "[nethack][nle]") {
  const temporary_folder empty;
  CHECK_THROWS_WITH(nethack::find_nle(empty.path()),
                    Contains("no NetHack Learning Environment in") && Contains("pip install nle"));
  if (skipped()) return;
  nethack::environment game(options());
  game.reset(1);
  CHECK_THROWS_WITH(game.save(empty / "a.save"), Contains("could not be saved"));
  CHECK_THROWS_WITH(game.reset_from(empty / "a.save", 1), Contains("--backend debian"));
  // a file that is no library
  std::filesystem::create_directories(empty / "nle/nethackdir");
  std::filesystem::create_symlink(nethack::find_nle() / "nethackdir/nhdat",
                                  empty / "nle/nethackdir/nhdat");
  std::ofstream(empty / "nle/libnethack.so") << "text";
  auto other = options();
  other.source.nle = empty / "nle";
  nethack::environment wrong(other);
  CHECK_THROWS_WITH(wrong.reset(1), Contains("cannot load NetHack: "));
}

}  // namespace nle_test
