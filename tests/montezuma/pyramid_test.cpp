// SPDX-License-Identifier: MIT
// The world: its rules by fixed numbers, its maps by search, its states as values.
#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <vector>

#include "../nethack/catch2.hpp"
#include "drawing.hpp"
#include "pyramid.hpp"
#include "search.hpp"

namespace montezuma_pyramid_test {

using montezuma::feature_layout;
using montezuma::item;
using montezuma::pyramid;

namespace {

pyramid world(const std::string& map = "standard", std::uint64_t seed = 1) {
  return pyramid(seed, {.map = map, .sticky = 0, .step_cap = 1'000'000});
}

/// Somebody in the middle of a room, with a skull (where there is one) as far away as it goes.
pyramid at(pyramid game, int room, int x, int y) {
  game.reset(room);
  auto state = game.now();
  state.x = static_cast<std::int8_t>(x);
  state.y = static_cast<std::int8_t>(y);
  game.set(state);
  return game;
}

pyramid with_skull(pyramid game, int x, int way) {
  auto state = game.now();
  state.skull_x[static_cast<std::size_t>(state.room)] = static_cast<std::int8_t>(x);
  state.skull_way[static_cast<std::size_t>(state.room)] = static_cast<std::int8_t>(way);
  game.set(state);
  return game;
}

/// L, R, U, D, and . for waiting; returns what it all paid.
float go(pyramid& game, const std::string& moves) {
  float sum = 0;
  for (const char move : moves)
    sum += game.step(static_cast<int>(std::string(".LRUD").find(move))).reward;
  return sum;
}

std::array<int, 3> where(const pyramid& game) {
  return {game.now().room, game.now().x, game.now().y};
}
using place = std::array<int, 3>;

std::vector<int> ones(const pyramid& game) {
  std::array<float, feature_layout::count> values;
  values.fill(7);  // whatever was there before is overwritten
  game.observe(values.data());
  std::vector<int> set;
  for (std::size_t i = 0; i < values.size(); ++i) {
    REQUIRE((values[i] == 0.0f || values[i] == 1.0f));
    if (values[i] == 1.0f) set.push_back(static_cast<int>(i));
  }
  return set;
}

struct no_emulator {
  using value_type = double;
};
static_assert(!montezuma::emulator<no_emulator> && !montezuma::emulator<int>);

}  // namespace

TEST_CASE("neighboring rooms agree on where their passages are", "[montezuma][pyramid]") {
  for (const auto* map : montezuma::all_maps) {
    const montezuma::level made(*map);
    for (int r = 0; r < montezuma::room_count; ++r) {
      const auto& next = montezuma::adjacency[static_cast<std::size_t>(r)];
      CAPTURE(map->name, r);
      if (next.right >= 0) {
        CHECK(montezuma::adjacency[static_cast<std::size_t>(next.right)].left == r);
        for (int y = 0; y < montezuma::room_height; ++y)
          CHECK(made.at(r, montezuma::room_width - 1, y) == made.at(next.right, 0, y));
      }
      if (next.down >= 0) {
        CHECK(montezuma::adjacency[static_cast<std::size_t>(next.down)].up == r);
        for (int x = 0; x < montezuma::room_width; ++x)
          CHECK(made.at(r, x, montezuma::room_height - 1) == made.at(next.down, x, 0));
      }
    }
  }
}

TEST_CASE("every map can be solved, from the first room and from room 7", "[montezuma][pyramid]") {
  for (const auto* map : montezuma::all_maps)
    for (const int start : {1, 7}) {
      auto game = world(std::string(map->name));
      game.reset(start);
      const auto found = montezuma_search::explore(game);
      CAPTURE(map->name, start, found.states);
      for (const auto* what : {"red key", "red door", "room 7", "blue key",
                               "out of room 7 with the blue key", "blue door", "coin", "treasure",
                               "everything", "room 0", "room 3", "room 4", "room 5", "death"})
        CHECK(found.first.count(what) == 1);
      // Half of an episode is enough for the shortest way to everything, or nobody could learn it
      // with sticky actions.
      CHECK(found.first.at("everything") <= map->step_cap * 6 / 10);
    }
}

TEST_CASE("the shortest ways are as long as they are by hand", "[montezuma][pyramid]") {
  const auto found = montezuma_search::explore(world()).first;
  CHECK(found.at("red key") == 4 + 2 + 8);        // along, down the ladder, back underneath
  CHECK(found.at("red door") == 14 + 8 + 2 + 1);  // the same way, and one more
  CHECK(found.at("room 6") == 25 + 1 + 6 + 3);    // room 2, its ladder
  // off the ladder two cells up, drifting one to the side
  CHECK(found.at("room 7") == 35 + 2 + 2 + 2 + 1);
}

TEST_CASE("a fall of three cells is survived, one of four kills", "[montezuma][pyramid]") {
  auto three = at(world(), 1, 5, 3), four = at(world(), 1, 5, 2);
  go(three, "...");
  CHECK(where(three) == place{1, 5, 6});
  CHECK_FALSE(three.dead());
  go(four, "...");
  CHECK_FALSE(four.dead());
  go(four, ".");
  CHECK(where(four) == place{1, 5, 6});
  CHECK(four.dead());
  CHECK(four.step(0).ended);
  // What was survived does not count in the next fall.
  auto again = at(world(), 1, 5, 4);
  go(again, "..");
  CHECK(again.now().fallen == 0);
}

TEST_CASE("who falls drifts, unless a wall is beside the next cell", "[montezuma][pyramid]") {
  auto game = at(world(), 1, 5, 4);
  go(game, "RR");
  CHECK(where(game) == place{1, 7, 6});
  auto shaft = at(world(), 7, 9, 5);
  go(shaft, "L");
  CHECK(where(shaft) == place{7, 9, 6});
}

TEST_CASE("the shaft in room 7 is deadly", "[montezuma][pyramid]") {
  auto game = at(world(), 7, 8, 3);
  go(game, "R....");
  CHECK(where(game) == place{7, 9, 7});
  CHECK_FALSE(game.dead());
  go(game, ".");
  CHECK(game.dead());
  CHECK_FALSE(game.succeeded());
}

TEST_CASE("ladders are climbed, walls are not", "[montezuma][pyramid]") {
  auto game = at(world(), 1, 9, 8);
  go(game, "UU");
  CHECK(where(game) == place{1, 9, 6});
  go(game, "DD");
  CHECK(where(game) == place{1, 9, 8});
  go(game, "DR");  // the ground and a wall
  CHECK(where(game) == place{1, 9, 8});
  auto up = at(world(), 6, 6, 1);
  go(up, "UU");
  CHECK(where(up) == place{2, 6, 8});
  go(up, "D");
  CHECK(where(up) == place{6, 6, 0});
}

TEST_CASE("a jump rises a cell, carries one sideways, and comes down", "[montezuma][pyramid]") {
  auto game = at(world(), 1, 3, 6);
  go(game, "U");
  CHECK(where(game) == place{1, 3, 5});
  go(game, "R");
  CHECK(where(game) == place{1, 4, 5});
  go(game, "R");
  CHECK(where(game) == place{1, 5, 6});
  auto straight = at(world(), 1, 3, 6);
  go(straight, "UU");
  CHECK(where(straight) == place{1, 3, 5});
  go(straight, "U");
  CHECK(where(straight) == place{1, 3, 6});
  auto ceiling = at(world(), 1, 3, 8);
  go(ceiling, "U");
  CHECK(where(ceiling) == place{1, 3, 8});
}

TEST_CASE("a gap is jumped over or fallen into", "[montezuma][pyramid]") {
  auto jump = at(world("deep"), 2, 3, 2), walk = jump;
  go(jump, "URR");
  CHECK(where(jump) == place{2, 5, 2});
  CHECK_FALSE(jump.dead());
  go(walk, "RRRRRR");
  CHECK(walk.dead());
  auto fire = at(world("deep"), 4, 3, 3), over = fire;
  go(fire, "L");
  CHECK(fire.dead());
  go(over, "ULL");
  CHECK(where(over) == place{4, 1, 3});
  CHECK_FALSE(over.dead());
}

TEST_CASE("a skull goes to and fro, and turns where its patrol ends", "[montezuma][pyramid]") {
  auto game = with_skull(at(world(), 7, 1, 3), 5, 1);
  std::vector<int> places;
  for (int i = 0; i < 10; ++i) {
    go(game, ".");
    places.push_back(game.now().skull_x[7]);
  }
  CHECK(places == std::vector<int>{6, 6, 5, 4, 3, 3, 4, 5, 6, 6});
  auto elsewhere = with_skull(at(world(), 6, 6, 3), 0, 1);
  const auto before = elsewhere.now().skull_x;
  go(elsewhere, "..");
  CHECK(elsewhere.now().skull_x == before);
}

TEST_CASE("a skull kills whom it touches, and is jumped over", "[montezuma][pyramid]") {
  auto into = with_skull(at(world(), 7, 2, 6), 3, -1);
  go(into, "R");
  CHECK(into.dead());
  auto past = with_skull(at(world(), 7, 3, 6), 4, -1);  // they would change places
  go(past, "R");
  CHECK(past.dead());
  auto by_it = with_skull(at(world(), 7, 3, 6), 5, -1);
  go(by_it, ".");
  CHECK_FALSE(by_it.dead());
  go(by_it, ".");
  CHECK(by_it.dead());
  auto apart = with_skull(at(world(), 7, 2, 6), 6, 1);
  go(apart, "R");
  CHECK_FALSE(apart.dead());
  // Up as it comes, over it while it passes underneath, down behind it.
  auto over = with_skull(at(world(), 7, 3, 6), 5, -1);
  go(over, "URR");
  CHECK_FALSE(over.dead());
  CHECK(where(over) == place{7, 5, 6});
  CHECK(over.now().skull_x[7] == 3);
}

TEST_CASE("a door wants its key, takes it, and stays open on both sides", "[montezuma][pyramid]") {
  auto game = at(world(), 1, 9, 6);
  CHECK(go(game, "R") == 0.0f);
  CHECK(where(game) == place{1, 9, 6});
  CHECK(go(game, "DDLLLLLLL") == 0.0f);
  CHECK(go(game, "L") == 1.0f);
  CHECK(game.holds(item::red_key));
  CHECK(go(game, "LR") == 0.0f);  // it is gone
  go(game, "RRRRRRRUU");
  CHECK(go(game, "R") == 1.0f);
  CHECK(where(game) == place{1, 10, 6});
  CHECK_FALSE(game.holds(item::red_key));
  CHECK(game.opened(item::red_key));
  CHECK(go(game, "RLLR") == 0.0f);
  CHECK(where(game) == place{1, 10, 6});
  // The other door has another key.
  auto blue = at(world(), 6, 1, 3);
  CHECK(go(blue, "L") == 0.0f);
  CHECK(where(blue) == place{6, 1, 3});
}

TEST_CASE("the treasure pays three and ends the episode, the limit of steps ends it unpaid",
          "[montezuma][pyramid]") {
  auto game = with_skull(at(world(), 3, 2, 3), 8, 1);
  const auto result = game.step(static_cast<int>(montezuma::move::left));
  CHECK(result.reward == 3.0f);
  CHECK(result.ended);
  CHECK_FALSE(result.truncated);
  CHECK_FALSE(game.dead());
  pyramid limited(1, {.sticky = 0, .step_cap = 3});
  CHECK_FALSE(limited.step(0).ended);
  CHECK_FALSE(limited.step(0).ended);
  const auto last = limited.step(0);
  CHECK((last.ended && last.truncated));
  CHECK_FALSE(limited.dead());
}

TEST_CASE("success in a room is a reward, an item, or another way out", "[montezuma][pyramid]") {
  auto on = at(world(), 6, 10, 3), back = at(world(), 6, 6, 0);
  go(on, "R");
  CHECK(on.room() == 7);
  CHECK(on.succeeded());
  go(back, "U");
  CHECK(back.room() == 2);
  CHECK_FALSE(back.succeeded());
  go(back, "D");  // came in again the same way
  CHECK_FALSE(back.succeeded());
  auto key = at(world(), 7, 3, 8), out = at(world(), 7, 0, 3);
  go(key, "L");
  CHECK(key.succeeded());
  go(out, "L");
  CHECK(out.room() == 6);
  CHECK_FALSE(out.succeeded());
  auto elsewhere = at(world(), 7, 0, 3);  // what is done in other rooms does not count
  elsewhere.step(static_cast<int>(montezuma::move::left));
  auto state = elsewhere.now();
  state.held = 2;
  state.x = 1;
  state.y = 3;
  elsewhere.set(state);
  CHECK(go(elsewhere, "L") == 1.0f);
  CHECK_FALSE(elsewhere.succeeded());

  montezuma::room_success attempt;
  attempt.begin(4, 5);
  attempt.step(4, 5, false);
  CHECK(attempt.succeeded == 0);
  attempt.step(5, 4, false);
  attempt.step(4, 3, false);
  CHECK(attempt.succeeded == 1);
}

TEST_CASE("sticky actions repeat the last one as often as asked", "[montezuma][pyramid]") {
  pyramid always(1, {.sticky = 1});
  go(always, "RRR");
  CHECK(where(always) == place{1, 5, 6});
  // Asked for one and then the other, what is done differs where a repeat follows a step that did
  // as asked: q = p (1 − q).
  pyramid game(3, {.sticky = 0.25, .step_cap = 1'000'000});
  constexpr int steps = 40'000;
  int differs = 0;
  for (int i = 0; i < steps; ++i) {
    const int asked = 1 + i % 2;
    game.step(asked);
    differs += game.now().last_action != asked;
  }
  CHECK(differs / static_cast<double>(steps) == Approx(0.25 / 1.25).margin(0.01));
  CHECK_THROWS_WITH(pyramid(1, {.sticky = 1.5}), ContainsSubstring("[0, 1]"));
}

TEST_CASE("a copy and a restored save go on bit for bit", "[montezuma][pyramid]") {
  for (const auto* map : montezuma::all_maps) {
    const montezuma::pyramid_options options{.map = std::string(map->name)};
    pyramid game(11, options), restored(99, options);
    std::uint64_t dice = 5;
    const auto random_action = [&] {
      dice = dice * 6364136223846793005u + 1442695040888963407u;
      return static_cast<int>((dice >> 33) % 5);
    };
    for (int i = 0; i < 500; ++i)
      if (game.step(random_action()).ended) game.reset(i % 2 == 0 ? 1 : 7);
    pyramid copy = game;
    CHECK_FALSE(restored == game);
    restored.restore(game.save());
    CHECK(restored == game);
    int rewards = 0;
    for (int i = 0; i < 5000; ++i) {
      const int action = random_action();
      const auto one = game.step(action), two = copy.step(action), three = restored.step(action);
      REQUIRE((one.reward == two.reward && one.reward == three.reward && one.ended == two.ended &&
               one.ended == three.ended));
      REQUIRE((game.now() == copy.now() && game.now() == restored.now()));
      rewards += one.reward > 0;
      if (one.ended)
        for (auto* each : {&game, &copy, &restored}) each->reset(i % 8);
    }
    CHECK(rewards > 0);
    CHECK(ones(game) == ones(restored));
    pyramid other(12, options);
    CHECK_FALSE(other == pyramid(11, options));
    CHECK_THROWS_WITH(other.restore("nonsense"), ContainsSubstring("not a saved game") &&
                                                     ContainsSubstring(std::string(map->name)));
  }
  CHECK_THROWS(pyramid(1, {.map = "deep"}).restore(pyramid(1).save()));
}

TEST_CASE("a save with something where its map has no place is refused, and changes nothing",
          "[montezuma][pyramid]") {
  const pyramid good(1);
  const std::vector<std::function<void(montezuma::pyramid_state&)>> bad{
      [](auto& s) { s.room = 8; },
      [](auto& s) { s.room = -1; },
      [](auto& s) { s.x = 11; },
      [](auto& s) { s.x = -1; },
      [](auto& s) { s.y = 9; },
      [](auto& s) { s.y = -128; },
      [](auto& s) { s.last_action = 5; },
      [](auto& s) { s.last_action = -1; },
      [](auto& s) { s.skull_x[7] = 11; },
      [](auto& s) { s.skull_way[3] = 100; },
      [](auto& s) { s.success.room = 8; },
      [](auto& s) { s.success.came_from = -2; },
      [](auto& s) { s.held = 4; },
      [](auto& s) { s.opened = 255; },
      [](auto& s) { s.steps = -1; },
      [](auto& s) { s.fallen = -1; }};
  for (std::size_t i = 0; i < bad.size(); ++i) {
    INFO(i);
    auto state = good.now();
    bad[i](state);
    auto other = good;
    other.set(state);
    auto restored = good;
    CHECK_THROWS_WITH(restored.restore(other.save()), ContainsSubstring("at a place"));
    CHECK(restored == good);
  }
}

TEST_CASE("an observation says what is around the hero", "[montezuma][pyramid]") {
  // In room 1 at column 5, row 6: the floor below, nothing else in sight.
  CHECK(ones(at(world(), 1, 5, 6)) == std::vector<int>{5, 11 + 6, 20 + 1, 107, 112, 117, 122, 127});
  // Two cells from the key, on the ground: the ceiling, the wall, the key two cells to the left.
  const auto near_key = ones(at(world(), 1, 3, 8));
  const auto sees = [](const std::vector<int>& all, int what) {
    return std::count(all.begin(), all.end(), what) == 1;
  };
  CHECK(sees(near_key, feature_layout::cell_at(-2, 0, feature_layout::thing)));
  CHECK(sees(near_key, feature_layout::cell_at(0, -1, feature_layout::solid)));
  auto taken = at(world(), 1, 2, 8);
  go(taken, "LRR");
  const auto without_key = ones(taken);
  CHECK_FALSE(sees(without_key, feature_layout::cell_at(-2, 0, feature_layout::thing)));
  CHECK(sees(without_key, feature_layout::key));
  // 32 + (row · 5 + column of the view) · 5 + kind: a thing at (−2, 0), a door at (1, 0), a skull
  // at (2, 0), a ladder at (−1, 0).
  CHECK(sees(near_key, 32 + (2 * 5 + 0) * 5 + 3));
  CHECK(sees(ones(at(world(), 1, 9, 6)), 32 + (2 * 5 + 3) * 5 + 4));
  CHECK(sees(ones(with_skull(at(world(), 7, 2, 6), 4, 1)), 32 + (2 * 5 + 4) * 5 + 2));
  CHECK(sees(ones(at(world(), 7, 2, 6)), 32 + (2 * 5 + 1) * 5 + 1));
  // A closed door, an open one; a skull and the way it goes; fire and the ladder.
  CHECK(sees(ones(at(world(), 1, 9, 6)), feature_layout::cell_at(1, 0, feature_layout::door)));
  CHECK_FALSE(
      sees(ones(at(world(), 2, 1, 6)), feature_layout::cell_at(-1, 0, feature_layout::door)));
  const auto skull = ones(with_skull(at(world(), 7, 2, 6), 4, 1));
  CHECK(sees(skull, feature_layout::skull + 1));
  CHECK_FALSE(sees(skull, feature_layout::skull));
  CHECK(sees(skull, feature_layout::cell_at(2, 0, feature_layout::deadly)));
  CHECK(sees(skull, feature_layout::cell_at(-1, 0, feature_layout::ladder)));
  CHECK(sees(ones(at(world("deep"), 4, 3, 3)),
             feature_layout::cell_at(-1, 0, feature_layout::deadly)));
}

TEST_CASE("places are told apart by position, keys and doors", "[montezuma][pyramid]") {
  auto game = at(world(), 1, 2, 8);
  const auto before = game.place_key();
  go(game, "LR");
  CHECK(where(game) == place{1, 2, 8});
  CHECK(game.place_key() != before);
  auto same = at(world("standard", 77), 1, 2, 8);
  CHECK(same.place_key() == before);
  CHECK(at(world(), 1, 3, 8).place_key() != before);
}

TEST_CASE("the drawing shows the rooms where they lie", "[montezuma][pyramid]") {
  const auto text = montezuma::draw(with_skull(at(world(), 7, 1, 3), 5, 1), false);
  REQUIRE(std::count(text.begin(), text.end(), '\n') == 2 * montezuma::room_height);
  CHECK_THAT(text, ContainsSubstring("@") && ContainsSubstring("S") && ContainsSubstring("$") &&
                       ContainsSubstring("o"));
  CHECK(text.find('\033') == std::string::npos);
  CHECK(montezuma::draw(world(), true).find("\033[93m@") != std::string::npos);
  CHECK(text.substr(0, 11) == std::string(11, ' '));  // nothing lies above room 3
}

TEST_CASE("what is no map is refused with its place", "[montezuma][pyramid]") {
  auto broken = montezuma::standard_map;
  broken.rooms[4].rows[2] = "#..Q......#";
  CHECK_THROWS_WITH(montezuma::level(broken), ContainsSubstring("room 4") &&
                                                  ContainsSubstring("row 2") &&
                                                  ContainsSubstring("Q"));
  broken = montezuma::standard_map;
  broken.rooms[1].rows[0] = "###";
  CHECK_THROWS_WITH(montezuma::level(broken),
                    ContainsSubstring("room 1") && ContainsSubstring("3 cells"));
  CHECK_THROWS_WITH(pyramid(1, {.map = "no such"}),
                    ContainsSubstring("no such") && ContainsSubstring("standard"));
  CHECK_THROWS_WITH(world().reset(8), ContainsSubstring("8"));
}

}  // namespace montezuma_pyramid_test
