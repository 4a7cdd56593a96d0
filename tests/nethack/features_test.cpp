// SPDX-License-Identifier: MIT
// The bit-parallel features against the same written out cell by cell.
#include "../support.hpp"

#include "features.hpp"

#include <cstring>
#include <fstream>
#include <limits>
#include <queue>
#include <random>
#include <set>
#include <sstream>

namespace nethack_features_test {

namespace {

using nethack::memory;
using nethack::observation;

/// Rooms, corridors and clutter; more of a mess than the game ever shows.
observation random_screen(std::mt19937& dice) {
  static const std::string kinds = "          ......###|-+>$<?@dF^}`%{";
  observation seen;
  seen.chars.fill(' ');
  for (int row = 1; row <= 21; ++row)
    for (int column = 0; column < 80; ++column) {
      const auto at = static_cast<std::size_t>(row * 80 + column);
      seen.chars[at] = static_cast<std::uint8_t>(kinds[dice() % kinds.size()]);
      seen.colors[at] = static_cast<std::uint8_t>(
          seen.chars[at] == ' ' ? 0 : std::array{7, 3, 15, 4}[dice() % 4]);
    }
  seen.hero_row = 1 + static_cast<int>(dice() % 21);
  seen.hero_column = static_cast<int>(dice() % 80);
  seen.chars[static_cast<std::size_t>(seen.hero_row * 80 + seen.hero_column)] = '@';
  seen.stats.depth = 2;
  seen.stats.hp = seen.stats.hp_max = 20;
  seen.stats.turn = 100;
  return seen;
}

bool on_map(int row, int column) { return row >= 1 && row <= 21 && column >= 0 && column < 80; }
bool is_door(const observation& seen, int row, int column) {
  const char c = static_cast<char>(seen.character(row, column));
  return (c == '+' || c == '|' || c == '-') && (seen.color(row, column) & 15) == 3;
}
bool is_wall(const observation& seen, int row, int column) {
  const char c = static_cast<char>(seen.character(row, column));
  return (c == '+' || c == '|' || c == '-') && !is_door(seen, row, column);
}

bool slow_unexplored(const observation& seen, const memory& mind, int row, int column) {
  const char c = static_cast<char>(seen.character(row, column));
  if (mind.visits(row, column) > 0 || (row == seen.hero_row && column == seen.hero_column))
    return false;
  if (is_door(seen, row, column)) return true;
  if (is_wall(seen, row, column) || std::strchr(".#<>$?!/=\"([)*%_{@\\:'", c) == nullptr)
    return false;
  for (std::size_t d = 0; d < 8; ++d) {
    const int y = row + nethack::direction_steps[d].first,
              x = column + nethack::direction_steps[d].second;
    if (y >= 2 && y <= 20 && x >= 1 && x <= 78 && seen.character(y, x) == ' ' &&
        (d < 4 || c == '#'))
      return true;
  }
  return false;
}

/// Distances from the hero by a queue; -1 where nobody gets.
std::array<int, 24 * 80> slow_distances(const observation& seen) {
  std::array<int, 24 * 80> distance;
  distance.fill(-1);
  std::queue<std::pair<int, int>> queue;
  queue.push({seen.hero_row, seen.hero_column});
  distance[static_cast<std::size_t>(seen.hero_row * 80 + seen.hero_column)] = 0;
  while (!queue.empty()) {
    const auto [row, column] = queue.front();
    queue.pop();
    for (std::size_t d = 0; d < 8; ++d) {
      const int y = row + nethack::direction_steps[d].first,
                x = column + nethack::direction_steps[d].second;
      if (!on_map(y, x) || distance[static_cast<std::size_t>(y * 80 + x)] >= 0) continue;
      const char c = static_cast<char>(seen.character(y, x));
      if (c == ' ' || c == '^' || c == '}' || c == '`' || is_wall(seen, y, x)) continue;
      if (d >= 4 && (is_door(seen, row, column) || is_door(seen, y, x))) continue;
      distance[static_cast<std::size_t>(y * 80 + x)] =
          distance[static_cast<std::size_t>(row * 80 + column)] + 1;
      queue.push({y, x});
    }
  }
  return distance;
}

}  // namespace

TEST_CASE("unexplored cells and the compass agree with a cell by cell search") {
  std::mt19937 dice(1);
  int found = 0;
  for (int round = 0; round < 300; ++round) {
    const auto seen = random_screen(dice);
    memory mind;
    mind.observe(seen);
    auto unexplored = nethack::unexplored_cells(mind.map(), mind.visited());
    unexplored[static_cast<std::size_t>(seen.hero_row)] &= ~nethack::bit(seen.hero_column);
    const auto distance = slow_distances(seen);
    std::array<int, 3> nearest{1000, 1000, 1000};
    for (int row = 1; row <= 21; ++row)
      for (int column = 0; column < 80; ++column) {
        const bool expected = slow_unexplored(seen, mind, row, column);
        REQUIRE(nethack::has(unexplored[static_cast<std::size_t>(row)], column) == expected);
        const int steps = distance[static_cast<std::size_t>(row * 80 + column)];
        if (steps < 1) continue;
        const char c = static_cast<char>(seen.character(row, column));
        if (c == '>') nearest[0] = std::min(nearest[0], steps);
        if (expected) nearest[1] = std::min(nearest[1], steps);
        if (c == '$') nearest[2] = std::min(nearest[2], steps);
      }
    const auto compass =
        nethack::find_bearings(mind.map(), seen.hero_row, seen.hero_column, false, unexplored);
    const std::array<nethack::bearing, 3> bearings{compass.stairs, compass.unexplored,
                                                   compass.gold};
    for (std::size_t i = 0; i < 3; ++i) {
      if (nearest[i] >= 96) {
        REQUIRE(bearings[i].direction == nethack::no_direction);
        continue;
      }
      REQUIRE(bearings[i].distance == nearest[i]);
      REQUIRE(bearings[i].direction < 8);
      const auto step = nethack::direction_steps[static_cast<std::size_t>(bearings[i].direction)];
      REQUIRE(distance[static_cast<std::size_t>((seen.hero_row + step.first) * 80 +
                                                seen.hero_column + step.second)] == 1);
      ++found;
    }
  }
  CHECK(found > 300);
}

TEST_CASE("the far map has a row for each kind of cell in each bin, and the crop is what is around "
          "the hero") {
  std::mt19937 dice(2);
  for (int round = 0; round < 200; ++round) {
    auto seen = random_screen(dice);
    // few enough cells that no row is left out
    for (std::size_t at = 80; at < 22 * 80; ++at)
      if (dice() % 30 != 0 && at != static_cast<std::size_t>(seen.hero_row * 80 + seen.hero_column))
        seen.chars[at] = ' ', seen.colors[at] = 0;
    memory mind;
    mind.observe(seen);
    const auto encoded = nethack::encode(seen, mind);
    REQUIRE(encoded.row_count < nethack::max_rows);
    std::set<int> expected, found;
    for (int row = 1; row <= 21; ++row)
      for (int column = 0; column < 80; ++column) {
        const int down = row - seen.hero_row, right = column - seen.hero_column;
        if (std::abs(down) <= 5 && std::abs(right) <= 5) {
          const auto token = encoded.tokens[static_cast<std::size_t>((down + 5) * 11 + right + 5)];
          if (down != 0 || right != 0)
            REQUIRE(token ==
                    nethack::cell_of(seen.character(row, column), seen.color(row, column)).token);
          continue;
        }
        const char c = static_cast<char>(seen.character(row, column));
        if (c == ' ') continue;
        const int bin = nethack::table::far_map + (((down + 22) / 3) * 27 + (right + 81) / 6) * 8;
        if (slow_unexplored(seen, mind, row, column)) expected.insert(bin + 7);
        if (is_wall(seen, row, column)) {
          if (c == '+') expected.insert(bin + 5);
          continue;
        }
        expected.insert(bin + (c == '.'                        ? 0
                               : c == '#'                      ? 1
                               : is_door(seen, row, column)    ? 3
                               : c == '>'                      ? 4
                               : c == '<'                      ? 2
                               : (std::isalpha(c) || c == '@') ? 6
                                                               : 5));
      }
    for (std::size_t i = 0; i < encoded.row_count; ++i)
      if (encoded.rows[i] >= nethack::table::far_map && encoded.rows[i] < nethack::table::bearings)
        found.insert(encoded.rows[i]);
    REQUIRE(found == expected);
  }
}

TEST_CASE("a memory knows what is under the hero, where they were, and when they prayed") {
  observation seen;
  seen.chars.fill(' ');
  seen.stats.depth = 1;
  seen.stats.turn = 1;
  const auto put = [&](int row, int column, char c) {
    seen.chars[static_cast<std::size_t>(row * 80 + column)] = static_cast<std::uint8_t>(c);
  };
  put(5, 10, '@');
  put(5, 11, '>');
  seen.hero_row = 5;
  seen.hero_column = 10;
  memory mind;
  mind.observe(seen);
  CHECK(mind.under_hero() == 0);

  put(5, 10, '.');
  put(5, 11, '@');
  seen.hero_column = 11;
  seen.stats.turn = 2;
  mind.observe(seen, nethack::small_action_of('l'));
  CHECK(mind.under_hero() == '>' - 32);
  CHECK(mind.visits(5, 10) == 1);
  CHECK(mind.visits(5, 11) == 1);
  CHECK(mind.actions()[0] == nethack::small_action_of('l'));
  CHECK_FALSE(mind.has_prayed());

  mind.observe(seen, nethack::small_action_of(nethack::keys::pray));
  CHECK(mind.has_prayed());
  CHECK(mind.same_place() == 1);
  CHECK(mind.same_turn() == 1);

  SECTION("saved, loaded, and the same from then on") {
    std::stringstream file;
    mind.save(file);
    memory restored;
    restored.load(file);
    for (memory* one : {&mind, &restored}) one->observe(seen, nethack::small_action_of('s'));
    const auto a = nethack::encode(seen, mind), b = nethack::encode(seen, restored);
    CHECK(std::memcmp(&a, &b, sizeof a) == 0);
    std::stringstream half(file.str().substr(0, file.str().size() / 2));
    CHECK_THROWS(restored.load(half));
    std::stringstream wrong(std::string(100'000, 'x'));
    CHECK_THROWS(restored.load(wrong));
  }
  SECTION("another level is another memory, and the first is still there") {
    auto below = seen;
    below.stats.depth = 2;
    mind.observe(below, nethack::small_action_of('>'));
    CHECK(mind.visits(5, 10) == 0);
    mind.observe(seen, nethack::small_action_of('<'));
    CHECK(mind.visits(5, 10) == 1);
  }
  SECTION("a question does not count as a visit") {
    const int before = mind.visits(5, 11);
    seen.waiting = nethack::prompt::question;
    mind.observe(seen, nethack::small_action_of('e'));
    CHECK(mind.visits(5, 11) == before);
  }
}

TEST_CASE("a memory beside a saved game: every flipped bit and every truncation is an error, and "
          "changes nothing") {
  std::mt19937 dice(5);
  memory mind;
  for (int depth = 1; depth < 3; ++depth)
    for (int i = 0; i < 20; ++i) {
      auto seen = random_screen(dice);
      seen.stats.depth = depth;
      mind.observe(seen, i % 22);
    }
  const auto bytes_of = [](const memory& of) {
    std::ostringstream out;
    of.save(out);
    return out.str();
  };
  const auto error_of = [&](const std::string& bytes) {
    memory other;
    std::istringstream in(bytes);
    try {
      other.load(in, "seven.memory");
    } catch (const std::runtime_error& error) {
      CHECK(bytes_of(other) == bytes_of(memory{}));
      return std::string(error.what());
    }
    CHECK(bytes_of(other).substr(8) == bytes_of(mind).substr(8));
    return std::string();
  };
  const std::string good = bytes_of(mind);
  REQUIRE(good.starts_with("memory03"));
  REQUIRE(error_of(good).empty());
  std::size_t accepted = 0;
  for (std::size_t bit = 0; bit < 8 * good.size(); bit += bit < 640 ? 1 : 37) {
    auto bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    if (error_of(bad).empty()) ++accepted;
  }
  for (std::size_t size = 0; size < good.size(); size += size < 100 ? 1 : 101)
    if (error_of(good.substr(0, size)).empty()) ++accepted;
  CHECK(accepted == 0);
  CHECK_THAT(error_of(good + 'x'),
             ContainsSubstring("seven.memory") && ContainsSubstring("nethack save-states"));

  // The version before had no checksum, and numbers in the same places.
  const std::string old = "memory02" + good.substr(8, good.size() - 12);
  CHECK(error_of(old).empty());
  constexpr std::size_t actions = 8, depth = 16, hero_row = 36, hero_column = 40, question = 60,
                        count = 64, levels = 68, level_size = 4 + 384 + 3840 + 1920;
  REQUIRE(old.size() == levels + 3 * level_size);  // before the first screen, and two depths
  const auto with = [&](std::size_t place, std::uint32_t value, std::size_t size) {
    auto bad = old;
    for (std::size_t i = 0; i < size; ++i) bad[place + i] = static_cast<char>(value >> (8 * i));
    return error_of(bad);
  };
  CHECK_THAT(with(hero_row, 1u << 20, 4), ContainsSubstring("out of its range"));
  CHECK_THAT(with(hero_row, 22, 4), ContainsSubstring("out of its range"));
  CHECK_THAT(with(hero_row, 0, 4), ContainsSubstring("out of its range"));
  CHECK_THAT(with(hero_column, 80, 4), ContainsSubstring("out of its range"));
  CHECK_THAT(with(hero_column, ~0u, 4), ContainsSubstring("out of its range"));
  CHECK_THAT(with(actions, 22, 1), ContainsSubstring("out of its range"));
  CHECK_THAT(with(actions, 0xfe, 1), ContainsSubstring("out of its range"));
  CHECK_THAT(with(question, 2, 4), ContainsSubstring("out of its range"));
  CHECK_THAT(with(depth, 9, 4), ContainsSubstring("the hero's level"));
  CHECK_THAT(with(count, 2, 4), ContainsSubstring("more bytes after its end"));
  CHECK_THAT(with(count, 4, 4), ContainsSubstring("ends early"));
  CHECK_THAT(with(count, ~0u, 4), ContainsSubstring("out of its range"));
  CHECK_THAT(with(levels + level_size, ~0u, 4), ContainsSubstring("a level twice"));
  // column 80 of row 5
  CHECK_THAT(with(levels + 4 + 16 * 5 + 10, 1, 1),
             ContainsSubstring("visits of a place where the hero was not"));
  // the line of messages
  CHECK_THAT(with(levels + 4, 1, 1), ContainsSubstring("visits of a place where the hero was not"));
  CHECK_THAT(with(levels + 4 + 384 + 2 * (80 * 5 + 7), 1, 2),
             ContainsSubstring("visits of a place where the hero was not"));
  CHECK_THAT(with(levels + 4 + 384 + 3840 + 1919, 104, 1), ContainsSubstring("token"));
}

TEST_CASE("a memory's file is there whole or not at all, and named in errors") {
  const support::temporary_folder folder;
  memory mind;
  mind.write(folder.file("000.memory"));
  memory other;
  other.read(folder.file("000.memory"));
  CHECK_THROWS_WITH(other.read(folder.file("001.memory")),
                    ContainsSubstring("001.memory") && ContainsSubstring("save-states"));
  CHECK_THROWS_WITH(other.read(folder.file("")), ContainsSubstring("save-states"));
  std::ofstream(folder.file("002.memory")) << "memory01";
  CHECK_THROWS_WITH(other.read(folder.file("002.memory")),
                    ContainsSubstring("002.memory is damaged or of another version"));
}

TEST_CASE("a row of the table is a status, a word or a place, never two of them") {
  using namespace nethack::table;
  const std::array blocks{previous_actions, under_hero,     question,      hit_points,
                          in_danger,        hunger,         depth,         experience_level,
                          armor_class,      burden,         since_prayer,  same_place,
                          same_turn,        turns_on_level, turn,          hero_column,
                          hero_row,         visits_here,    message_words, whole_message,
                          visits_around,    far_map,        bearings,      size};
  for (std::size_t i = 1; i < blocks.size(); ++i) CHECK(blocks[i] > blocks[i - 1]);
  CHECK(size <= 65535);
  // the extremes of every number stay inside their block
  observation seen;
  seen.chars.fill('.');
  for (const int extreme : {std::numeric_limits<int>::min(), -1'000'000, 0, 1'000'000,
                            std::numeric_limits<int>::max()}) {
    auto& s = seen.stats;
    s.hp = s.hp_max = s.armor_class = s.depth = s.level = s.turn = s.hunger = s.burden = extreme;
    seen.hero_row = 21;
    seen.hero_column = 79;
    memory mind;
    for (int i = 0; i < 200; ++i) mind.observe(seen, 0);
    const auto encoded = nethack::encode(seen, mind);
    for (std::size_t i = 0; i < encoded.row_count; ++i) CHECK(encoded.rows[i] < size);
  }
}

}  // namespace nethack_features_test
