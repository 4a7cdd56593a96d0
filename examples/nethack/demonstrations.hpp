// SPDX-License-Identifier: MIT
// Demonstrations on disk: what a player saw and which key it wanted, step by step, at about a hundred bytes a step.
//
// The file, all numbers little-endian, `varint` with seven bits a byte, the low ones first:
//
//   header   "NHDEMO1\n", u32 size of what follows in the header, u64 seed, u32 turn cap, f64 noise,
//            u32 number of actions and a byte for each, varint length and text of `player`, u32 CRC-32 of all before
//   blocks   "BLCK", u32 size of the payload, u32 steps, u32 CRC-32 of size, steps and payload, the payload
//   end      "END.", u64 steps, u64 games, u32 CRC-32 of the two: its absence means that the file was cut short
//
// A payload is a series of records, each begun by a byte of flags (see `demonstration_flags`). A screen is written
// as what differs from the one before in the block, the first as what differs from a blank one: so every block is
// readable by itself. The status, the message and the changed rows are written only where they do not follow from the screen.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "actions.hpp"
#include "observation.hpp"
#include "status_line.hpp"

namespace nethack {

/// What was recorded, and how.
struct demonstration_header {
  std::uint64_t seed = 0;
  std::uint32_t turn_cap = 2000;
  double noise = 0;             ///< share of moves that were replaced at random
  std::vector<key> actions;     ///< the small action set of the recording program
  std::string player;           ///< who played, and with which settings
};

/// How a game came out.
struct game_outcome {
  double score = 0;
  int turns = 0;
  int depth = 0;                ///< the deepest level
  std::uint8_t ending = 0;      ///< as in `environment`
  bool operator==(const game_outcome&) const = default;
};

/// One step: the screen, the key the player wanted there, and the one that was pressed.
struct demonstration {
  observation seen;
  key wanted = 0, sent = 0;
  bool first = false, last = false;  ///< of its game; a recording that was stopped early has no last step
  game_outcome outcome;              ///< meaningful where `last`
};

namespace detail {

namespace demonstration_flags {
enum : std::uint8_t {
  first = 1, question = 2, replaced = 4,  // replaced: the pressed key differs from the wanted one
  screen = 8, message = 16, stats = 32,   // written out, as they do not follow from what is known
  rows = 64, cursor = 128
};
inline constexpr std::uint8_t outcome = question | cursor | first;  // with no other bit and no key: the game has ended
}  // namespace demonstration_flags

inline constexpr std::array<std::uint32_t, 256> crc32_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value & 1u) ? 0xedb88320u ^ (value >> 1) : value >> 1;
    table[i] = value;
  }
  return table;
}();

inline std::uint32_t crc32(std::string_view bytes) {
  std::uint32_t value = ~0u;
  for (const char byte : bytes) value = crc32_table[(value ^ static_cast<unsigned char>(byte)) & 0xffu] ^ (value >> 8);
  return ~value;
}

class byte_writer {
 public:
  std::string bytes;

  void put(std::uint8_t value) { bytes.push_back(static_cast<char>(value)); }
  void put_u32(std::uint32_t value) { put_fixed(value, 4); }
  void put_u64(std::uint64_t value) { put_fixed(value, 8); }
  void put_f64(double value) { put_u64(std::bit_cast<std::uint64_t>(value)); }
  void put_varint(std::uint64_t value) {
    for (; value >= 128; value >>= 7) put(static_cast<std::uint8_t>(value | 128));
    put(static_cast<std::uint8_t>(value));
  }
  /// Small numbers of either sign in few bytes.
  void put_signed(std::int64_t value) { put_varint((static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63)); }
  void put_text(std::string_view text) {
    put_varint(text.size());
    bytes.append(text);
  }

 private:
  void put_fixed(std::uint64_t value, int size) {
    for (int i = 0; i < size; ++i) put(static_cast<std::uint8_t>(value >> (8 * i)));
  }
};

/// Throws std::out_of_range past the end; the reader of the file says where that was.
class byte_reader {
 public:
  byte_reader() = default;
  explicit byte_reader(std::string_view bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  std::size_t left() const { return rest_.size(); }
  std::uint8_t peek() const {
    if (rest_.empty()) throw std::out_of_range("ends early");
    return static_cast<std::uint8_t>(rest_.front());
  }
  std::uint8_t peek_second() const { return rest_.size() < 2 ? 0 : static_cast<std::uint8_t>(rest_[1]); }
  std::uint8_t get() {
    const std::uint8_t value = peek();
    rest_.remove_prefix(1);
    return value;
  }
  std::uint32_t get_u32() { return static_cast<std::uint32_t>(get_fixed(4)); }
  std::uint64_t get_u64() { return get_fixed(8); }
  double get_f64() { return std::bit_cast<double>(get_u64()); }
  std::uint64_t get_varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = get();
      value |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw std::out_of_range("has a number that is too long");
  }
  std::int64_t get_signed() {
    const std::uint64_t value = get_varint();
    return static_cast<std::int64_t>((value >> 1) ^ (~(value & 1) + 1));
  }
  std::string_view get_text() { return get_bytes(get_varint()); }
  std::string_view get_bytes(std::uint64_t size) {
    if (size > rest_.size()) throw std::out_of_range("ends early");
    const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(taken.size());
    return taken;
  }

 private:
  std::uint64_t get_fixed(int size) {
    std::uint64_t value = 0;
    for (int i = 0; i < size; ++i) value |= static_cast<std::uint64_t>(get()) << (8 * i);
    return value;
  }
  std::string_view rest_;
};

/// The numbers of a status in a fixed order, for reading and writing alike.
template <class Status, class Visit>
void for_each_number(Status& s, Visit visit) {
  for (auto* number : {&s.strength, &s.strength_percent, &s.dexterity, &s.constitution, &s.intelligence, &s.wisdom, &s.charisma,
                       &s.hp, &s.hp_max, &s.energy, &s.energy_max, &s.armor_class, &s.depth, &s.gold, &s.level, &s.experience,
                       &s.turn, &s.hunger, &s.burden, &s.condition, &s.alignment, &s.score, &s.hit_dice})
    visit(*number);
}

/// What follows from a screen without being told, the same for writer and reader.
inline std::string message_on_screen(const observation& seen) {
  std::string_view line = seen.line(0);
  while (!line.empty() && line.back() == ' ') line.remove_suffix(1);
  return std::string(line);
}

inline status status_on_screen(const observation& seen, status before) {
  parse_status(seen.line(rows - 2), seen.line(rows - 1), before);
  return before;
}

inline constexpr std::uint32_t all_rows = (1u << rows) - 1;

inline observation blank_observation() {
  observation blank;
  blank.chars.fill(' ');
  blank.changed_rows = 0;
  return blank;
}

/// Writes the cells that differ as runs: cells to skip, cells that follow, their characters, their colours as (colour, how often).
/// Equal stretches of up to two cells are cheaper inside a run than between two. Returns the rows that differ.
inline std::uint32_t write_screen(byte_writer& out, const observation& before, const observation& now) {
  constexpr std::size_t shortest_gap = 3;
  std::uint32_t changed = 0;
  std::size_t written = 0;  // cells up to here are known to the reader
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t begin = row * columns, end = begin + columns;
    if (std::memcmp(&before.chars[begin], &now.chars[begin], columns) == 0 && std::memcmp(&before.colors[begin], &now.colors[begin], columns) == 0)
      continue;
    changed |= 1u << row;
    const auto differs = [&](std::size_t i) { return before.chars[i] != now.chars[i] || before.colors[i] != now.colors[i]; };
    for (std::size_t i = begin; i < end;) {
      if (!differs(i)) {
        ++i;
        continue;
      }
      std::size_t last = i;
      for (std::size_t next = i + 1; next < end && next - last <= shortest_gap; ++next)
        if (differs(next)) last = next;
      out.put_varint(i - written);
      out.put_varint(last - i + 1);
      for (std::size_t cell = i; cell <= last; ++cell) out.put(now.chars[cell]);
      for (std::size_t cell = i; cell <= last;) {
        std::size_t same = cell;
        while (same <= last && now.colors[same] == now.colors[cell]) ++same;
        out.put(now.colors[cell]);
        out.put_varint(same - cell);
        cell = same;
      }
      i = written = last + 1;
    }
  }
  out.put_varint(static_cast<std::size_t>(rows * columns) - written);
  out.put_varint(0);  // a run of no cells ends the screen
  return changed;
}

inline std::uint32_t read_screen(byte_reader& in, observation& seen) {
  constexpr std::size_t cells = rows * columns;
  std::uint32_t changed = 0;
  std::size_t at = 0;
  for (;;) {
    const auto skip = in.get_varint(), length = in.get_varint();
    if (skip > cells - at || length > cells - at - skip) throw std::out_of_range("writes past the screen");
    if (length == 0) return changed;
    at += static_cast<std::size_t>(skip);
    const auto characters = in.get_bytes(length);
    std::memcpy(&seen.chars[at], characters.data(), characters.size());
    const std::size_t end = at + characters.size();
    for (std::size_t cell = at; cell < end;) {
      const std::uint8_t color = in.get();
      const auto count = in.get_varint();
      if (count == 0 || count > end - cell) throw std::out_of_range("has colours that do not fit");
      std::memset(&seen.colors[cell], color, static_cast<std::size_t>(count));
      cell += static_cast<std::size_t>(count);
    }
    for (std::size_t row = at / columns; row <= (end - 1) / columns; ++row) changed |= 1u << row;
    at = end;
  }
}

}  // namespace detail

/// Writes a file of demonstrations. It appears under its name only when `close` has been called; until then, and
/// after an exception, there is at most FILE.part, which the destructor removes.
class demonstration_writer {
 public:
  demonstration_writer(std::filesystem::path file, const demonstration_header& header)
      : file_(std::move(file)), part_(file_.string() + ".part") {
    if (file_.has_parent_path()) std::filesystem::create_directories(file_.parent_path());
    out_.open(part_, std::ios::binary | std::ios::trunc);
    detail::byte_writer body, head;
    body.put_u64(header.seed);
    body.put_u32(header.turn_cap);
    body.put_f64(header.noise);
    body.put_u32(static_cast<std::uint32_t>(header.actions.size()));
    for (const key code : header.actions) body.put(code);
    body.put_text(header.player);
    head.bytes = "NHDEMO1\n";
    head.put_u32(static_cast<std::uint32_t>(body.bytes.size() + 4));
    head.bytes += body.bytes;
    head.put_u32(detail::crc32(head.bytes));
    emit(head.bytes);
    begin_block();
  }
  demonstration_writer(const demonstration_writer&) = delete;
  demonstration_writer& operator=(const demonstration_writer&) = delete;
  ~demonstration_writer() {
    if (closed_) return;
    out_.close();
    std::error_code ignored;
    std::filesystem::remove(part_, ignored);
  }

  /// The next step; `first` where a game begins.
  void write(const observation& seen, key wanted, key sent, bool first) {
    if (wanted == 0) throw std::logic_error("demonstration_writer: 0 is no key");
    if (block_.bytes.size() >= block_size) end_block();
    namespace flags = detail::demonstration_flags;
    std::uint8_t set = 0;
    if (first) set |= flags::first;
    if (seen.waiting == prompt::question) set |= flags::question;
    if (sent != wanted) set |= flags::replaced;
    const std::size_t place_of_flags = block_.bytes.size();
    block_.put(0);
    block_.put(wanted);
    if (sent != wanted) block_.put(sent);

    const std::size_t place_of_screen = block_.bytes.size();
    const std::uint32_t changed = detail::write_screen(block_, before_, seen);
    if (changed)
      set |= flags::screen;
    else
      block_.bytes.resize(place_of_screen);
    const bool cursor_on_hero = seen.cursor_row == seen.hero_row && seen.cursor_column == seen.hero_column;
    if (!cursor_on_hero) {
      set |= flags::cursor;
      block_.put_signed(seen.cursor_row);
      block_.put_signed(seen.cursor_column);
    }
    block_.put_signed(seen.hero_row - before_.hero_row);
    block_.put_signed(seen.hero_column - before_.hero_column);
    if (seen.message != detail::message_on_screen(seen)) {
      set |= flags::message;
      block_.put_text(seen.message);
    }
    if (const status known = detail::status_on_screen(seen, before_.stats); !(known == seen.stats)) {
      set |= flags::stats;
      detail::for_each_number(seen.stats, [&](int number) { block_.put_signed(number); });
    }
    if (seen.changed_rows != (first ? detail::all_rows : changed)) {
      set |= flags::rows;
      block_.put_varint(seen.changed_rows);
    }
    block_.bytes[place_of_flags] = static_cast<char>(set);
    before_ = seen;
    ++block_steps_;
    ++steps_;
  }

  /// The game has ended with the step written last.
  void end_game(const game_outcome& outcome) {
    if (block_steps_ == 0) throw std::logic_error("demonstration_writer: a game ends after a step of it");
    block_.put(detail::demonstration_flags::outcome);
    block_.put(0);  // no key is 0, which tells an outcome from a step
    block_.put_f64(outcome.score);
    block_.put_signed(outcome.turns);
    block_.put_signed(outcome.depth);
    block_.put(outcome.ending);
    ++games_;
  }

  /// Completes the file and gives it its name.
  void close() {
    if (closed_) return;
    end_block();
    detail::byte_writer end;
    end.put_u64(steps_);
    end.put_u64(games_);
    const std::uint32_t sum = detail::crc32(end.bytes);
    end.put_u32(sum);
    emit("END." + end.bytes);
    out_.close();
    if (!out_) throw std::runtime_error(part_.string() + ": writing failed; is the disk full?");
    std::filesystem::rename(part_, file_);
    closed_ = true;
  }

  std::uint64_t steps() const { return steps_; }
  std::uint64_t games() const { return games_; }
  std::uint64_t bytes() const { return bytes_ + block_.bytes.size(); }

 private:
  static constexpr std::size_t block_size = 1 << 18;

  void begin_block() {
    block_.bytes.clear();
    block_steps_ = 0;
    before_ = detail::blank_observation();
  }
  void end_block() {
    if (block_steps_ == 0) return;
    detail::byte_writer head;
    head.put_u32(static_cast<std::uint32_t>(block_.bytes.size()));
    head.put_u32(block_steps_);
    const std::uint32_t sum = detail::crc32(head.bytes + block_.bytes);
    head.put_u32(sum);
    emit("BLCK" + head.bytes);
    emit(block_.bytes);
    begin_block();
  }
  void emit(const std::string& bytes) {
    out_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!out_) throw std::runtime_error(part_.string() + ": cannot write here; check the folder's permissions and the free space");
    bytes_ += bytes.size();
  }

  std::filesystem::path file_, part_;
  std::ofstream out_;
  detail::byte_writer block_;
  std::uint32_t block_steps_ = 0;
  std::uint64_t steps_ = 0, games_ = 0, bytes_ = 0;
  observation before_;
  bool closed_ = false;
};

/// Reads a file of demonstrations from front to back, a block in memory at a time.
///
///     demonstration_reader in("demonstrations.bin");
///     while (const demonstration* step = in.next()) use(step->seen, step->wanted);
///
/// Damage is a std::runtime_error that names the file, the byte and what to do. It is thrown where it is met: the
/// steps of the blocks before were good.
class demonstration_reader {
 public:
  explicit demonstration_reader(std::filesystem::path file) : file_(std::move(file)), in_(file_, std::ios::binary) {
    if (!in_) throw std::runtime_error(file_.string() + ": cannot be opened; record it first (nethack record --out FILE)");
    const std::string magic = take(8);
    if (magic != "NHDEMO1\n") fail(0, "is not a file of demonstrations (or of another version)");
    const std::string size_bytes = take(4);
    const std::uint32_t size = detail::byte_reader(size_bytes).get_u32();
    if (size < 28 || size > 1 << 20) fail(8, "has a damaged header");
    const std::string body = take(size);
    detail::byte_reader in(body);
    try {
      header_.seed = in.get_u64();
      header_.turn_cap = in.get_u32();
      header_.noise = in.get_f64();
      const auto actions = in.get_bytes(in.get_u32());
      for (const char code : actions) header_.actions.push_back(static_cast<key>(code));
      header_.player = in.get_text();
    } catch (const std::out_of_range&) {
      fail(8, "has a damaged header");
    }
    const std::string before = magic + size_bytes + body.substr(0, body.size() - 4);
    if (in.left() != 4 || in.get_u32() != detail::crc32(before)) fail(8, "has a damaged header");
  }

  const demonstration_header& header() const { return header_; }

  /// The next step, or null after the last. The object is the same each time, with new contents.
  const demonstration* next() {
    if (finished_ || (block_in_.empty() && !next_block())) return nullptr;
    try {
      read_step();
    } catch (const std::out_of_range& problem) {  // the checksum was right: written by a program that differs
      fail(block_offset_, std::string("has a block that ") + problem.what());
    }
    ++steps_;
    if (now_.last) ++games_;
    return &now_;
  }

  std::uint64_t steps() const { return steps_; }  ///< read so far
  std::uint64_t games() const { return games_; }  ///< whose end has been read

 private:
  [[noreturn]] void fail(std::uint64_t offset, const std::string& what) const {
    throw std::runtime_error(file_.string() + ": " + what + " at byte " + std::to_string(offset) +
                             "; record it again (nethack record --out FILE)");
  }

  std::string take(std::size_t size) {
    std::string bytes(size, '\0');
    in_.read(bytes.data(), static_cast<std::streamsize>(size));
    const auto got = static_cast<std::size_t>(in_.gcount());
    if (got != size) fail(offset_ + got, "is cut short");
    offset_ += size;
    return bytes;
  }

  bool next_block() {
    block_offset_ = offset_;
    const std::string tag = take(4);
    if (tag == "END.") {
      const std::string totals = take(20);
      detail::byte_reader in(totals);
      const auto steps = in.get_u64(), games = in.get_u64();
      if (in.get_u32() != detail::crc32(totals.substr(0, 16)) || steps != steps_ || games != games_)
        fail(block_offset_, "lacks blocks or is damaged");
      finished_ = true;
      return false;
    }
    if (tag != "BLCK") fail(block_offset_, "is damaged");
    const std::string head = take(12);
    detail::byte_reader in(head);
    const std::uint32_t size = in.get_u32();
    in.get_u32();
    const std::uint32_t sum = in.get_u32();
    if (size == 0 || size > 1 << 26) fail(block_offset_, "is damaged");
    block_ = take(size);
    if (detail::crc32(head.substr(0, 8) + block_) != sum) fail(block_offset_, "is damaged (a block's checksum does not match)");
    block_in_ = detail::byte_reader(block_);
    now_.seen = detail::blank_observation();
    return true;
  }

  void read_step() {
    namespace flags = detail::demonstration_flags;
    observation& seen = now_.seen;
    const std::uint8_t set = block_in_.get();
    now_.first = set & flags::first;
    now_.wanted = block_in_.get();
    now_.sent = set & flags::replaced ? block_in_.get() : now_.wanted;
    const std::uint32_t changed = set & flags::screen ? detail::read_screen(block_in_, seen) : 0;
    if (set & flags::cursor) {
      seen.cursor_row = static_cast<int>(block_in_.get_signed());
      seen.cursor_column = static_cast<int>(block_in_.get_signed());
    }
    seen.hero_row += static_cast<int>(block_in_.get_signed());
    seen.hero_column += static_cast<int>(block_in_.get_signed());
    if (!(set & flags::cursor)) {
      seen.cursor_row = seen.hero_row;
      seen.cursor_column = seen.hero_column;
    }
    if (set & flags::message)
      seen.message = block_in_.get_text();
    else
      seen.message = detail::message_on_screen(seen);
    if (set & flags::stats)
      detail::for_each_number(seen.stats, [&](int& number) { number = static_cast<int>(block_in_.get_signed()); });
    else
      seen.stats = detail::status_on_screen(seen, seen.stats);
    seen.changed_rows = set & flags::rows ? static_cast<std::uint32_t>(block_in_.get_varint()) : now_.first ? detail::all_rows : changed;
    seen.waiting = set & flags::question ? prompt::question : prompt::command;

    now_.last = false;
    now_.outcome = {};
    if (block_in_.left() >= 2 && block_in_.peek() == flags::outcome && block_in_.peek_second() == 0) {
      block_in_.get();
      block_in_.get();
      now_.last = true;
      now_.outcome.score = block_in_.get_f64();
      now_.outcome.turns = static_cast<int>(block_in_.get_signed());
      now_.outcome.depth = static_cast<int>(block_in_.get_signed());
      now_.outcome.ending = block_in_.get();
    }
  }

  std::filesystem::path file_;
  std::ifstream in_;
  demonstration_header header_;
  std::string block_;
  detail::byte_reader block_in_;
  std::uint64_t offset_ = 0, block_offset_ = 0, steps_ = 0, games_ = 0;
  demonstration now_;
  bool finished_ = false;
};

}  // namespace nethack
