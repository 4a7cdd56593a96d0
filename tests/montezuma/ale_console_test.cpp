// SPDX-License-Identifier: MIT
// The real emulator, where it is installed, with whatever cartridge there is: Montezuma's Revenge
// from ALE_ROMS_DIR, or any that RETAIN_TEST_ROM names. What only Montezuma's Revenge can show is
// skipped with another.
#include "../support.hpp"

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ale_game.hpp"
#include "explore.hpp"
#include "rom.hpp"

#ifdef MONTEZUMA_WITH_ALE
#include "ale_console.hpp"

namespace {

using namespace montezuma;
using game = ale_game<ale_console>;
static_assert(emulator<game>);

std::optional<rom_file> cartridge() {
  try {
    if (const char* file = std::getenv("RETAIN_TEST_ROM"); file != nullptr)
      return find_rom(file, true);
    return find_rom("", false);
  } catch (const std::exception& error) {
    skip_test(std::string(error.what()) +
              "; or name any cartridge that the emulator knows with RETAIN_TEST_ROM");
    return {};
  }
}
std::optional<rom_file> montezuma_cartridge() {
  const auto rom = cartridge();
  if (!rom || rom->md5 == montezuma_md5) return rom;
  skip_test(rom->path.string() + " is not Montezuma's Revenge");
  return {};
}

std::vector<std::uint8_t> seen_by(const game& some) {
  std::vector<std::uint8_t> pixels(frames_stacked * frame_pixels);
  some.observe(pixels.data());
  return pixels;
}

}  // namespace

TEST_CASE("the real emulator goes on from a saved state bit for bit, in another one too",
          "[montezuma][ale]") {
  const auto rom = cartridge();
  if (!rom) return;
  game one(ale_console(*rom, 1), 5), two(ale_console(*rom, 2), 6);
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

TEST_CASE(
    "the real emulator's screen is stale behind a restore, and an episode's first picture is not",
    "[montezuma][ale]") {
  const auto rom = cartridge();
  if (!rom) return;
  ale_console machine(*rom);
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

TEST_CASE("a file that the emulator does not know is refused, not the end of the process",
          "[montezuma][ale]") {
  const support::temporary_folder folder;
  const auto file = folder.file("montezuma_revenge_not.bin");
  std::FILE* out = std::fopen(file.c_str(), "wb");
  REQUIRE(out != nullptr);
  std::fputs("no cartridge", out);
  std::fclose(out);
  CHECK_THROWS_WITH(ale_console(find_rom(file, true)), ContainsSubstring("does not support"));
}

TEST_CASE("the real game begins in room 1 with what is known of it, and rooms are found",
          "[montezuma][ale]") {
  const auto rom = montezuma_cartridge();
  if (!rom) return;
  game some(ale_console(*rom), 1);
  CHECK(some.room() == 1);
  CHECK(some.machine().lives() == 6);
  CHECK(some.ram()[65] == 0);
  explorer<ale_console> search(ale_console(*rom), {.seed = 1, .per_room = 1});
  for (int i = 0; i < 3000 && search.found().rooms.empty(); ++i) search.walk();
  CHECK_FALSE(search.found().rooms.empty());
}
#else
TEST_CASE("the real emulator", "[montezuma][ale]") {
  skip_test("built without the Arcade Learning Environment: install its C++ library and configure "
            "with -Dale_DIR=PREFIX/lib/cmake/ale");
}
#endif

namespace montezuma_ale_console_test {}  // namespace montezuma_ale_console_test
