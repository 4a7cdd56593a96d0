// SPDX-License-Identifier: MIT
// The adapter of the real game, on a console that plays a script: frames, stack, rewards, ends,
// rooms, saved states, the cartridge's file.
#include "../support.hpp"

#include "ale_drawing.hpp"
#include "ale_game.hpp"
#include "rom.hpp"
#include "scripted_console.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace montezuma_ale_game_test {

namespace {

using namespace montezuma;
using game = ale_game<scripted::console>;
static_assert(emulator<game>);

const ale_options certain{.sticky = 0};

std::shared_ptr<const room_states> archive() {
  auto states = std::make_shared<room_states>();
  states->game = "script";
  states->rooms[7] = {
      {scripted::console::at({.frame = 17'990, .place = 3, .x = 40, .entered = 0}), 6}};
  states->rooms[2] = {{scripted::console::at({.place = 1, .x = 0, .entered = 0}), 1},
                      {scripted::console::at({.place = 1, .x = 156, .entered = 156}), 6}};
  return states;
}

game make_game(const ale_options& options = certain, std::uint64_t seed = 1) {
  return game(scripted::console(), seed, archive(), options);
}

/// A pixel of one of the four frames, 3 being the newest.
int pixel(const game& of, std::size_t frame, std::size_t row, std::size_t column) {
  std::vector<std::uint8_t> seen(frames_stacked * frame_pixels);
  of.observe(seen.data());
  return seen[frame * frame_pixels + row * frame_side + column];
}

std::vector<std::uint8_t> shrunk(const std::vector<std::uint8_t>& screen) {
  std::vector<std::uint8_t> frame(frame_pixels);
  shrink(screen.data(), frame.data());
  return frame;
}

}  // namespace

TEST_CASE("a small frame's pixel is the mean of what lies under it", "[montezuma][ale]") {
  // 2.5 rows and 1 19/21 columns lie under each.
  std::vector<std::uint8_t> screen(screen_pixels);
  const auto draw = [&](auto&& value) {
    for (std::size_t row = 0; row < screen_rows; ++row)
      for (std::size_t column = 0; column < screen_columns; ++column)
        screen[row * screen_columns + column] = static_cast<std::uint8_t>(value(row, column));
    return shrunk(screen);
  };
  const auto across = draw([](auto, auto column) { return column; });  // .475, 2.375, 158.525
  CHECK((across[0] == 0 && across[1] == 2 && across[83] == 159));
  CHECK((across[83 * 84] == 0 && across[83 * 84 + 83] == 159));
  const auto down = draw([](auto row, auto) { return row; });  // .8, 3.2, 208.2
  CHECK((down[0] == 1 && down[84] == 3 && down[83 * 84] == 208 && down[83 * 84 + 83] == 208));
  const auto one = draw([](auto row, auto column) { return row == 2 && column == 1 ? 255 : 0; });
  // Half of the row and 19/21 or 2/21 of the column, of 2.5 rows by 40/21 columns: .095 and .01 of
  // 255 are 24.2 and 2.55.
  CHECK((one[0] == 24 && one[1] == 3 && one[84] == 24 && one[85] == 3));
  CHECK((one[2] == 0 && one[168] == 0));
  CHECK(draw([](auto, auto) { return 255; }) == std::vector<std::uint8_t>(frame_pixels, 255));
  CHECK(draw([](auto, auto) { return 7; }) == std::vector<std::uint8_t>(frame_pixels, 7));
}

TEST_CASE("a frame is the brighter of the third and the fourth, and the stack keeps four",
          "[montezuma][ale]") {
  auto some = make_game();
  for (std::size_t frame = 0; frame < 4; ++frame) {
    CHECK(pixel(some, frame, 20, 49) == 10);  // room 1, no beam in an even frame
    CHECK(pixel(some, frame, 83, 0) == 6);    // (2.5 - 1) · 10 / 2.5, and nothing of frame 0
  }
  some.step(scripted::right);
  CHECK(some.machine().now().frame == 4);
  CHECK(pixel(some, 3, 20, 49) == 250);  // the beam of frame 3, at column 92 to 107
  CHECK(pixel(some, 3, 20, 47) == 10);
  CHECK(pixel(some, 3, 20, 57) == 10);
  CHECK(pixel(some, 3, 83, 0) == 8);  // (15 + 4) / 2.5
  CHECK(pixel(some, 2, 20, 49) == 10);
  some.step(no_action);
  CHECK(pixel(some, 3, 83, 0) == 9);  // (15 + 8) / 2.5
  CHECK(pixel(some, 2, 83, 0) == 8);
  CHECK(pixel(some, 1, 83, 0) == 6);
  for (int i = 0; i < 3; ++i) some.step(no_action);
  CHECK(pixel(some, 0, 83, 0) == 9);
  some.reset(1);
  for (std::size_t frame = 0; frame < 4; ++frame) CHECK(pixel(some, frame, 83, 0) == 6);
}

TEST_CASE("a decision's rewards are summed, and an episode goes on through a lost life",
          "[montezuma][ale]") {
  auto some = make_game();
  CHECK(some.step(scripted::up).reward == 1200);
  CHECK(some.step(scripted::right).reward == 0);
  const int lives = some.machine().lives();
  some.step(scripted::down);
  some.step(no_action);
  const auto died = some.step(no_action);
  CHECK(some.machine().lives() == lives - 1);
  CHECK_FALSE(died.ended);

  const auto last = std::make_shared<room_states>(room_states{
      "script", {{7, {{scripted::console::at({.place = 3, .lives = 1, .falling = 6}), 6}}}}});
  game doomed(scripted::console(), 3, last, certain);
  doomed.reset(7);  // idles for 2 to 4 frames
  const auto end = doomed.step(no_action);
  CHECK((end.ended && !end.truncated));
  CHECK(doomed.machine().now().frame == 6);  // none was played behind the end
  CHECK(doomed.step(scripted::up).ended);
  CHECK(doomed.step(scripted::up).reward == 0);
}

TEST_CASE("an episode ends after 4500 decisions, from a late state too", "[montezuma][ale]") {
  CHECK(ale_options{}.step_cap == 4500);
  CHECK(ale_options{}.sticky == 0.25);
  for (const int room : {1, 7}) {
    auto some = make_game();
    some.reset(room);
    int steps = 1;
    auto last = some.step(no_action);
    for (; !last.ended; last = some.step(no_action)) ++steps;
    CHECK(last.truncated);
    CHECK(steps == 4500);
    some.reset(room);
    CHECK_FALSE(some.step(no_action).ended);
  }
}

TEST_CASE("a frame repeats what the frame before did, one time in four", "[montezuma][ale]") {
  auto some = make_game({.sticky = 0.25});
  const auto before = some.machine().actions.size();
  constexpr int steps = 4000;
  int repeated = 0, first = 0, split = 0;
  for (int i = 0; i < steps; ++i) some.step(i % 2 == 0 ? scripted::left : scripted::right);
  const auto& played = some.machine().actions;
  REQUIRE(played.size() == before + 4 * steps);
  for (std::size_t i = 0; i < steps; ++i) {
    const int asked = i % 2 == 0 ? scripted::left : scripted::right;
    const auto at = [&](std::size_t frame) { return played[before + 4 * i + frame] != asked; };
    for (std::size_t frame = 0; frame < 4; ++frame) repeated += at(frame);
    first += at(0);
    split += at(0) && !at(1);
    CHECK_FALSE((!at(0) && at(1)));  // what was asked for once holds
  }
  // the frame before may have done what is asked for now
  CHECK(first / double(steps) == Approx(0.25 * (1 - 1 / 256.0)).margin(0.03));
  CHECK(repeated / (4.0 * steps) ==
        Approx((0.25 + 0.0625 + 0.015625 + 0.00390625) / 4).margin(0.01));
  CHECK(split / double(steps) == Approx(0.25 * 0.75).margin(0.03));
  auto other = make_game({.sticky = 0.25}, 2);
  for (int i = 0; i < 20; ++i) other.step(i % 2 == 0 ? scripted::left : scripted::right);
  CHECK_FALSE(
      std::equal(other.machine().actions.begin(), other.machine().actions.end(), played.begin()));
  CHECK_THROWS_WITH(make_game({.sticky = 1.5}),
                    ContainsSubstring("[0, 1]") && ContainsSubstring("1.5"));
}

TEST_CASE("an episode in a room begins from a saved state, with what is seen and known up to date",
          "[montezuma][ale]") {
  auto some = make_game();
  bool idled[5] = {};
  for (int i = 0; i < 40; ++i) {
    const auto before = some.machine().actions.size();
    some.reset(7);
    const auto frames = some.machine().actions.size() - before;
    REQUIRE((frames >= 2 && frames <= 4));
    idled[frames] = true;
    CHECK(some.room() == 7);
    CHECK(some.ram()[42] == 40);
    CHECK(some.steps() == 0);
    for (std::size_t frame = 0; frame < 4; ++frame) CHECK(pixel(some, frame, 20, 5) == 70);
    some.reset(1);
    CHECK(some.room() == 1);
    CHECK(pixel(some, 0, 20, 5) == 10);
  }
  CHECK((idled[2] && idled[3] && idled[4]));
  bool seen[2] = {};
  for (int i = 0; i < 40; ++i) {
    some.reset(2);
    seen[some.ram()[42] > 80 ? 1 : 0] = true;
  }
  CHECK((seen[0] && seen[1]));

  CHECK_THROWS_WITH(some.reset(13), ContainsSubstring("room 13") &&
                                        ContainsSubstring("2 (2), 7 (1)") &&
                                        ContainsSubstring("make-states"));
  CHECK(some.room() == 2);  // a refusal changes nothing
  CHECK_THROWS_WITH(some.reset(24), ContainsSubstring("no room 24"));
  game other(scripted::console("another"), 1, archive(), certain),
      none(scripted::console(), 1, {}, certain);
  CHECK_THROWS_WITH(other.reset(7), ContainsSubstring("script") && ContainsSubstring("another"));
  CHECK_THROWS_WITH(none.reset(7), ContainsSubstring("none") && ContainsSubstring("--states"));
}

TEST_CASE("success is a reward, an item, or another way out", "[montezuma][ale]") {
  auto some = make_game();
  some.reset(7);
  CHECK_FALSE(some.succeeded());
  for (int i = 0; i < 4; ++i) some.step(scripted::left);  // back to where he came from
  CHECK(some.room() == 6);
  CHECK_FALSE(some.succeeded());
  for (int i = 0; i < 20; ++i) some.step(scripted::right);
  CHECK(some.room() == 13);
  CHECK(some.succeeded());
  some.reset(7);
  CHECK_FALSE(some.succeeded());
  some.step(scripted::up);
  CHECK(some.succeeded());

  some.reset(1);
  CHECK(some.step(scripted::fire).reward == 0);  // the key lies further to the right
  for (int i = 0; i < 2; ++i) some.step(scripted::right);
  const auto empty_handed = some.place_key();
  CHECK_FALSE(some.succeeded());
  CHECK(some.step(scripted::fire).reward == 100);
  CHECK(some.place_key() == (empty_handed | 2));
  CHECK(some.succeeded());
}

TEST_CASE("a place is a room, a square of 16, and what is held", "[montezuma][ale]") {
  console_ram ram{};
  ram[3] = 7, ram[42] = 33, ram[43] = 250, ram[65] = 2;
  CHECK(ram_view{ram}.cell() == 0x07020f02u);
  ram[42] = 47;
  CHECK(ram_view{ram}.cell() == 0x07020f02u);
  ram[42] = 48;
  CHECK(ram_view{ram}.cell() == 0x07030f02u);
  CHECK((ram_view{ram}.room() == 7 && ram_view{ram}.x() == 48 && ram_view{ram}.y() == 250 &&
         ram_view{ram}.items() == 2));
}

TEST_CASE("a restored game goes on bit for bit, and shows what it showed", "[montezuma][ale]") {
  auto one = make_game({.sticky = 0.25}, 5), two = make_game({.sticky = 0.25}, 6);
  one.reset(7);
  for (int i = 0; i < 30; ++i) one.step(i % 5);
  two.restore(one.save());
  CHECK(two.save() == one.save());
  std::vector<std::uint8_t> a(frames_stacked * frame_pixels), b = a;
  const auto look = [&] {
    one.observe(a.data());
    two.observe(b.data());
    return a == b && one.room() == two.room() && one.place_key() == two.place_key() &&
           one.succeeded() == two.succeeded();
  };
  CHECK(look());
  for (int i = 0; i < 300; ++i) {
    const auto first = one.step(i % 6), second = two.step(i % 6);
    REQUIRE((first.reward == second.reward && first.ended == second.ended));
  }
  CHECK(look());
  CHECK(two.save() == one.save());
  game other(scripted::console("another"), 1, {}, certain);
  CHECK_THROWS_WITH(other.restore(one.save()), ContainsSubstring("another"));
  CHECK_THROWS(one.restore("nothing"));
  CHECK_THROWS(one.restore(one.save().substr(0, 400)));
  // Dice and steps are in front of the last action and the room, which both are places in tables.
  const auto good = one.save();
  const auto number = good.find('\n') + 1 + sizeof(std::uint64_t) + sizeof(std::int32_t);
  for (const auto& [place, value] :
       {std::pair{number, 18}, std::pair{number, -1}, std::pair{number + 1, 24},
        std::pair{number + 1, -1}, std::pair{number + 3, 100}}) {
    auto bad = good;
    bad[place] = static_cast<char>(value);
    CHECK_THROWS_WITH(one.restore(bad),
                      ContainsSubstring("a room or an action that does not exist"));
  }
  CHECK(one.save() == good);
}

TEST_CASE("memory is seen as bits, and room, column and height each as one of a kind",
          "[montezuma][ale]") {
  console_ram ram{};
  ram[0] = 0b10000101;
  ram[127] = 255;
  ram[3] = 7;
  ram[42] = 79;   // the tenth column of eight
  ram[43] = 148;  // the ground: 107 below 255
  std::vector<float> seen(sight_of_memory::numbers, -1.0f);
  sight_of_memory().observe(ram, seen.data());
  CHECK(sight_of_memory::observation_shape() == std::vector<std::int64_t>{1108});
  CHECK(std::vector<float>(seen.begin(), seen.begin() + 8) ==
        std::vector<float>{1, 0, 1, 0, 0, 0, 0, 1});
  CHECK(std::vector<float>(seen.begin() + 1016, seen.begin() + 1024) == std::vector<float>(8, 1));
  for (std::size_t i = 1024; i < seen.size(); ++i) {
    CAPTURE(i);
    CHECK(seen[i] == (i == 1024 + 7 || i == 1048 + 9 || i == 1068 + 35 ? 1.0f : 0.0f));
  }
  // beyond what there is: no room, the last column and height
  ram[3] = 200;
  ram[42] = 255;
  ram[43] = 0;
  sight_of_memory().observe(ram, seen.data());
  for (std::size_t i = 1024; i < seen.size(); ++i) {
    CAPTURE(i);
    CHECK(seen[i] == (i == 1067 || i == 1107 ? 1.0f : 0.0f));
  }
}

TEST_CASE("a game that is seen by its memory goes on bit for bit, and is not one of pictures",
          "[montezuma][ale]") {
  using memory_game = ale_game<scripted::console, sight_of_memory>;
  static_assert(emulator<memory_game>);
  memory_game one(scripted::console(), 5, archive()), two(scripted::console(), 6, archive());
  one.reset(7);
  for (int i = 0; i < 30; ++i) one.step(i % 5);
  two.restore(one.save());
  CHECK(two.save() == one.save());
  for (int i = 0; i < 50; ++i) REQUIRE(one.step(i % 6).reward == two.step(i % 6).reward);
  CHECK(two.save() == one.save());
  CHECK_THROWS_WITH(make_game().restore(one.save()), ContainsSubstring("not a saved game"));
  CHECK_THROWS_WITH(one.restore(make_game().save()), ContainsSubstring("not a saved game"));
}

TEST_CASE("an episode of training begins in archived places, in the share that is asked for",
          "[montezuma][ale]") {
  auto states = std::make_shared<room_states>(*archive());
  for (int i = 0; i < 4; ++i)
    states->places[6].push_back({scripted::console::at({.place = 2, .x = 20 + 20 * i}), 2});
  states->places[2] = {{scripted::console::at({.place = 1, .x = 60}), 1}};
  const auto begun = [&](const ale_options& options, int room) {
    game some(scripted::console(), 3, states, options);
    std::map<int, int> rooms;
    std::set<int> columns;
    for (int i = 0; i < 2000; ++i) {
      some.practice(room);
      ++rooms[some.room()];
      if (some.room() == 6) columns.insert(ram_view{some.ram()}.x());
    }
    return std::pair(rooms, columns);
  };
  const auto [rooms, columns] =
      begun({.sticky = 0, .practice_rooms = {2, 6}, .entry_share = 0.25}, 7);
  // a binomial's standard deviation is at most 22
  CHECK(std::abs(rooms.at(7) - 500) < 100);
  CHECK(std::abs(rooms.at(2) - 750) < 110);
  CHECK(std::abs(rooms.at(6) - 750) < 110);
  CHECK(columns == std::set<int>{20, 40, 60, 80});
  CHECK(begun({.practice_rooms = {}, .entry_share = 0}, 7).first == std::map<int, int>{{7, 2000}});
  CHECK(begun({.practice_rooms = {2}, .entry_share = 1}, 7).first == std::map<int, int>{{7, 2000}});
  CHECK_THROWS_WITH(
      begun({.practice_rooms = {13}, .entry_share = 0}, 7),
      ContainsSubstring("no archived place of room 13") && ContainsSubstring("make-states"));
  CHECK_THROWS(begun({.entry_share = 1.5}, 7));
  // an episode of training ends outside of the rooms to stay in, and is not truncated; another not
  game kept(scripted::console(), 3, states,
            {.sticky = 0, .practice_rooms = {2}, .entry_share = 0, .stay_rooms = {2}});
  for (const bool training : {true, false}) {
    training ? kept.practice(7) : kept.reset(2);
    step_result last;
    for (int i = 0; i < 20 && kept.room() == 2; ++i) last = kept.step(scripted::left);
    CHECK(kept.room() == 1);
    CHECK(last.ended == training);
    CHECK_FALSE(last.truncated);
    auto restored = game(scripted::console(), 9, states, {.stay_rooms = {2}});
    restored.restore(kept.save());
    CHECK(restored.step(0).ended == training);
  }
  // the places live in the file of the states, and a file without them has none
  const support::temporary_folder folder;
  states->write(folder.file("with.states"));
  CHECK((room_states::read(folder.file("with.states")).places == states->places));
  archive()->write(folder.file("without.states"));
  CHECK(room_states::read(folder.file("without.states")).places.empty());
}

TEST_CASE("the screen is drawn in shades, or in two colors a character", "[montezuma][ale]") {
  std::vector<std::uint8_t> colors(screen_pixels * 3);
  std::fill_n(colors.begin(), colors.size() / 2, std::uint8_t{255});  // the upper half is white
  const std::string row(20, '@');
  CHECK(draw_screen(colors, {.columns = 20, .lines = 40}, false) ==
        row + "\n" + row + "\n" + row + "\n\n\n\n");
  // 640 to 210, the last line of the terminal left free
  const auto lines_of = [&](int columns, int lines) {
    const auto text = draw_screen(colors, {columns, lines}, false);
    return std::pair(text.find('\n'), std::count(text.begin(), text.end(), '\n'));
  };
  CHECK(lines_of(80, 27) == std::pair<std::size_t, std::ptrdiff_t>(79, 25));
  CHECK(lines_of(64, 100) == std::pair<std::size_t, std::ptrdiff_t>(64, 21));
  CHECK(lines_of(500, 500) == std::pair<std::size_t, std::ptrdiff_t>(160, 52));
  // a red pixel row above a blue one
  for (std::size_t i = 0; i < screen_pixels; ++i)
    for (std::size_t c = 0; c < 3; ++c)
      colors[3 * i + c] = c == (i / screen_columns / 5 % 2 == 0 ? 0u : 2u) ? 200 : 0;
  const auto painted = draw_screen(colors, {.columns = 64, .lines = 40}, true);
  CHECK(painted.starts_with("\033[38;2;200;0;0m\033[48;2;0;0;200m\u2580\u2580"));
}

TEST_CASE("a doomed state is told from one that can be lived in", "[montezuma][ale]") {
  scripted::console machine;
  CHECK(survives(machine, scripted::console::at({.place = 2})));
  CHECK_FALSE(survives(machine, scripted::console::at({.place = 2, .falling = 10})));
  CHECK_FALSE(survives(machine, scripted::console::at({.place = 2, .lives = 1, .falling = 1})));
  CHECK(survives(machine, scripted::console::at({.place = 2, .falling = 10}), 9));
}

TEST_CASE("states of rooms are read back as they were written", "[montezuma][ale]") {
  const support::temporary_folder folder;
  const auto file = folder.file("rooms.states");
  const auto states = archive();
  states->write(file);
  const auto read = room_states::read(file);
  CHECK(read.game == "script");
  CHECK((read.rooms == states->rooms));
  CHECK(read.text() == "2 (2), 7 (1)");
  CHECK(room_states{}.text() == "none");
  retain::state other;
  other.set("kind", "montezuma room states 9");
  other.write(file);
  CHECK_THROWS_WITH(room_states::read(file), ContainsSubstring("states 9") &&
                                                 ContainsSubstring("states 1") &&
                                                 ContainsSubstring("make-states"));
  const auto with = [&](int room, int came_from, const at::Tensor& bytes) {
    retain::state bad;
    bad.set("kind", "montezuma room states 1");
    bad.set("game", "script");
    bad.set("count", 1);
    bad.set("state0.room", room);
    bad.set("state0.came_from", came_from);
    bad.set("state0.bytes", bytes);
    bad.write(file);
  };
  const auto bytes = at::zeros({3}, at::kByte);
  with(23, -1, bytes);
  CHECK(room_states::read(file).rooms.at(23).size() == 1);
  for (const auto& [room, came_from] :
       {std::pair{24, 0}, std::pair{-1, 0}, std::pair{0, 300}, std::pair{0, -2}}) {
    with(room, came_from, bytes);
    CHECK_THROWS_WITH(room_states::read(file), ContainsSubstring("rooms are 0 to 23"));
  }
  with(7, 6, at::zeros({3}));
  CHECK_THROWS_AS(room_states::read(file), retain::state_error);
  with(7, 6, at::zeros({3, 1}, at::kByte));
  CHECK_THROWS_AS(room_states::read(file), retain::shape_error);
}

TEST_CASE("md5 as RFC 1321 has it", "[montezuma][ale]") {
  CHECK(md5("") == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(md5("a") == "0cc175b9c0f1b6a831c399e269772661");
  CHECK(md5("abc") == "900150983cd24fb0d6963f7d28e17f72");
  CHECK(md5("message digest") == "f96b697d7cb7938d525a2f31aaf161d0");
  CHECK(md5("abcdefghijklmnopqrstuvwxyz") == "c3fcd3d76192e4007dfb496cca67e13b");
  CHECK(md5("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") ==
        "d174ab98d277d9f5a5611c2c9f419d9f");
  CHECK(md5("12345678901234567890123456789012345678901234567890123456789012345678901234567890") ==
        "57edf4a22be3c955ac49da2e2107b67a");
}

TEST_CASE("the cartridge is looked for where the user says, and known by its sum",
          "[montezuma][ale]") {
  const support::temporary_folder folder;
  const auto file = folder.file(rom_name), another = folder.file("other.bin");
  const char* was = std::getenv("ALE_ROMS_DIR");
  const std::string before = was == nullptr ? "" : was;
  unsetenv("ALE_ROMS_DIR");
  CHECK_THROWS_WITH(find_rom("", false), ContainsSubstring("--rom") &&
                                             ContainsSubstring("ALE_ROMS_DIR") &&
                                             ContainsSubstring(montezuma_md5));
  setenv("ALE_ROMS_DIR", std::filesystem::path(file).parent_path().c_str(), 1);
  CHECK_THROWS_WITH(find_rom("", false), ContainsSubstring("no ROM in " + file));
  for (const auto& name : {file, another}) std::ofstream(name) << "abc";
  CHECK_THROWS_WITH(find_rom("", false),
                    ContainsSubstring(file) &&
                        ContainsSubstring("900150983cd24fb0d6963f7d28e17f72 (3 bytes)") &&
                        ContainsSubstring(montezuma_md5) && ContainsSubstring("--any-rom"));
  CHECK(find_rom("", true).path == file);
  CHECK(find_rom(another, true).path == another);
  CHECK(find_rom(another, true).md5 == "900150983cd24fb0d6963f7d28e17f72");
  CHECK_THROWS_WITH(find_rom(std::filesystem::path(file).parent_path().string(), true),
                    ContainsSubstring("no ROM in"));
  if (was == nullptr)
    unsetenv("ALE_ROMS_DIR");
  else
    setenv("ALE_ROMS_DIR", before.c_str(), 1);
}

}  // namespace montezuma_ale_game_test
