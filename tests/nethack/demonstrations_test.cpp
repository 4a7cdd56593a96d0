// SPDX-License-Identifier: MIT
// Files of demonstrations: what comes back is what was written, and damage is named.
#include "catch2.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "demonstrations.hpp"
#include "record.hpp"

namespace nethack_demonstrations_test {

namespace fs = std::filesystem;
using nethack::demonstration;

namespace {

bool game_is_missing() {
  if (access((nethack::default_package + "/nethack-console").c_str(), R_OK) == 0) return false;
  skip_test("nethack-console is not installed");
  return true;
}

struct temporary_file {
  fs::path path =
      fs::temp_directory_path() / ("demonstrations-test-" + std::to_string(getpid()) + ".bin");
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
  return a.chars == b.chars && a.colors == b.colors && a.cursor_row == b.cursor_row &&
         a.cursor_column == b.cursor_column && a.hero_row == b.hero_row &&
         a.hero_column == b.hero_column && a.message == b.message && a.waiting == b.waiting &&
         a.stats == b.stats && a.changed_rows == b.changed_rows;
}

/// Screens that no game shows: every field takes any value it can hold.
nethack::observation arbitrary_observation(std::mt19937& dice) {
  nethack::observation seen;
  seen.chars.fill(' ');
  for (std::size_t i = 0, n = dice() % 200; i < n; ++i)
    seen.chars[dice() % seen.chars.size()] = static_cast<std::uint8_t>(dice());
  for (std::size_t i = 0, n = dice() % 200; i < n; ++i)
    seen.colors[dice() % seen.colors.size()] = static_cast<std::uint8_t>(dice());
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

TEST_CASE("what no game shows is refused where it is read, though the checksums are right",
          "[demonstrations]") {
  const temporary_file file;
  const auto error_with = [&](const std::function<void(nethack::observation&)>& change,
                              nethack::demonstration_header header = {},
                              nethack::game_outcome outcome = {}) {
    nethack::demonstration_writer out(file.path, header);
    nethack::observation seen;
    seen.chars.fill(' ');
    out.write(seen, 'k', 'k', true);
    change(seen);
    out.write(seen, 'k', 'k', false);
    out.end_game(outcome);
    out.close();
    return error_of(file.path);
  };
  REQUIRE(error_with([](auto&) {}).empty());
  REQUIRE(error_with([](auto& seen) {
            seen.hero_row = 23, seen.hero_column = 79, seen.cursor_row = seen.cursor_column = 0;
          }).empty());
  const std::vector<std::function<void(nethack::observation&)>> off{
      [](auto& seen) { seen.hero_column = 117; },
      [](auto& seen) { seen.hero_column = 80; },
      [](auto& seen) { seen.hero_column = -1; },
      [](auto& seen) { seen.hero_row = 24; },
      [](auto& seen) { seen.hero_row = -1; },
      [](auto& seen) { seen.hero_row = 1 << 20; },
      [](auto& seen) { seen.cursor_column = 80; },
      [](auto& seen) { seen.cursor_row = 24; },
      [](auto& seen) { seen.cursor_row = -1; },
      [](auto& seen) { seen.cursor_column = -2000000; },
      [](auto& seen) { seen.changed_rows = 1u << 24; },
  };
  for (std::size_t i = 0; i < off.size(); ++i) {
    const std::string error = error_with(off[i]);
    INFO(i << ": " << error);
    REQUIRE(error.find("has a block that has") != std::string::npos);
    REQUIRE(error.find("record it again") != std::string::npos);
  }
  const auto nothing = [](nethack::observation&) {};
  for (const double noise : {-0.1, 1.0, std::numeric_limits<double>::quiet_NaN()})
    REQUIRE(error_with(nothing, {1, 2000, noise, {}, ""}).find("noise outside [0, 1)") !=
            std::string::npos);
  for (const auto& outcome :
       {nethack::game_outcome{std::numeric_limits<double>::infinity(), 1, 1, 1},
        nethack::game_outcome{1, 1, 1, 6}})
    REQUIRE(error_with(nothing, {}, outcome).find("an outcome that a game cannot have") !=
            std::string::npos);
}

TEST_CASE("a block whose bytes no writer makes is refused, though its checksum is right",
          "[demonstrations]") {
  const temporary_file file;
  using nethack::detail::byte_writer;
  namespace flags = nethack::detail::demonstration_flags;
  const auto error_with = [&](const std::function<void(byte_writer&)>& put, std::uint32_t steps = 1,
                              const std::string& behind = "") {
    std::string bytes;
    nethack::demonstration_encoder head([&](std::string_view more) { bytes += more; }, {});
    byte_writer payload, block, end;
    put(payload);
    block.put_u32(static_cast<std::uint32_t>(payload.bytes.size()));
    block.put_u32(steps);
    block.put_u32(nethack::detail::crc32(block.bytes + payload.bytes));
    end.put_u64(1);
    end.put_u64(0);
    end.put_u32(nethack::detail::crc32(end.bytes));
    file.write(bytes + "BLCK" + block.bytes + payload.bytes + "END." + end.bytes + behind);
    return error_of(file.path);
  };
  const auto step = [](byte_writer& out, std::uint8_t set, std::uint8_t wanted) {
    out.put(set);
    out.put(wanted);
  };
  const auto hero = [](byte_writer& out) { out.put_signed(0), out.put_signed(0); };
  REQUIRE(error_with([&](byte_writer& out) { step(out, 0, 'k'), hero(out); }).empty());
  REQUIRE(error_with([&](byte_writer& out) { step(out, 0, 0), hero(out); }).find("without a key") !=
          std::string::npos);
  REQUIRE(error_with([&](byte_writer& out) {
            step(out, flags::replaced, 'k'), out.put(0), hero(out);
          }).find("without a key") != std::string::npos);
  REQUIRE(error_with([&](byte_writer& out) {
            step(out, 0, 'k'), out.put_signed(std::int64_t{1} << 32), out.put_signed(0);
          }).find("out of its range") != std::string::npos);
  REQUIRE(error_with([&](byte_writer& out) {
            step(out, flags::stats, 'k'), hero(out);
            for (int i = 0; i < 23; ++i) out.put_signed(i == 7 ? std::int64_t{1} << 40 : 0);
          }).find("out of its range") != std::string::npos);
  REQUIRE(error_with([&](byte_writer& out) {
            step(out, flags::rows, 'k'), hero(out), out.put_varint(std::uint64_t{1} << 32);
          }).find("rows that a screen does not have") != std::string::npos);
  REQUIRE(error_with([&](byte_writer& out) {
            step(out, flags::rows, 'k'), hero(out);
            for (int i = 0; i < 9; ++i) out.put(0x80);
            out.put(2);  // 2^64
          }).find("too long") != std::string::npos);
  for (const std::uint32_t steps : {0u, 2u})
    REQUIRE(error_with([&](byte_writer& out) { step(out, 0, 'k'), hero(out); }, steps)
                .find("another number of steps") != std::string::npos);
  REQUIRE(error_with([&](byte_writer& out) { step(out, 0, 'k'), hero(out); }, 1, "x")
              .find("more bytes after its end") != std::string::npos);
}

TEST_CASE("a file that says that it is large is not given the memory for it", "[demonstrations]") {
  const temporary_file file;
  std::string bytes;
  nethack::demonstration_encoder head([&](std::string_view more) { bytes += more; }, {});
  nethack::detail::byte_writer block;
  block.put_u32(1 << 26);
  block.put_u32(1);
  block.put_u32(0);
  file.write(bytes + "BLCK" + block.bytes + "few");
  REQUIRE(error_of(file.path).find("is cut short at byte " +
                                   std::to_string(bytes.size() + 4 + block.bytes.size() + 3)) !=
          std::string::npos);
}

TEST_CASE("a recording does not take the place of what is no file, and follows links",
          "[demonstrations]") {
  const temporary_file pipe;
  REQUIRE(mkfifo(pipe.path.c_str(), 0600) == 0);
  REQUIRE_THROWS_AS(nethack::demonstration_writer(pipe.path, {}), retain::io_error);
  REQUIRE(fs::is_fifo(fs::symlink_status(pipe.path)));
  temporary_file link, target;
  link.path += ".link";
  target.path += ".target";
  fs::create_symlink(target.path, link.path);
  write_arbitrary(link.path, 20);
  REQUIRE(fs::is_symlink(fs::symlink_status(link.path)));
  REQUIRE(error_of(target.path).empty());
}

TEST_CASE("a file that was not completed does not appear", "[demonstrations]") {
  const temporary_file file;
  {
    nethack::demonstration_writer out(file.path, {});
    out.write(nethack::observation{}, 'k', 'k', true);
  }
  REQUIRE_FALSE(fs::exists(file.path));
  for (const auto& entry : fs::directory_iterator(file.path.parent_path()))
    REQUIRE_FALSE(entry.path().filename().string().starts_with(file.path.filename().string()));
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
      for (bool first = true; !game.done() && static_cast<int>(seen.size()) < steps;
           first = false) {
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

TEST_CASE("a recording repeats itself, keeps to its budget and stirs in moves",
          "[demonstrations][game]") {
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
  const auto stopped =
      nethack::record(options, [&](const nethack::recording_progress&) { return ++calls < 2; });
  REQUIRE(stopped.steps == 2000);
  REQUIRE(stopped.stopped);
  REQUIRE(error_of(file.path).empty());

  const std::string before = file.bytes();
  options.keep_stopped = false;
  REQUIRE(
      nethack::record(options, [](const nethack::recording_progress&) { return false; }).stopped);
  REQUIRE(file.bytes() == before);
}

}  // namespace nethack_demonstrations_test
