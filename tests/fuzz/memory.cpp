// SPDX-License-Identifier: MIT
// The memory beside a saved game, as far as the network's features.
#include "fuzz.hpp"

#include "features.hpp"
#include "memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <sstream>
#include <stdexcept>

namespace {

constexpr std::size_t tag_size = 8, count_place = 64, levels_place = 68,
                      visited_size = 16 * nethack::rows,
                      visits_size = 2 * nethack::rows * nethack::columns,
                      under_size = nethack::rows * nethack::columns,
                      level_size = 4 + visited_size + visits_size + under_size;

nethack::observation screen(std::mt19937& dice, int depth) {
  nethack::observation seen;
  seen.chars.fill(' ');
  for (int i = 0; i < 300; ++i)
    seen.chars[80 + dice() % (21 * 80)] = static_cast<std::uint8_t>(".#@>+-|$^d"[dice() % 10]);
  seen.hero_row = 1 + static_cast<int>(dice() % 21);
  seen.hero_column = static_cast<int>(dice() % 80);
  seen.stats.depth = depth;
  seen.stats.turn = static_cast<int>(dice() % 2000);
  return seen;
}

std::string bytes_of(const nethack::memory& mind) {
  std::ostringstream out;
  mind.save(out);
  return out.str();
}
nethack::memory memory_of(std::string_view bytes) {
  std::istringstream in{std::string(bytes)};
  nethack::memory mind;
  mind.load(in, "input");
  return mind;
}

void put(std::string& bytes, std::size_t place, std::uint32_t value) {
  for (std::size_t i = 0; i < 4; ++i) bytes[place + i] = static_cast<char>(value >> (8 * i));
}

/// Visits where the hero has been and nowhere else; and tokens that there are, where that is asked
/// for.
void make_level_right(std::string& bytes, std::size_t at, bool tokens) {
  const std::size_t visited = at + 4, visits = visited + visited_size, under = visits + visits_size;
  for (std::size_t row = 0; row < static_cast<std::size_t>(nethack::rows); ++row)
    for (std::size_t column = 0; column < 128; ++column) {
      char& byte = bytes[visited + 16 * row + column / 8];
      const char bit = static_cast<char>(1 << column % 8);
      if (row < nethack::first_map_row || row > nethack::last_map_row ||
          column >= static_cast<std::size_t>(nethack::columns))
        byte = static_cast<char>(byte & ~bit);
      if (column >= static_cast<std::size_t>(nethack::columns)) continue;
      char* count = &bytes[visits + 2 * (row * nethack::columns + column)];
      if ((byte & bit) == 0)
        count[0] = count[1] = 0;
      else if (count[0] == 0 && count[1] == 0)
        count[0] = 1;
    }
  for (std::size_t i = 0; tokens && i < under_size; ++i)
    bytes[under + i] =
        static_cast<char>(static_cast<unsigned char>(bytes[under + i]) % nethack::token_count);
}

}  // namespace

std::vector<std::string> fuzz::seeds() {
  std::vector<std::string> all;
  for (const int levels : {0, 1, 3}) {
    std::mt19937 dice(static_cast<unsigned>(levels));
    nethack::memory mind;
    for (int depth = 1; depth <= levels; ++depth)
      for (int i = 0; i < 12; ++i)
        mind.observe(screen(dice, depth), static_cast<int>(dice() % nethack::small_actions.size()));
    all.push_back(bytes_of(mind));
  }
  // of the version before
  all.push_back("memory02" + all.back().substr(tag_size, all.back().size() - tag_size - 4));
  return all;
}

std::string fuzz::mutate(const std::string& bytes, std::size_t most, std::mt19937& dice) {
  if (bytes.size() < levels_place + 4 || dice() % 16 == 0) return change(bytes, most, dice);
  const bool is_old = bytes.compare(0, tag_size, "memory02") == 0;
  std::string all = is_old ? bytes : bytes.substr(0, bytes.size() - 4);
  const std::size_t room = most > 4 ? most - 4 : 0;
  if (dice() % 2 == 0) {  // the numbers in front
    std::string front =
        change(all.substr(tag_size, count_place - tag_size), count_place - tag_size, dice);
    front.resize(count_place - tag_size);
    all.replace(tag_size, count_place - tag_size, front);
  } else if (dice() % 4 == 0) {
    all = all.substr(0, tag_size) +
          change(all.substr(tag_size), room > tag_size ? room - tag_size : 0, dice);
  } else if (all.size() >= levels_place + level_size) {
    const std::size_t at =
        levels_place + dice() % ((all.size() - levels_place) / level_size) * level_size;
    if (dice() % 4 == 0) {
      if (all.size() + level_size <= room) all += all.substr(at, level_size);
      if (dice() % 2 == 0) put(all, at, static_cast<std::uint32_t>(dice() % 130) - 1);
    } else {
      std::string level = change(all.substr(at, level_size), level_size, dice);
      level.resize(level_size);
      all.replace(at, level_size, level);
    }
  }
  if (all.size() >= levels_place && dice() % 4 != 0) {
    const std::size_t count = (all.size() - levels_place) / level_size;
    put(all, count_place, static_cast<std::uint32_t>(count));
    all.resize(levels_place + count * level_size);
    for (std::size_t i = 0; i < count; ++i)
      make_level_right(all, levels_place + i * level_size, dice() % 4 != 0);
  }
  if (is_old) return all;
  nethack::detail::byte_writer sum;
  sum.put_u32(nethack::detail::crc32(all));
  return all + sum.bytes;
}

void fuzz::check(std::string_view bytes) {
  nethack::memory mind;
  try {
    mind = memory_of(bytes);
  } catch (const std::runtime_error&) {
    return;
  }
  const std::string written = bytes_of(mind);
  require(bytes.size() == written.size()
              ? bytes == written
              : bytes.size() + 4 == written.size() &&
                    bytes.substr(tag_size) ==
                        std::string_view(written).substr(tag_size, bytes.size() - tag_size),
          "a memory is written back the same");
  require(bytes_of(memory_of(written)) == written, "what is written is read");
  require(mind.hero_row() >= nethack::first_map_row && mind.hero_row() <= nethack::last_map_row &&
              mind.hero_column() >= 0 && mind.hero_column() < nethack::columns,
          "the hero is on the map");
  for (std::size_t at = levels_place; at + level_size <= written.size(); at += level_size)
    for (std::size_t i = level_size - under_size; i < level_size; ++i)
      require(static_cast<unsigned char>(written[at + i]) < nethack::token_count,
              "what lies under the hero is one of the tokens");
  std::mt19937 dice(static_cast<unsigned>(bytes.size()));
  for (const int depth : {1, 1, 2}) {
    const auto seen = screen(dice, depth);
    mind.observe(seen, static_cast<int>(dice() % nethack::small_actions.size()));
    const auto record = nethack::encode(seen, mind);
    for (const auto token : record.tokens)
      require(token < nethack::token_count, "a token is one of those that there are");
    for (std::size_t i = 0; i < record.row_count; ++i)
      require(record.rows[i] < nethack::table::size, "a row is one of the table");
  }
}
