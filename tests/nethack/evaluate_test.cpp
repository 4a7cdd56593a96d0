// SPDX-License-Identifier: MIT
#include "../../examples/nethack/evaluate.hpp"

#include <cstdlib>
#include <filesystem>
#include <set>

#include "../../examples/common/temporary_folder.hpp"
#include "../../examples/nethack/save_states.hpp"
#include "../../examples/nethack/vector_environment.hpp"
#include "catch2.hpp"

namespace nethack_evaluate_test {

namespace {

bool game_is_missing() {
  if (std::filesystem::exists(nethack::default_package)) return false;
  skip_test("the game is missing (apt install nethack-console)");
  return true;
}

nethack::environment_options short_games(int turns) {
  nethack::environment_options options;
  options.turn_cap = turns;
  return options;
}

}  // namespace

TEST_CASE("evaluation seeds are apart from training seeds, and from one another",
          "[nethack][evaluate]") {
  std::set<std::uint64_t> seeds;
  for (const auto& game : nethack::new_games(1000)) {
    CHECK((game.seed & nethack::held_out_games) != 0);
    seeds.insert(game.seed);
  }
  CHECK(seeds.size() == 1000);
  for (std::uint64_t episode = 0; episode < 1000; ++episode)
    REQUIRE((nethack::episode_seed(1, episode % 7, episode) & nethack::held_out_games) == 0);
}

TEST_CASE("the same games come out the same, whatever is played beside them",
          "[nethack][evaluate]") {
  if (game_is_missing()) return;
  const auto starts = nethack::new_games(5);
  const auto play = [&](const std::vector<nethack::game_start>& list) {
    nethack::random_player who(nethack::places_for(list.size()));
    return nethack::play_games(list, who, short_games(60));
  };
  const auto all = play(starts);
  REQUIRE(all.at("new").size() == 5);
  CHECK(nethack::games_csv(all) == nethack::games_csv(play(starts)));
  const auto alone = play({starts[3]});
  CHECK(alone.at("new")[0].seed == all.at("new")[3].seed);
  CHECK(alone.at("new")[0].score == all.at("new")[3].score);
  CHECK(alone.at("new")[0].steps == all.at("new")[3].steps);
  for (const auto& game : all.at("new")) CHECK_FALSE(game.ending.empty());
}

TEST_CASE("the scripted player's arrivals are saved, restored, and played on",
          "[nethack][evaluate]") {
  if (game_is_missing()) return;
  const temporary_folder folder;
  const auto made = nethack::make_saved_games(folder.path() / "depth2", 2, 2, 1);
  REQUIRE(made.saved.size() == 2);
  for (const auto& game : made.saved) {
    CHECK(game.depth == 2);
    CHECK(std::filesystem::exists(nethack::memory_file(game.file)));
  }
  const auto starts = nethack::saved_games(folder.path() / "depth2/", 2);
  REQUIRE(starts.size() == 4);
  CHECK(starts[0].name == "depth2/000");
  CHECK(starts[0].seed != starts[2].seed);  // the same save with other dice
  nethack::scripted_player who(nethack::places_for(starts.size()));
  const auto played = nethack::play_games(starts, who, short_games(50));
  REQUIRE(played.at("depth2").size() == 4);
  for (const auto& game : played.at("depth2")) {
    CHECK(game.depth >= 2);   // it began there, not at the start of the dungeon
    CHECK(game.turns <= 60);  // counted from the save
  }
}

TEST_CASE("a folder that is missing or holds no saved games says so", "[nethack][evaluate]") {
  const temporary_folder folder;
  CHECK_THROWS_WITH(nethack::saved_games(folder.path() / "none"), ContainsSubstring("save-states"));
  CHECK_THROWS_WITH(nethack::saved_games(folder.path()), ContainsSubstring("no saved games"));
  std::ofstream(folder / "1.save") << "a";
  CHECK(nethack::saved_games(folder.path()).front().group() == folder.path().filename().string());
}

}  // namespace nethack_evaluate_test
