// SPDX-License-Identifier: MIT
// Files of demonstrations: what comes back is what was written, and damage is named.
#include "catch2.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "demonstrations.hpp"
#include "record.hpp"

namespace fs = std::filesystem;
using nethack::demonstration;

namespace {

bool game_is_missing() {
  if (access((nethack::default_package + "/nethack-console").c_str(), R_OK) == 0) return false;
  skip_test("nethack-console is not installed");
  return true;
}

struct temporary_file {
  fs::path path = fs::temp_directory_path() / ("demonstrations-test-" + std::to_string(getpid()) + ".bin");
  ~temporary_file() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
  std::string bytes() const {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& bytes) const { std::ofstream(path, std::ios::binary) << bytes; }
};

bool same(const nethack::observation& a, const nethack::observation& b) {
  return a.chars == b.chars && a.colors == b.colors && a.cursor_row == b.cursor_row && a.cursor_column == b.cursor_column &&
         a.hero_row == b.hero_row && a.hero_column == b.hero_column && a.message == b.message && a.waiting == b.waiting &&
         a.stats == b.stats && a.changed_rows == b.changed_rows;
}

/// Screens that no game shows: every field takes any value it can hold.
nethack::observation arbitrary_observation(std::mt19937& dice) {
  nethack::observation seen;
  seen.chars.fill(' ');
  for (std::size_t i = 0, n = dice() % 200; i < n; ++i) seen.chars[dice() % seen.chars.size()] = static_cast<std::uint8_t>(dice());
  for (std::size_t i = 0, n = dice() % 200; i < n; ++i) seen.colors[dice() % seen.colors.size()] = static_cast<std::uint8_t>(dice());
  seen.cursor_row = static_cast<int>(dice() % 24);
  seen.cursor_column = static_cast<int>(dice() % 80);
  seen.hero_row = static_cast<int>(dice() % 24);
  seen.hero_column = static_cast<int>(dice() % 80);
  for (std::size_t i = 0, n = dice() % 300; i < n; ++i) seen.message += static_cast<char>(dice());
  seen.waiting = dice() % 2 ? nethack::prompt::question : nethack::prompt::command;
  seen.stats.hp = static_cast<int>(dice());
  seen.stats.armor_class = -static_cast<int>(dice() % 100);
  seen.changed_rows = static_cast<std::uint32_t>(dice()) & ((1u << nethack::rows) - 1);
  return seen;
}

std::string error_of(const fs::path& file) {
  try {
    nethack::demonstration_reader in(file);
    while (in.next()) {
    }
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

std::vector<nethack::observation> write_arbitrary(const fs::path& file, int steps) {
  std::mt19937 dice(7);
  std::vector<nethack::observation> written;
  nethack::demonstration_writer out(file, {11, 300, 0.25, {'k', 'l'}, "nobody"});
  for (int i = 0; i < steps; ++i) {
    written.push_back(arbitrary_observation(dice));
    out.write(written.back(), 'k', i % 3 ? 'k' : 'l', i % 10 == 0);
    if (i % 10 == 9) out.end_game({i + 0.5, i, 3, 1});
  }
  out.close();
  return written;
}

}  // namespace

TEST_CASE("any observation comes back from a file as it was written", "[demonstrations]") {
  const temporary_file file;
  constexpr int steps = 1000;  // of several blocks
  const auto written = write_arbitrary(file.path, steps);
  nethack::demonstration_reader in(file.path);
  REQUIRE(in.header().seed == 11);
  REQUIRE(in.header().turn_cap == 300);
  REQUIRE(in.header().noise == 0.25);
  REQUIRE(in.header().actions == std::vector<nethack::key>{'k', 'l'});
  REQUIRE(in.header().player == "nobody");
  for (int i = 0; i < steps; ++i) {
    const demonstration* step = in.next();
    REQUIRE(step != nullptr);
    REQUIRE(same(step->seen, written[static_cast<std::size_t>(i)]));
    REQUIRE(step->wanted == 'k');
    REQUIRE(step->sent == (i % 3 ? 'k' : 'l'));
    REQUIRE(step->first == (i % 10 == 0));
    REQUIRE(step->last == (i % 10 == 9));
    if (step->last) REQUIRE(step->outcome == nethack::game_outcome{i + 0.5, i, 3, 1});
  }
  REQUIRE(in.next() == nullptr);
  REQUIRE(in.next() == nullptr);
  REQUIRE(in.games() == steps / 10);
}

TEST_CASE("a file of demonstrations that was cut short or damaged says so", "[demonstrations]") {
  const temporary_file file;
  write_arbitrary(file.path, 200);
  const std::string good = file.bytes();
  REQUIRE(error_of(file.path).empty());

  std::mt19937 dice(3);
  for (int i = 0; i < 60; ++i) {
    const std::size_t size = dice() % good.size();
    file.write(good.substr(0, size));
    const std::string error = error_of(file.path);
    INFO("cut to " << size << " bytes: " << error);
    REQUIRE(error.find(file.path.string()) == 0);
    REQUIRE(error.find("cut short at byte " + std::to_string(size)) != std::string::npos);
    REQUIRE(error.find("record it again") != std::string::npos);
  }
  for (int i = 0; i < 60; ++i) {
    std::string bad = good;
    const std::size_t place = dice() % bad.size();
    bad[place] = static_cast<char>(bad[place] ^ (1 << dice() % 8));
    file.write(bad);
    INFO("a bit flipped in byte " << place);
    REQUIRE(error_of(file.path).find("at byte ") != std::string::npos);
  }
  file.write("something else altogether");
  REQUIRE(error_of(file.path).find("is not a file of demonstrations") != std::string::npos);
  fs::remove(file.path);
  REQUIRE(error_of(file.path).find("cannot be opened") != std::string::npos);
}

TEST_CASE("a file that was not completed does not appear", "[demonstrations]") {
  const temporary_file file;
  {
    nethack::demonstration_writer out(file.path, {});
    out.write(nethack::observation{}, 'k', 'k', true);
  }
  REQUIRE_FALSE(fs::exists(file.path));
  REQUIRE_FALSE(fs::exists(file.path.string() + ".part"));
}

TEST_CASE("real games are read back field by field, and small", "[demonstrations][game]") {
  if (game_is_missing()) return;
  const temporary_file file;
  constexpr int steps = 3000;
  std::vector<nethack::observation> seen;
  {
    nethack::environment game;
    nethack::demonstration_writer out(file.path, {});
    for (std::uint64_t seed = 1; static_cast<int>(seen.size()) < steps; ++seed) {
      game.reset(seed);
      nethack::player hero(seed);
      for (bool first = true; !game.done() && static_cast<int>(seen.size()) < steps; first = false) {
        const auto pressed = hero.next(game.view());
        seen.push_back(game.view());
        out.write(game.view(), pressed, pressed, first);
        game.step(pressed);
      }
      if (game.done()) out.end_game({game.score(), game.turns(), game.max_depth(), 0});
    }
    out.close();
  }
  nethack::demonstration_reader in(file.path);
  for (const auto& expected : seen) {
    const demonstration* step = in.next();
    REQUIRE(step != nullptr);
    REQUIRE(same(step->seen, expected));
  }
  REQUIRE(in.next() == nullptr);
  REQUIRE(static_cast<double>(fs::file_size(file.path)) / steps < 150);
}

TEST_CASE("a recording repeats itself, keeps to its budget and stirs in moves", "[demonstrations][game]") {
  if (game_is_missing()) return;
  const temporary_file file;
  nethack::record_options options;
  options.out = file.path;
  options.steps = 2500;
  options.noise = 0.1;
  options.turn_cap = 400;
  const auto report = nethack::record(options);
  REQUIRE(report.steps == 2500);
  const std::string once = file.bytes();
  nethack::record(options);
  REQUIRE(file.bytes() == once);

  long replaced = 0, steps = 0;
  nethack::demonstration_reader in(file.path);
  while (const demonstration* step = in.next()) {
    ++steps;
    replaced += step->sent != step->wanted;
  }
  REQUIRE(steps == 2500);
  REQUIRE(in.games() == static_cast<std::uint64_t>(report.games));
  REQUIRE(replaced > 125);
  REQUIRE(replaced < 300);

  options.steps = 0;
  options.games = 3;
  REQUIRE(nethack::record(options).games == 3);
  long calls = 0;
  options.games = 1000;
  const auto stopped = nethack::record(options, [&](const nethack::recording_progress&) { return ++calls < 2; });
  REQUIRE(stopped.steps == 2000);
  REQUIRE(error_of(file.path).empty());
}
