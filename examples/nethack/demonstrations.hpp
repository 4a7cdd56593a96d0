// SPDX-License-Identifier: MIT
// Files of demonstrations: the screens that a player saw and the keys that it wanted, step by step,
// at about a hundred bytes per step.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <istream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <retain/files/new_file.hpp>

#include "demonstration_format.hpp"

namespace nethack {

/// Makes the bytes of a file of demonstrations, and passes them on block by block.
class demonstration_encoder {
 public:
  using sink = std::function<void(std::string_view bytes)>;

  demonstration_encoder(sink takes, const demonstration_header& header) : takes_(std::move(takes)) {
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

  /// Adds the next step; `first` if a game begins.
  void write(const observation& seen, key wanted, key sent, bool first) {
    if (wanted == 0 || sent == 0) throw std::logic_error("demonstration_writer: 0 is not a key");
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
    const bool cursor_on_hero =
        seen.cursor_row == seen.hero_row && seen.cursor_column == seen.hero_column;
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
    if (const status known = detail::status_on_screen(seen, before_.stats);
        !(known == seen.stats)) {
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

  /// Adds the end of a game, after its last step.
  void end_game(const game_outcome& outcome) {
    if (block_steps_ == 0)
      throw std::logic_error("demonstration_writer: a game can only end after one of its steps");
    block_.put(detail::demonstration_flags::outcome);
    block_.put(0);  // no key is 0, so 0 marks an outcome
    block_.put_f64(outcome.score);
    block_.put_signed(outcome.turns);
    block_.put_signed(outcome.depth);
    block_.put(outcome.ending);
    ++games_;
  }

  /// Completes the file. Nothing can be written after that.
  void finish() {
    end_block();
    detail::byte_writer end;
    end.put_u64(steps_);
    end.put_u64(games_);
    const std::uint32_t sum = detail::crc32(end.bytes);
    end.put_u32(sum);
    emit("END." + end.bytes);
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
  void emit(std::string_view bytes) {
    takes_(bytes);
    bytes_ += bytes.size();
  }

  sink takes_;
  detail::byte_writer block_;
  std::uint32_t block_steps_ = 0;
  std::uint64_t steps_ = 0, games_ = 0, bytes_ = 0;
  observation before_;
};

/// Writes a file of demonstrations, and makes its folder. The file gets its name only when `close`
/// is called. Until then a temporary file in the same folder has the data. If the writer is
/// destroyed without `close`, it removes the temporary file. Throws if the disk is full, and if the
/// name belongs to something that is not a file.
class demonstration_writer {
 public:
  demonstration_writer(const std::filesystem::path& file, const demonstration_header& header)
      : file_(place(file)),
        encoder_([this](std::string_view bytes) { file_.put(bytes); }, header) {}
  demonstration_writer(const demonstration_writer&) = delete;
  demonstration_writer& operator=(const demonstration_writer&) = delete;

  /// Adds the next step; `first` if a game begins.
  void write(const observation& seen, key wanted, key sent, bool first) {
    encoder_.write(seen, wanted, sent, first);
  }
  /// Adds the end of a game, after its last step.
  void end_game(const game_outcome& outcome) { encoder_.end_game(outcome); }

  /// Completes the file and gives it its name.
  void close() {
    if (closed_) return;
    encoder_.finish();
    file_.take_place();
    closed_ = true;
  }

  std::uint64_t steps() const { return encoder_.steps(); }
  std::uint64_t games() const { return encoder_.games(); }
  std::uint64_t bytes() const { return encoder_.bytes(); }

 private:
  static std::string place(const std::filesystem::path& file) {
    if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
    return file.string();
  }

  retain::detail::new_file file_;
  demonstration_encoder encoder_;
  bool closed_ = false;
};

/// Reads a file of demonstrations from start to end, with one block in memory at a time.
///
///     demonstration_reader in("demonstrations.bin");
///     while (const demonstration* step = in.next()) use(step->seen, step->wanted);
///
/// Damage throws std::runtime_error with the file, the byte and what to do. The error is thrown
/// when the reader reaches the damage: the steps of all earlier blocks are valid.
class demonstration_reader {
 public:
  explicit demonstration_reader(const std::filesystem::path& file)
      : demonstration_reader(std::make_unique<std::ifstream>(file, std::ios::binary),
                             file.string()) {}
  /// `name` is the name of the file in errors.
  demonstration_reader(std::unique_ptr<std::istream> file, std::string name)
      : name_(std::move(name)), in_(std::move(file)) {
    if (!*in_)
      throw std::runtime_error(name_ +
                               ": cannot be opened; record it first (nethack record --out FILE)");
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
    if (!(header_.noise >= 0 && header_.noise < 1))
      fail(8, "has a header with a noise outside [0, 1)");
  }

  const demonstration_header& header() const { return header_; }

  /// The next step, or null after the last. Returns the same object each time, with new contents.
  const demonstration* next() {
    if (finished_ || (block_in_.empty() && !next_block())) return nullptr;
    try {
      const demonstration& step = block_in_.next();
      ++steps_;
      --block_steps_;
      if (step.last) ++games_;
      if (block_in_.empty() && block_steps_ != 0)
        throw std::out_of_range("has another number of steps than its header says");
      return &step;
      // the checksum is right: another version of the program wrote the file
    } catch (const std::out_of_range& problem) {
      fail(block_offset_, std::string("has a block that ") + problem.what());
    }
  }

  std::uint64_t steps() const { return steps_; }  ///< read so far
  std::uint64_t games() const { return games_; }  ///< games read to their end

 private:
  [[noreturn]] void fail(std::uint64_t offset, const std::string& what) const {
    throw std::runtime_error(name_ + ": " + what + " at byte " + std::to_string(offset) +
                             "; record it again (nethack record --out FILE)");
  }

  std::string take(std::size_t size) {
    // in pieces, so that a wrong size in the file does not allocate much memory
    constexpr std::size_t most = 1 << 20;
    std::string bytes;
    for (std::size_t there = 0; there < size;) {
      const std::size_t wanted = std::min(most, size - there);
      bytes.resize(there + wanted);
      in_->read(&bytes[there], static_cast<std::streamsize>(wanted));
      const auto got = static_cast<std::size_t>(in_->gcount());
      offset_ += got;
      if (got != wanted) fail(offset_, "is cut short");
      there += got;
    }
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
      if (in_->peek() != std::istream::traits_type::eof())
        fail(offset_, "has more bytes after its end");
      finished_ = true;
      return false;
    }
    if (tag != "BLCK") fail(block_offset_, "is damaged");
    const std::string head = take(12);
    detail::byte_reader in(head);
    const std::uint32_t size = in.get_u32();
    block_steps_ = in.get_u32();
    const std::uint32_t sum = in.get_u32();
    if (size == 0 || size > 1 << 26) fail(block_offset_, "is damaged");
    block_ = take(size);
    if (detail::crc32(head.substr(0, 8) + block_) != sum)
      fail(block_offset_, "is damaged (a block's checksum does not match)");
    block_in_.begin(block_);
    return true;
  }

  std::string name_;
  std::unique_ptr<std::istream> in_;
  demonstration_header header_;
  std::string block_;
  detail::step_reader block_in_;
  std::uint32_t block_steps_ = 0;  // left in the block
  std::uint64_t offset_ = 0, block_offset_ = 0, steps_ = 0, games_ = 0;
  bool finished_ = false;
};

}  // namespace nethack
