// SPDX-License-Identifier: MIT
// NetHack as an episodic environment: takes a key, returns an observation, a reward and the end.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "actions.hpp"
#include "game.hpp"
#include "game_source.hpp"
#include "machine.hpp"
#include "nle_game.hpp"
#include "observation.hpp"
#include "status_line.hpp"

namespace nethack {

struct environment_options {
  int turn_cap = 2000;         ///< an episode ends after this many game turns
  int stuck_cap = 150;         ///< and after this many steps without a game turn
  int steps_per_turn_cap = 4;  ///< and after this many times `turn_cap` steps
  /// the turn of `milestone_score()`
  int milestone_turn = 1000;
  /// questions in a row that the agent may answer; the environment escapes further questions
  int questions = 1;
  game_options game;  ///< of Debian's program
  game_source source;
};

/// The reason for the end of an episode. `death` is any end by the game itself. `lost` is a game
/// that crashed, was killed or hung: its last reward counts, but its end does not depend on the
/// agent.
enum class ending : std::uint8_t { none, death, stuck, turn_cap, step_cap, lost };

/// Whether the end truncates the episode: the game could go on, and nothing in it ended it. The
/// observation does not show when a cap will be reached. `stuck` is the agent's own doing, like a
/// game that it gives up, and is terminal: the value of a game that goes on would reward it.
constexpr bool is_truncation(ending end) {
  return end == ending::turn_cap || end == ending::step_cap || end == ending::lost;
}

inline const char* name(ending end) {
  constexpr std::array<const char*, 6> names{"none",     "death",    "stuck",
                                             "turn cap", "step cap", "lost"};
  return names[static_cast<std::size_t>(end)];
}

struct step_result {
  double reward = 0;  ///< points gained by the key
  bool done = false;
  nethack::ending ending = nethack::ending::none;
};

class environment {
 public:
  explicit environment(environment_options options = {})
      : options_(std::move(options)), machine_(make_machine(options_)) {}

  /// Starts a new game, which is a function of `seed` and the keys.
  observation const& reset(std::uint64_t seed) {
    begin_reset(seed);
    return finish_reset();
  }
  /// The two halves of `reset`. Several games may start before the caller waits for the first.
  void begin_reset(std::uint64_t seed) {
    seed_ = seed;
    saved_.clear();
    machine_->start(seed);
  }
  observation const& finish_reset();

  /// Starts from a file that `save` wrote. Scores, turns and steps count from there.
  observation const& reset_from(const std::filesystem::path& saved, std::uint64_t seed) {
    seed_ = seed;
    saved_ = saved;
    machine_->start_from(saved, seed);
    return finish_reset();
  }

  step_result step(key code) {
    send(code);
    return receive();
  }
  /// The first half of a step. The game runs while the caller sends keys to other games.
  void send(key code);
  /// The second half: waits for the game, and answers prompts that are not for the agent.
  step_result receive();

  observation const& view() const { return view_; }
  bool done() const { return ending_ != nethack::ending::none; }
  nethack::ending end() const { return ending_; }
  std::uint64_t seed() const { return seed_; }

  /// Points of the episode: gold gained, 4 for each experience point, 50 for each level below the
  /// first.
  double score() const { return score_; }
  /// The score at turn `milestone_turn` of the episode, or the current score before that turn.
  double milestone_score() const { return milestone_passed_ ? milestone_score_ : score_; }
  int max_depth() const { return max_depth_; }
  int turns() const { return view_.stats.turn - first_.turn; }
  int steps() const { return steps_; }
  /// The exact points of a game that ended by itself.
  std::optional<long> final_score() const { return machine_->final_score(); }

  /// Writes the game to `file` and ends it. Call `reset` before the next step. Only valid while the
  /// game waits for a command.
  void save(const std::filesystem::path& file) {
    if (done() || view_.waiting != prompt::command || !machine_->save_to(file))
      throw std::runtime_error("the game could not be saved to " + file.string());
    ending_ = nethack::ending::death;
  }

  /// The status in the order of the NetHack Learning Environment's blstats. The number of the
  /// dungeon is always 0, because the screen does not show it.
  std::array<long, 27> blstats() const;

  const machine& game() const { return *machine_; }
  machine& game() { return *machine_; }

 private:
  static std::unique_ptr<machine> make_machine(const environment_options& options) {
    if (options.source.backend == nethack::backend::nle)
      return std::make_unique<nle_game>(find_nle(options.source.nle));
    return std::make_unique<nethack::game>(options.game);
  }

  enum class wait : std::uint8_t { command, more, menu, question, text };

  // a limit against an endless prompt between two commands
  static constexpr int most_screens = 40;

  wait waiting_for() const;
  void look();
  void append_message();
  void settle_reset();

  environment_options options_;
  std::unique_ptr<machine> machine_;
  observation view_;
  status first_;
  std::uint64_t seed_ = 0;
  std::filesystem::path saved_;
  nethack::ending ending_ = nethack::ending::lost;  // no step is possible before the first reset
  double score_ = 0, milestone_score_ = 0;
  bool milestone_passed_ = false;
  int max_depth_ = 1, steps_ = 0, idle_steps_ = 0, questions_asked_ = 0, turn_before_ = 0;
};

// ---- what kind of input the game waits for

inline environment::wait environment::waiting_for() const {
  const terminal& screen = machine_->screen();
  const int row = screen.cursor_row();
  std::string_view before =
      screen.line(row).substr(0, static_cast<std::size_t>(screen.cursor_column()));
  while (!before.empty() && before.back() == ' ') before.remove_suffix(1);
  // A long message can break the word itself at the right edge: "--Mor" and "e--" below.
  if (row > 0 && !before.empty() && before.size() < 8 &&
      std::string_view("--More--").ends_with(before)) {
    const std::size_t above = 8 - before.size();
    if (screen.line(row - 1).ends_with(std::string_view("--More--").substr(0, above)))
      return wait::more;
  }
  if (before.ends_with("--More--")) return wait::more;
  if (before.ends_with("(end)")) return wait::menu;
  if (before.ends_with(')')) {  // "(1 of 2)"
    const std::size_t open = before.rfind('(');
    if (open != std::string_view::npos && detail::is_digit(before[open + 1]) &&
        before.find(" of ", open) != std::string_view::npos)
      return wait::menu;
  }
  // If the cursor is on the message line, or on the row below a full one, the game asks a question.
  const bool wrapped = screen.line(0)[columns - 2] != ' ';
  if (row == 0 || (row == 1 && wrapped)) {
    const bool one_key = before.find("? [") != std::string_view::npos || before.ends_with(']') ||
                         before.ends_with("direction?");
    return one_key ? wait::question : wait::text;
  }
  // The game asks for a position with the cursor on the map.
  if (screen.line(0).find("(For instructions type a") != std::string_view::npos) return wait::text;
  return wait::command;
}

// ---- the observation

inline void environment::look() {
  terminal& screen = machine_->screen();
  const std::uint32_t touched = screen.take_touched_rows();
  for (int row = 0; row < rows; ++row) {
    if (!(touched >> row & 1u)) continue;
    std::uint8_t* chars = view_.chars.data() + row * columns;
    std::uint8_t* colors = view_.colors.data() + row * columns;
    if (std::memcmp(chars, screen.row_chars(row), columns) == 0 &&
        std::memcmp(colors, screen.row_colors(row), columns) == 0)
      continue;
    std::memcpy(chars, screen.row_chars(row), columns);
    std::memcpy(colors, screen.row_colors(row), columns);
    view_.changed_rows |= 1u << row;
  }
  view_.cursor_row = screen.cursor_row();
  view_.cursor_column = screen.cursor_column();
  constexpr std::uint32_t status_rows = 3u << (rows - 2);
  if (touched & status_rows) parse_status(view_.line(rows - 2), view_.line(rows - 1), view_.stats);
}

inline void environment::append_message() {
  const auto append = [this](std::string_view line) {
    while (!line.empty() && line.back() == ' ') line.remove_suffix(1);
    if (line.ends_with("--More--")) line.remove_suffix(8);
    if (line.empty()) return;
    if (!view_.message.empty()) view_.message += ' ';
    view_.message += line;
  };
  append(view_.line(0));
  if (view_.line(0)[columns - 2] != ' ') append(view_.line(1));
}

// ---- episodes

inline observation const& environment::finish_reset() {
  constexpr int most_attempts = 3;
  for (int attempt = 1;; ++attempt) {
    settle_reset();
    if (!done()) return view_;
    if (attempt == most_attempts)
      throw std::runtime_error("the game does not start (tried 3 times)");
    if (saved_.empty())
      machine_->start(seed_);
    else
      machine_->start_from(saved_, seed_);
  }
}

inline void environment::settle_reset() {
  view_.stats = {};
  view_.message.clear();
  view_.changed_rows = (1u << rows) - 1;
  ending_ = nethack::ending::lost;
  bool answered = false, restored = false;
  for (int screens = 0; screens < most_screens; ++screens) {
    if (machine_->receive() != answer::waiting) break;
    answered = true;
    look();
    append_message();
    restored = restored || view_.message.find("welcome back") != std::string::npos;
    const wait now = waiting_for();
    if (now == wait::command && view_.stats.hp_max > 0) {
      ending_ = nethack::ending::none;
      break;
    }
    machine_->send(now == wait::more || now == wait::command ? keys::enter : keys::escape);
  }
  // If the game cannot use a file, it starts a new game, or leaves without a question.
  if (!saved_.empty() && (answered || machine_->left()) && !restored) {
    machine_->stop();
    ending_ = nethack::ending::lost;
    throw std::runtime_error("not a saved game of this NetHack: " + saved_.string());
  }
  view_.waiting = prompt::command;
  view_.hero_row = view_.cursor_row;
  view_.hero_column = view_.cursor_column;
  first_ = view_.stats;
  max_depth_ = first_.depth;
  score_ = milestone_score_ = 0;
  milestone_passed_ = false;
  steps_ = idle_steps_ = questions_asked_ = 0;
}

inline void environment::send(key code) {
  if (done())
    throw std::logic_error(
        "nethack::environment: the episode is over, reset it before the next key");
  ++steps_;
  turn_before_ = view_.stats.turn;
  questions_asked_ = view_.waiting == prompt::question ? questions_asked_ : 0;
  view_.message.clear();
  view_.changed_rows = 0;
  machine_->send(is_forbidden(code) ? keys::escape : code);
}

inline step_result environment::receive() {
  if (done()) return {0, true, ending_};
  answer got = machine_->receive();
  view_.waiting = prompt::command;
  for (int screens = 0; got == answer::waiting; ++screens) {
    look();
    append_message();
    const wait now = waiting_for();
    if (now == wait::command || screens == most_screens) break;
    if (now == wait::question && questions_asked_ < options_.questions) {
      ++questions_asked_;
      view_.waiting = prompt::question;
      break;
    }
    machine_->send(now == wait::more ? keys::enter : keys::escape);
    got = machine_->receive();
  }

  const status& now = view_.stats;
  if (got == answer::waiting) {
    if (view_.waiting == prompt::command) {
      view_.hero_row = view_.cursor_row;
      view_.hero_column = view_.cursor_column;
    }
    idle_steps_ = now.turn == turn_before_ ? idle_steps_ + 1 : 0;
  }
  max_depth_ = std::max(max_depth_, now.depth);
  const double before = score_;
  score_ = std::max(0, now.gold - first_.gold) + 4.0 * (now.experience - first_.experience) +
           50.0 * (max_depth_ - first_.depth);
  if (!milestone_passed_ && turns() >= options_.milestone_turn) {
    milestone_passed_ = true;
    milestone_score_ = score_;
  }

  if (got == answer::lost)
    ending_ = nethack::ending::lost;
  else if (got == answer::ended)
    ending_ = nethack::ending::death;
  else if (turns() >= options_.turn_cap)
    ending_ = nethack::ending::turn_cap;
  else if (idle_steps_ >= options_.stuck_cap)
    ending_ = nethack::ending::stuck;
  else if (steps_ >= options_.steps_per_turn_cap * options_.turn_cap)
    ending_ = nethack::ending::step_cap;
  return {score_ - before, done(), ending_};
}

inline std::array<long, 27> environment::blstats() const {
  const status& s = view_.stats;
  // The game has two scales of strength: to 125, with 18/07 as 25, and to 25, with 18/07 as 19.
  const long strength_125 = s.strength == 18  ? 18 + s.strength_percent
                            : s.strength > 18 ? s.strength + 100
                                              : s.strength;
  const long strength_25 = strength_125 <= 18    ? strength_125
                           : strength_125 <= 121 ? 19 + strength_125 / 50
                                                 : std::min(strength_125, 125L) - 100;
  return {view_.hero_column,
          view_.hero_row - 1,
          strength_25,
          strength_125,
          s.dexterity,
          s.constitution,
          s.intelligence,
          s.wisdom,
          s.charisma,
          s.score,
          s.hp,
          s.hp_max,
          s.depth,
          s.gold,
          s.energy,
          s.energy_max,
          s.armor_class,
          s.hit_dice,
          s.level,
          s.experience,
          s.turn,
          s.hunger,
          s.burden,
          0,
          s.depth,
          s.condition,
          s.alignment};
}

}  // namespace nethack
