// SPDX-License-Identifier: MIT
// The Arcade Learning Environment of the Python package ale-py as a console.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <interpreter.hpp>

#include "ale_machine.hpp"
#include "frames.hpp"
#include "rom.hpp"

namespace montezuma {

inline constexpr const char* ale_package = "ale-py==0.12.1";

/// The cartridge that ale-py brings, after python::start().
inline std::string packaged_rom() {
  return python::call("ale_py.roms.get_rom_path", [] {
    python::import("ale_py", ale_package);
    return python::py::module_::import("ale_py.roms")
        .attr("get_rom_path")("montezuma_revenge")
        .attr("__str__")()
        .cast<std::string>();
  });
}

/// One ale_py.ALEInterface, frame by frame. Its sticky actions and its frame limit are off, as in
/// ale_console. Python runs one thread at a time: several games are no faster on several threads.
class python_console {
 public:
  explicit python_console(const rom_file& rom, std::uint64_t seed = 1) : identity_(rom.md5) {
    python::call("ale_py", [&] {
      namespace py = python::py;
      const auto ale = python::import("ale_py", ale_package);
      const auto kind = ale.attr("ALEInterface");
      kind.attr("setLoggerMode")(ale.attr("LoggerMode").attr("Error"));
      const auto file = py::module_::import("pathlib").attr("Path")(rom.path.string());
      // ALE ends the process if it loads a game that it does not know.
      if (kind.attr("isSupportedROM")(file).is_none())
        throw python::error("the Arcade Learning Environment does not support the game in " +
                            rom.path.string() + " (md5 " + rom.md5 + ")");
      auto game = kind();
      game.attr("setInt")("random_seed", static_cast<int>(seed % 1'000'000'007u));
      game.attr("setFloat")("repeat_action_probability", 0.0f);
      game.attr("setInt")("frame_skip", 1);
      game.attr("setInt")("max_num_frames_per_episode", 0);
      game.attr("loadROM")(file);
      const auto [rows, columns] =
          game.attr("getScreenDims")().cast<std::pair<std::size_t, std::size_t>>();
      if (rows != screen_rows || columns != screen_columns)
        throw python::error("the game in " + rom.path.string() + " has a screen of " +
                            std::to_string(rows) + " x " + std::to_string(columns) +
                            " pixels, not 210 x 160");
      for (int action = 0; action < joystick_actions; ++action)
        actions_.emplace_back(ale.attr("Action")(action));
      state_ = python::object(ale.attr("ALEState"));
      for (const auto& [method, name] : {std::pair{&act_, "act"},
                                         {&over_, "game_over"},
                                         {&lives_, "lives"},
                                         {&gray_, "getScreenGrayscale"},
                                         {&colors_, "getScreenRGB"},
                                         {&read_, "getRAM"}})
        *method = python::object(game.attr(name));
      game_ = python::object(std::move(game));
    });
  }

  int act(int action) {
    return python::call("ale_py.act", [&] {
      return act_.get()(actions_[static_cast<std::size_t>(action)].get()).cast<int>();
    });
  }
  void reset_game() {
    python::call("ale_py.reset_game", [&] { game_.get().attr("reset_game")(); });
  }
  bool game_over() const {
    return python::call("ale_py.game_over", [&] { return over_.get()().cast<bool>(); });
  }
  int lives() const {
    return python::call("ale_py.lives", [&] { return lives_.get()().cast<int>(); });
  }
  void screen(std::vector<std::uint8_t>& pixels) const { picture(gray_, shades_, pixels); }
  /// 210 × 160 × 3 numbers: red, green and blue.
  void colors(std::vector<std::uint8_t>& pixels) const { picture(colors_, paints_, pixels); }
  console_ram ram() const {
    return python::call("ale_py.getRAM", [&] {
      read_.get()(memory_.get());
      console_ram bytes;
      std::copy_n(memory_.data(), bytes.size(), bytes.begin());
      return bytes;
    });
  }
  /// Includes ALE's random state, which fills the console's memory at power-on.
  std::string save() const {
    return python::call("ale_py.cloneState", [&] {
      using namespace pybind11::literals;
      return game_.get()
          .attr("cloneState")("include_rng"_a = true)
          .attr("serialize")()
          .cast<std::string>();
    });
  }
  void restore(std::string_view saved) {
    python::call("ale_py.restoreState", [&] {
      game_.get().attr("restoreState")(state_.get()(python::py::bytes(saved.data(), saved.size())));
    });
  }
  std::string identity() const { return identity_; }

 private:
  using numbers = python::array<std::uint8_t>;

  static numbers zeros(std::initializer_list<std::size_t> sizes) {
    return python::call("numpy.zeros", [&] {
      python::py::tuple shape(sizes.size());
      std::size_t i = 0;
      for (const auto size : sizes) shape[i++] = size;
      return numbers("uint8", shape);
    });
  }
  void picture(const python::object& draw, const numbers& into,
               std::vector<std::uint8_t>& pixels) const {
    python::call("ale_py.getScreen", [&] { draw.get()(into.get()); });
    pixels.assign(into.data(), into.data() + into.size());
  }

  std::string identity_;
  python::object game_, state_, act_, over_, lives_, gray_, colors_, read_;
  std::vector<python::object> actions_;
  numbers memory_ = zeros({128}), shades_ = zeros({screen_rows, screen_columns}),
          paints_ = zeros({screen_rows, screen_columns, 3});
};
static_assert(ale_machine<python_console>);

}  // namespace montezuma
