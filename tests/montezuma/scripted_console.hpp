// SPDX-License-Identifier: MIT
// A console that plays a script, with the traps of the real one: after a restore its screen and
// memory are those of before until a frame is played, its frame counter comes back with a state,
// and a state can be doomed.
#pragma once

#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "ale_machine.hpp"
#include "frames.hpp"

namespace scripted {

inline constexpr int fire = 1, up = 2, right = 3, left = 4, down = 5;

/// Rooms 1, 2, 6, 7 and 13 in a row, each 160 wide; right and left go 4 a frame, from one to the
/// next. FIRE in the right half of room 1 takes a key once, for 100 points; UP pays 300 as often as
/// wanted; DOWN lets go: ten frames later a life is lost, and the hero is where he came into the
/// room. Who comes into room 13 falls at once. Six lives.
///
/// The screen is 10 times the room in grey; a beam of 16 columns, at the hero, flashes in every
/// other frame; its lowest row says how many frames were played.
class console {
 public:
  struct state {
    int frame = 0, place = 0, x = 80, entered = 80, lives = 6, items = 0, falling = 0, taken = 0;
    bool operator==(const state&) const = default;
  };
  static constexpr std::array<int, 5> rooms{1, 2, 6, 7, 13};

  explicit console(std::string name = "script") : name_(std::move(name)) { reset_game(); }

  int act(int action) {
    int paid = 0;
    if (!game_over()) {
      ++now_.frame;
      paid = move(action);
    }
    actions.push_back(action);
    draw();
    return paid;
  }
  void reset_game() {
    now_ = {};
    draw();
  }
  bool game_over() const { return now_.lives == 0; }
  int lives() const { return now_.lives; }
  void screen(std::vector<std::uint8_t>& pixels) const { pixels = pixels_; }
  montezuma::console_ram ram() const { return ram_; }
  std::string save() const {
    return "S" + std::string(reinterpret_cast<const char*>(&now_), sizeof now_);
  }
  void restore(std::string_view saved) {
    if (saved.size() != 1 + sizeof now_ || saved[0] != 'S')
      throw std::runtime_error("no state of the script");
    std::memcpy(&now_, saved.data() + 1, sizeof now_);  // and nothing is drawn
  }
  std::string identity() const { return name_; }

  const state& now() const { return now_; }
  /// A state of the script, for archives.
  static std::string at(const state& where) {
    console some;
    some.now_ = where;
    return some.save();
  }

  std::vector<int> actions;  ///< all that were played

 private:
  int move(int action) {
    if (now_.falling > 0) {
      if (--now_.falling == 0) {
        --now_.lives;
        now_.x = now_.entered;
      }
      return 0;
    }
    if (action == down) now_.falling = 10;
    if (action == up) return 300;
    if (action == fire && now_.place == 0 && now_.x >= 100 && now_.taken == 0) {
      now_.taken = 1;
      now_.items |= 2;
      return 100;
    }
    const int to = now_.x + (action == right ? 4 : action == left ? -4 : 0);
    const int next = to >= 160 ? now_.place + 1 : to < 0 ? now_.place - 1 : now_.place;
    if (next < 0 || next >= static_cast<int>(rooms.size())) return 0;
    if (next != now_.place && rooms[static_cast<std::size_t>(next)] == 13) now_.falling = 30;
    if (next != now_.place) now_.entered = next > now_.place ? 0 : 156;
    now_.x = next > now_.place ? 0 : next < now_.place ? 156 : to;
    now_.place = next;
    return 0;
  }
  int room() const { return rooms[static_cast<std::size_t>(now_.place)]; }
  void draw() {
    ram_ = {};
    ram_[3] = static_cast<std::uint8_t>(room());
    ram_[42] = static_cast<std::uint8_t>(now_.x);
    ram_[43] = 100;
    ram_[65] = static_cast<std::uint8_t>(now_.items);
    pixels_.assign(montezuma::screen_pixels, static_cast<std::uint8_t>(10 * room()));
    if (now_.frame % 2 == 1)
      for (std::size_t row = 0; row < montezuma::screen_rows; ++row)
        for (std::size_t i = 0; i < 16; ++i)
          pixels_[row * montezuma::screen_columns +
                  std::min<std::size_t>(static_cast<std::size_t>(now_.x) + i, 159)] = 250;
    for (std::size_t i = 0; i < montezuma::screen_columns; ++i)
      pixels_[montezuma::screen_pixels - 1 - i] = static_cast<std::uint8_t>(now_.frame % 256);
  }

  std::string name_;
  state now_;
  montezuma::console_ram ram_{};
  std::vector<std::uint8_t> pixels_;
};
static_assert(montezuma::ale_machine<console>);

}  // namespace scripted
