// SPDX-License-Identifier: MIT
// The real emulator, where it is installed, with whatever cartridge there is: Montezuma's Revenge
// from ALE_ROMS_DIR, or any that RETAIN_TEST_ROM names. What only Montezuma's Revenge can show is
// skipped with another.
#include "../support.hpp"

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ale_game.hpp"
#include "explore.hpp"
#include "rom.hpp"

#ifdef MONTEZUMA_WITH_ALE
#include "ale_console.hpp"
#endif
#ifdef MONTEZUMA_WITH_PYTHON
#include "python_console.hpp"
#endif

#if defined(MONTEZUMA_WITH_ALE) || defined(MONTEZUMA_WITH_PYTHON)
namespace {

using namespace montezuma;

std::optional<std::string> given_rom() {
  const char* file = std::getenv("RETAIN_TEST_ROM");
  return file == nullptr ? std::optional<std::string>() : file;
}

/// What is different between the consoles: where the cartridge is looked for.
template <class Console>
rom_file rom_of();
#ifdef MONTEZUMA_WITH_ALE
template <>
rom_file rom_of<ale_console>() {
  return find_rom(given_rom().value_or(""), given_rom().has_value());
}
#endif
#ifdef MONTEZUMA_WITH_PYTHON
template <>
rom_file rom_of<python_console>() {
  // where .ci/run installs the packages, or else where the program looks
  python::start(std::filesystem::exists(RETAIN_TEST_PYTHON) ? RETAIN_TEST_PYTHON : "");
  const auto packaged = packaged_rom();
  return find_rom(given_rom().value_or(packaged), given_rom().has_value());
}
#endif

using consoles = std::tuple<
#ifdef MONTEZUMA_WITH_ALE
    ale_console
#ifdef MONTEZUMA_WITH_PYTHON
    ,
#endif
#endif
#ifdef MONTEZUMA_WITH_PYTHON
    python_console
#endif
    >;

template <class Console>
std::optional<rom_file> cartridge() {
  try {
    return rom_of<Console>();
  } catch (const std::exception& error) {
    skip_test(std::string(error.what()) +
              "; or name any cartridge that the emulator knows with RETAIN_TEST_ROM");
    return {};
  }
}
template <class Console>
std::optional<rom_file> montezuma_cartridge() {
  const auto rom = cartridge<Console>();
  if (!rom || rom->md5 == montezuma_md5) return rom;
  skip_test(rom->path.string() + " is not Montezuma's Revenge");
  return {};
}

template <class Console>
std::vector<std::uint8_t> seen_by(const ale_game<Console>& some) {
  std::vector<std::uint8_t> pixels(frames_stacked * frame_pixels);
  some.observe(pixels.data());
  return pixels;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE(
    "the real emulator goes on from a saved state bit for bit, in another one too",
    "[montezuma][ale]", consoles) {
  using game = ale_game<TestType>;
  static_assert(emulator<game>);
  const auto rom = cartridge<TestType>();
  if (!rom) return;
  game one(TestType(*rom, 1), 5), two(TestType(*rom, 2), 6);
  CHECK(seen_by(one).size() == 4 * 84 * 84);
  bool moves = false;
  for (int i = 0; i < 200; ++i) {
    const auto before = seen_by(one);
    if (one.step(i * 7 % 18).ended) one.reset(1);
    moves = moves || seen_by(one) != before;
  }
  CHECK(moves);
  two.restore(one.save());
  CHECK(seen_by(two) == seen_by(one));
  for (int i = 0; i < 500; ++i) {
    const auto first = one.step(i * 5 % 18), second = two.step(i * 5 % 18);
    REQUIRE((first.reward == second.reward && first.ended == second.ended));
    REQUIRE(seen_by(one) == seen_by(two));
    REQUIRE(one.ram() == two.ram());
    if (first.ended) {
      one.reset(1);
      two.reset(1);
    }
  }
  CHECK(one.save() == two.save());
}

TEMPLATE_LIST_TEST_CASE(
    "the real emulator's screen is stale behind a restore, and an episode's first picture is not",
    "[montezuma][ale]", consoles) {
  const auto rom = cartridge<TestType>();
  if (!rom) return;
  TestType machine(*rom);
  std::vector<std::uint8_t> early, late, restored;
  machine.screen(early);
  const auto begin = machine.save();
  const auto begin_ram = machine.ram();
  for (int i = 0; i < 600 && !machine.game_over(); ++i) machine.act(i / 20 % 18);
  machine.screen(late);
  REQUIRE(late != early);
  machine.restore(begin);
  machine.screen(restored);
  CHECK(restored == late);
  for (int i = 0; i < 2; ++i) machine.act(no_action);
  machine.screen(restored);
  CHECK(restored != late);
  CHECK(machine.lives() >= 0);
  CHECK(begin_ram.size() == 128);
  CHECK(survives(machine, begin, 1));
}

TEMPLATE_LIST_TEST_CASE(
    "a file that the emulator does not know is refused, not the end of the process",
    "[montezuma][ale]", consoles) {
  if (!cartridge<TestType>()) return;
  const support::temporary_folder folder;
  const auto file = folder.file("montezuma_revenge_not.bin");
  std::FILE* out = std::fopen(file.c_str(), "wb");
  REQUIRE(out != nullptr);
  std::fputs("no cartridge", out);
  std::fclose(out);
  CHECK_THROWS_WITH(TestType(find_rom(file, true)), ContainsSubstring("does not support"));
}

TEMPLATE_LIST_TEST_CASE("a seed plays the same thousand frames twice", "[montezuma][ale]",
                        consoles) {
  const auto rom = cartridge<TestType>();
  if (!rom) return;
  TestType one(*rom, 3), two(*rom, 3);
  std::vector<std::uint8_t> seen, also, colors;
  for (int frame = 0; frame < 1000; ++frame) {
    const int action = frame / 20 * 7 % joystick_actions;
    REQUIRE(one.act(action) == two.act(action));
    REQUIRE(one.ram() == two.ram());
    one.screen(seen);
    two.screen(also);
    REQUIRE(seen == also);
  }
  CHECK(seen.size() == 210 * 160);
  one.colors(colors);
  CHECK(colors.size() == 210 * 160 * 3);
  CHECK(one.save() == two.save());
}

TEMPLATE_LIST_TEST_CASE(
    "the real game begins in room 1 with what is known of it, and rooms are found",
    "[montezuma][ale]", consoles) {
  const auto rom = montezuma_cartridge<TestType>();
  if (!rom) return;
  ale_game<TestType, sight_of_memory> some(TestType(*rom, 1), 1);
  CHECK(some.room() == 1);
  CHECK(some.machine().lives() == 6);
  CHECK(some.ram()[58] + 1 == some.machine().lives());
  CHECK(some.ram()[65] == 0);
  explorer<TestType> search(TestType(*rom, 1), {.seed = 1, .per_room = 1});
  for (int i = 0; i < 3000 && search.found().rooms.empty(); ++i) search.walk();
  CHECK_FALSE(search.found().rooms.empty());
}
#else
TEST_CASE("the real emulator", "[montezuma][ale]") {
  skip_test(
      "built without the Arcade Learning Environment: apt install pybind11-dev python3-dev, or "
      "install its C++ library and configure with -Dale_DIR=PREFIX/lib/cmake/ale");
}
#endif

namespace montezuma_ale_console_test {}  // namespace montezuma_ale_console_test
