// SPDX-License-Identifier: MIT
// Files of demonstrations, as far as the network's features, which take places of the screen as
// indices.
#include "fuzz.hpp"

#include "demonstrations.hpp"
#include "features.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <sstream>
#include <stdexcept>

namespace {

using nethack::detail::byte_reader;
using nethack::detail::byte_writer;

bool same(const nethack::observation& a, const nethack::observation& b) {
  return a.chars == b.chars && a.colors == b.colors && a.cursor_row == b.cursor_row &&
         a.cursor_column == b.cursor_column && a.hero_row == b.hero_row &&
         a.hero_column == b.hero_column && a.message == b.message && a.waiting == b.waiting &&
         a.stats == b.stats && a.changed_rows == b.changed_rows;
}
bool same(const nethack::demonstration& a, const nethack::demonstration& b) {
  return same(a.seen, b.seen) && a.wanted == b.wanted && a.sent == b.sent && a.first == b.first &&
         a.last == b.last && a.outcome == b.outcome;
}

nethack::demonstration_reader reader_of(std::string_view bytes) {
  return {std::make_unique<std::istringstream>(std::string(bytes)), "input"};
}

/// A file in its parts, with as little belief in it as can be.
struct parts {
  std::string header;
  std::vector<std::string> blocks;
};
parts parts_of(std::string_view bytes) {
  parts found;
  byte_reader in(bytes);
  try {
    in.get_bytes(8);
    const auto size = std::min<std::uint64_t>(in.get_u32(), in.left());
    found.header = in.get_bytes(size);
    found.header.resize(found.header.size() - std::min<std::size_t>(found.header.size(), 4));
    while (in.get_bytes(4) == "BLCK") {
      const auto length = in.get_u32();
      in.get_u64();
      found.blocks.emplace_back(in.get_bytes(std::min<std::uint64_t>(length, in.left())));
    }
  } catch (const std::out_of_range&) {
  }
  return found;
}

std::string file_of(const parts& all) {
  byte_writer file, end;
  file.bytes = "NHDEMO1\n";
  file.put_u32(static_cast<std::uint32_t>(all.header.size() + 4));
  file.bytes += all.header;
  file.put_u32(nethack::detail::crc32(file.bytes));
  std::uint64_t steps = 0, games = 0;
  for (const auto& payload : all.blocks) {
    std::uint32_t its_steps = 0;
    try {
      nethack::detail::step_reader reader;
      for (reader.begin(payload); !reader.empty(); ++its_steps) games += reader.next().last;
    } catch (const std::out_of_range&) {
    }
    steps += its_steps;
    byte_writer head;
    head.put_u32(static_cast<std::uint32_t>(payload.size()));
    head.put_u32(its_steps);
    head.put_u32(nethack::detail::crc32(head.bytes + payload));
    file.bytes += "BLCK" + head.bytes + payload;
  }
  end.put_u64(steps);
  end.put_u64(games);
  end.put_u32(nethack::detail::crc32(end.bytes));
  return file.bytes + "END." + end.bytes;
}

nethack::observation screen(std::mt19937& dice) {
  nethack::observation seen;
  seen.chars.fill(' ');
  for (int i = 0; i < 40; ++i)
    seen.chars[dice() % seen.chars.size()] = static_cast<std::uint8_t>(".#@>+-|$^d"[dice() % 10]);
  for (int i = 0; i < 10; ++i)
    seen.colors[dice() % seen.colors.size()] = static_cast<std::uint8_t>(dice() % 32);
  const auto write = [&](int row, std::string_view text) {
    std::copy(text.begin(), text.end(), seen.chars.begin() + row * nethack::columns);
  };
  write(0, "You see here a lichen corpse.");
  write(22, "Agent the Candidate          St:18/02 Dx:17 Co:18 In:8 Wi:10 Ch:9  Neutral S:0");
  write(23, "Dlvl:2  $:10  HP:14(14) Pw:4(4) AC:4  Xp:1/0 T:77 Hungry");
  seen.hero_row = 1 + static_cast<int>(dice() % 21);
  seen.hero_column = static_cast<int>(dice() % 80);
  seen.cursor_row = seen.hero_row;
  seen.cursor_column = dice() % 2 ? seen.hero_column : 5;
  if (dice() % 2) seen.message = "A message of its own.";
  if (dice() % 4 == 0) seen.waiting = nethack::prompt::question;
  if (dice() % 4 == 0) seen.stats.hp = seen.stats.hp_max = static_cast<int>(dice());
  return seen;
}

}  // namespace

std::vector<std::string> fuzz::seeds() {
  std::vector<std::string> all;
  for (const int steps : {0, 1, 2, 12}) {
    std::mt19937 dice(static_cast<unsigned>(steps));
    std::string bytes;
    nethack::demonstration_encoder out([&](std::string_view more) { bytes += more; },
                                       {3, 2000, 0.05, {'k', 'l', 'j'}, "a player"});
    for (int i = 0; i < steps; ++i) {
      out.write(screen(dice), 'k', dice() % 3 ? 'k' : 'l', i % 4 == 0);
      if (i % 4 == 3) out.end_game({i + 0.5, 100 * i, 2, static_cast<std::uint8_t>(i % 6)});
    }
    out.finish();
    all.push_back(bytes);
  }
  return all;
}

std::string fuzz::mutate(const std::string& bytes, std::size_t most, std::mt19937& dice) {
  if (dice() % 16 == 0) return change(bytes, most, dice);
  auto all = parts_of(bytes);
  constexpr std::size_t frame = 200;  // of lengths and checksums
  const std::size_t room = most > bytes.size() + frame ? most - bytes.size() - frame : 0;
  if (all.blocks.empty()) all.blocks.emplace_back();
  const std::size_t which = dice() % all.blocks.size();
  switch (dice() % 12) {
    case 0: all.header = change(all.header, all.header.size() + room, dice); break;
    case 1:
      if (all.blocks[which].size() < room) all.blocks.push_back(all.blocks[which]);
      break;
    case 2: all.blocks.erase(all.blocks.begin() + static_cast<std::ptrdiff_t>(which)); break;
    default:
      all.blocks[which] = change(all.blocks[which], all.blocks[which].size() + room, dice);
      break;
  }
  return file_of(all);
}

void fuzz::check(std::string_view bytes) {
  std::string again;
  try {
    auto in = reader_of(bytes);
    nethack::demonstration_encoder out([&](std::string_view more) { again += more; }, in.header());
    nethack::memory mind;
    int pressed = nethack::memory::no_action;
    while (const auto* step = in.next()) {
      const auto& seen = step->seen;
      require(seen.hero_row >= 0 && seen.hero_row < nethack::rows && seen.hero_column >= 0 &&
                  seen.hero_column < nethack::columns,
              "the hero is on the screen");
      require(seen.cursor_row >= 0 && seen.cursor_row < nethack::rows && seen.cursor_column >= 0 &&
                  seen.cursor_column < nethack::columns,
              "the cursor is on the screen");
      require(seen.changed_rows <= nethack::detail::all_rows,
              "rows that changed are rows of the screen");
      require(step->wanted != 0 && step->sent != 0, "0 is no key");
      require(step->outcome.ending <= nethack::last_ending,
              "an ending is one of those that there are");
      if (step->first) {
        mind.reset();
        pressed = nethack::memory::no_action;
      }
      mind.observe(seen, pressed);
      const auto record = nethack::encode(seen, mind);
      for (const auto token : record.tokens)
        require(token < nethack::token_count, "a token is one of those that there are");
      require(record.row_count <= record.rows.size(), "rows of the table have a place");
      for (std::size_t i = 0; i < record.row_count; ++i)
        require(record.rows[i] < nethack::table::size, "a row is one of the table");
      pressed = nethack::small_action_of(step->sent);
      out.write(seen, step->wanted, step->sent, step->first);
      if (step->last) out.end_game(step->outcome);
    }
    out.finish();
  } catch (const std::runtime_error&) {
    return;
  }
  auto in = reader_of(bytes), back = reader_of(again);
  require(in.header().seed == back.header().seed &&
              in.header().turn_cap == back.header().turn_cap &&
              in.header().noise == back.header().noise &&
              in.header().actions == back.header().actions &&
              in.header().player == back.header().player,
          "the header is written back the same");
  for (;;) {
    const auto *one = in.next(), *other = back.next();
    require((one == nullptr) == (other == nullptr), "all steps are written back");
    if (one == nullptr) break;
    require(same(*one, *other), "a step is written back the same");
  }
}
