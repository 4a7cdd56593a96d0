// SPDX-License-Identifier: MIT
// The NetHack environment on the real game: what it shows, that it repeats itself, that it
// survives.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "../../examples/common/temporary_folder.hpp"
#include "catch2.hpp"
#include "vector_environment.hpp"

namespace nethack_environment_test {

namespace fs = std::filesystem;
using nethack::key;

namespace {

/// True where the game is not installed.
bool skipped() {
  if (access((nethack::default_package + "/nethack-console").c_str(), R_OK) == 0) return false;
  skip_test("nethack-console is not installed");
  return true;
}

/// A folder of the test's own as TMPDIR, so that what is left behind shows.
class own_tmpdir : public temporary_folder {
 public:
  own_tmpdir() {
    if (const char* old = std::getenv("TMPDIR")) old_ = old;
    setenv("TMPDIR", path().c_str(), 1);
  }
  ~own_tmpdir() {
    if (old_.empty())
      unsetenv("TMPDIR");
    else
      setenv("TMPDIR", old_.c_str(), 1);
  }

 private:
  std::string old_;
};

void mix(std::uint64_t& hash, std::uint64_t value) { hash = (hash ^ value) * 1099511628211u; }

void mix(std::uint64_t& hash, const nethack::observation& seen) {
  for (const auto c : seen.chars) mix(hash, c);
  for (const auto c : seen.colors) mix(hash, c);
  for (const char c : seen.message) mix(hash, static_cast<unsigned char>(c));
  mix(hash, static_cast<std::uint64_t>(seen.cursor_row * 100 + seen.cursor_column));
  mix(hash, static_cast<std::uint64_t>(seen.waiting));
  mix(hash, static_cast<std::uint64_t>(seen.stats.turn));
}

key random_key(std::mt19937& random) {
  return nethack::learning_environment_actions[random() %
                                               nethack::learning_environment_actions.size()]
      .code;
}

/// All that three games show over `steps` random keys each, as one number.
std::uint64_t hash_of_run(std::uint64_t seed, int steps) {
  nethack::vector_environment games(3, seed);
  games.reset();
  std::mt19937 random(7);  // the same keys for every seed
  std::uint64_t hash = 1469598103934665603u;
  std::vector<key> keys(games.size());
  std::vector<nethack::step_result> results(games.size());
  for (int step = 0; step < steps; ++step) {
    for (key& code : keys) code = random_key(random);
    games.step(keys, results);
    for (std::size_t i = 0; i < games.size(); ++i) {
      mix(hash, games.view(i));
      mix(hash, static_cast<std::uint64_t>(results[i].reward + 1000));
      mix(hash, static_cast<std::uint64_t>(results[i].ending));
    }
  }
  CHECK(games.replaced() == 0);
  return hash;
}

nethack::environment_options quick_to_give_up() {
  nethack::environment_options options;
  options.game.hang_timeout_ms = 2000;  // of healthy games too, on a machine that does other things
  return options;
}

}  // namespace

TEST_CASE("a terminal writes, wraps and moves") {
  nethack::terminal screen;
  screen.feed("abc");
  CHECK(screen.line(0).substr(0, 4) == "abc ");
  CHECK(screen.cursor_column() == 3);
  screen.feed("\033[5;10Hx\b\by\r\nz");
  CHECK(screen.line(4).substr(8, 2) == "yx");
  CHECK(screen.line(5).front() == 'z');
  screen.feed("\033[H\033[3B\033[4C+\033[2D-\033[A*");
  CHECK(screen.line(3).substr(3, 2) == "-+");
  CHECK(screen.line(2)[4] == '*');
  screen.feed("\033[7;80Hab");
  CHECK(screen.line(6).back() == 'a');
  CHECK(screen.line(7).front() == 'b');
  screen.feed("\033[99;999H");
  CHECK(screen.cursor_row() == 23);
  CHECK(screen.cursor_column() == 79);
}

TEST_CASE("a terminal erases and scrolls") {
  nethack::terminal screen;
  for (int row = 1; row <= 24; ++row)
    screen.feed("\033[" + std::to_string(row) + ";1H" +
                std::string(80, static_cast<char>('a' + row)));
  screen.feed("\033[3;41H\033[K");
  CHECK(screen.line(2) == std::string(40, 'd') + std::string(40, ' '));
  screen.feed("\033[4;41H\033[1K");
  CHECK(screen.line(3) == std::string(41, ' ') + std::string(39, 'e'));
  screen.feed("\033[24;1H\n");
  CHECK(screen.line(0)[0] == 'c');
  CHECK(screen.line(23) == std::string(80, ' '));
  screen.feed("\033[10;5H\033[J");
  CHECK(screen.line(9) == std::string(4, 'l') + std::string(76, ' '));
  CHECK(screen.line(22) == std::string(80, ' '));
  CHECK(screen.line(8)[0] == 'k');
  screen.feed("\033[2J");
  CHECK(screen.line(0) == std::string(80, ' '));
  CHECK(screen.cursor_row() == 9);
}

TEST_CASE("a terminal keeps colors") {
  nethack::terminal screen;
  screen.feed("\033[33mf\033[1mg\033[7mh \033[0mi \033[91mj\033[39mk\033[27;22ml");
  const auto* color = screen.row_colors(0);
  CHECK(std::vector<int>(color, color + 9) ==
        std::vector<int>{3, 3 + 8, 3 + 8 + 16, 3 + 8 + 16, 7, 0, 9, 7, 7});
}

TEST_CASE("an escape sequence may come in pieces") {
  nethack::terminal whole, pieces;
  const std::string text =
      "\033[2;3Hone\033[1;31mtwo\033(B\033[0mthree\033[?25l\033[12;40H#\033[K\ttab";
  whole.feed(text);
  for (const char c : text) pieces.feed(std::string_view(&c, 1));
  CHECK(whole.chars() == pieces.chars());
  CHECK(whole.colors() == pieces.colors());
  CHECK(whole.cursor_column() == pieces.cursor_column());
  CHECK(whole.unknown_sequences() == 1);  // hide the cursor
  whole.take_touched_rows();
  whole.feed("\033[9;1Hx");
  CHECK(whole.take_touched_rows() == 1u << 8);
}

TEST_CASE("a terminal survives any bytes") {
  std::mt19937 random(3);
  nethack::terminal screen;
  const std::string likely = "\033[;0123456789HJKmABCDGd\n\r\b\tx";
  for (int i = 0; i < 200'000; ++i) {
    const char c = random() % 8 ? likely[random() % likely.size()] : static_cast<char>(random());
    screen.feed(std::string_view(&c, 1));
    REQUIRE((screen.cursor_row() >= 0 && screen.cursor_row() < 24));
    REQUIRE((screen.cursor_column() >= 0 && screen.cursor_column() < 80));
  }
}

TEST_CASE("status rows as numbers") {
  nethack::status stats;
  REQUIRE(nethack::parse_status(
      "Agent the Candidate            St:18/07 Dx:17 Co:10 In:8 Wi:14 Ch:9  Neutral S:123      ",
      "Dlvl:3  $:57 HP:-1(14) Pw:4(5) AC:-2  Xp:2/31 T:1203 Weak Burdened Blind Conf        ",
      stats));
  CHECK(stats.strength == 18);
  CHECK(stats.strength_percent == 7);
  CHECK(stats.dexterity == 17);
  CHECK(stats.charisma == 9);
  CHECK(stats.alignment == 0);
  CHECK(stats.score == 123);
  CHECK(stats.depth == 3);
  CHECK(stats.gold == 57);
  CHECK(stats.hp == -1);
  CHECK(stats.hp_max == 14);
  CHECK(stats.energy_max == 5);
  CHECK(stats.armor_class == -2);
  CHECK(stats.level == 2);
  CHECK(stats.experience == 31);
  CHECK(stats.turn == 1203);
  CHECK(stats.hunger == 3);
  CHECK(stats.burden == 1);
  CHECK(stats.condition == (0x20 | 0x100));

  const auto words = [&](const std::string& tail) {
    REQUIRE(nethack::parse_status("Agent the Brown Mold  St:18/** Dx:9 Co:9 In:9 Wi:9 Ch:9 Chaotic",
                                  "Home 1 $:0 HP:5(9) Pw:1(1) AC:9 HD:3 T:9 " + tail, stats));
    return stats.hunger;
  };
  CHECK(words("") == 1);
  CHECK(stats.strength_percent == 100);
  CHECK(stats.alignment == -1);
  CHECK(stats.condition == 0);
  CHECK(stats.hit_dice == 3);
  CHECK(stats.depth == 3);  // not shown at the quest's home: as before
  CHECK(stats.experience == 31);
  CHECK(words("Satiated") == 0);
  CHECK(words("Hungry") == 2);
  CHECK(words("Fainting Overloaded") == 4);
  CHECK(stats.burden == 5);
  CHECK(words("Fainted") == 5);

  const nethack::status before = stats;
  CHECK_FALSE(nethack::parse_status("a menu", "(end)", stats));
  CHECK(stats == before);
}

TEST_CASE("the sets of keys") {
  CHECK(nethack::learning_environment_actions.size() == 121);
  CHECK(nethack::learning_environment_actions[0].code == 'k');
  CHECK(nethack::learning_environment_actions[120].code == '$');
  CHECK(nethack::small_action_of('e') == 10);
  CHECK(nethack::small_action_of('Z') == -1);
  CHECK(nethack::key_name(nethack::keys::pray) == "M-p");
  CHECK(nethack::key_name(nethack::keys::kick) == "^D");
}

TEST_CASE("a missing package is named") {
  nethack::environment_options options;
  options.game.package = "/nowhere/games/nethack";
  CHECK_THROWS_WITH(nethack::environment(options),
                    ContainsSubstring("apt install nethack-console"));
}

TEST_CASE("a new game") {
  if (skipped()) return;
  nethack::environment game;
  CHECK_THROWS_AS(game.step('s'), std::logic_error);  // not before reset
  const nethack::observation& seen = game.reset(3);
  CHECK(seen.stats.turn == 1);
  CHECK(seen.stats.depth == 1);
  CHECK(seen.stats.hp > 0);
  CHECK(seen.waiting == nethack::prompt::command);
  CHECK(seen.character(seen.hero_row, seen.hero_column) == '@');
  CHECK(seen.message.find("welcome to NetHack") != std::string::npos);
  game.step('s');
  CHECK(game.turns() >= 1);
  const auto stats = game.blstats();
  CHECK(stats[0] == seen.hero_column);
  CHECK(stats[10] == seen.stats.hp);
  CHECK(stats[12] == 1);
  CHECK(stats[20] == seen.stats.turn);
}

TEST_CASE("questions are the agent's only right after its command") {
  if (skipped()) return;
  nethack::environment game;
  game.reset(3);
  game.step(nethack::keys::kick);
  CHECK(game.view().waiting == nethack::prompt::question);
  CHECK(game.view().message.find("direction") != std::string::npos);
  game.step(nethack::keys::escape);
  CHECK(game.view().waiting == nethack::prompt::command);
  game.step('t');  // what to throw
  CHECK(game.view().waiting == nethack::prompt::question);
  game.step('f');  // where to: a second question, escaped
  CHECK(game.view().waiting == nethack::prompt::command);
  game.step('i');  // a menu, closed
  CHECK(game.view().waiting == nethack::prompt::command);
  CHECK(game.view().stats.turn == 1);
  for (const key code : {'S', '!', '#', 'O'}) game.step(code);
  CHECK_FALSE(game.done());
}

TEST_CASE("episodes end by the caps") {
  if (skipped()) return;
  nethack::environment_options options;
  options.turn_cap = 40;
  options.stuck_cap = 10;
  options.milestone_turn = 20;
  nethack::environment game(options);
  game.reset(5);
  nethack::step_result result;
  while (!result.done) result = game.step(nethack::keys::escape);
  CHECK(result.ending == nethack::ending::stuck);
  CHECK(game.steps() == 10);
  game.reset(5);
  result = {};
  while (!result.done) result = game.step('s');
  CHECK(result.ending == nethack::ending::turn_cap);
  CHECK(game.turns() >= 40);
  options.steps_per_turn_cap = 0;
  nethack::environment short_game(options);
  short_game.reset(5);
  CHECK(short_game.step('s').ending == nethack::ending::step_cap);
}

TEST_CASE("a cap or a lost game truncates an episode, a death and a stuck agent do not") {
  using nethack::ending;
  for (const auto end : {ending::turn_cap, ending::step_cap, ending::lost})
    CHECK(nethack::is_truncation(end));
  for (const auto end : {ending::none, ending::death, ending::stuck})
    CHECK_FALSE(nethack::is_truncation(end));
}

TEST_CASE("many games hand out the observation at which a cap cut an episode off") {
  if (skipped()) return;
  nethack::environment_options options;
  options.turn_cap = 5;
  nethack::vector_environment games(2, 3, options);
  nethack::environment alone;  // the same game, without a cap
  games.reset();
  alone.reset(games[1].seed());
  std::vector<key> keys{nethack::keys::escape, 's'};  // the first game's time stands still
  std::vector<nethack::step_result> results(2);
  for (bool cut = false; !cut;) {
    games.step(keys, results);
    alone.step('s');
    CHECK_FALSE(results[0].done);
    cut = results[1].done;
    CHECK(games.truncated().size() == (cut ? 1u : 0u));
  }
  CHECK(results[1].ending == nethack::ending::turn_cap);
  const auto& [game, last] = games.truncated().front();
  CHECK(game == 1);
  CHECK(last.stats.turn > 5);
  CHECK((last.chars == alone.view().chars && last.colors == alone.view().colors));
  CHECK((last.message == alone.view().message && last.hero_row == alone.view().hero_row));
  CHECK(games.view(1).stats.turn == 1);  // the next episode
  games.step(keys, results);
  CHECK(games.truncated().empty());
}

TEST_CASE("rewards add up to the score, and a game that ended has its own") {
  if (skipped()) return;
  nethack::environment game;
  game.reset(11);
  std::mt19937 random(1);
  double sum = 0;
  nethack::step_result result;
  while (!result.done) {
    result = game.step(nethack::small_actions[random() % nethack::small_actions.size()].code);
    sum += result.reward;
  }
  CHECK(sum == game.score());
  if (result.ending == nethack::ending::death) CHECK(game.final_score().has_value());
}

TEST_CASE("equal seeds are equal bit for bit over 5000 steps, others are not") {
  if (skipped()) return;
  const std::uint64_t first = hash_of_run(1, 5000);
  CHECK(first == hash_of_run(1, 5000));
  CHECK(first != hash_of_run(2, 500));
  CHECK(hash_of_run(1, 500) != hash_of_run(2, 500));
}

TEST_CASE("a game that is killed or hangs is replaced and counted") {
  if (skipped()) return;
  nethack::vector_environment games(3, 9, quick_to_give_up());
  games.reset();
  const std::vector<key> keys(3, 's');
  std::vector<nethack::step_result> results(3);
  games.step(keys, results);
  kill(games[0].game().process(), SIGKILL);
  kill(games[2].game().process(), SIGSTOP);
  games.step(keys, results);
  CHECK(results[0].ending == nethack::ending::lost);
  CHECK_FALSE(results[1].done);
  CHECK(results[2].ending == nethack::ending::lost);
  CHECK(games.replaced() == 2);
  CHECK(games.finished().size() == 2);
  CHECK(games.view(0).stats.turn == 1);
  for (int step = 0; step < 20; ++step) games.step(keys, results);
  CHECK_FALSE(games[2].done());
  CHECK(games.replaced() == 2);
}

TEST_CASE("a game is saved and goes on from there") {
  if (skipped()) return;
  const own_tmpdir folder;
  const fs::path saved = folder.path() / "saves" / "game";
  nethack::environment game;
  game.reset(4);
  for (int i = 0; i < 60; ++i) game.step(i % 3 ? 's' : 'l');
  const nethack::observation before = game.view();
  game.save(saved);
  CHECK(game.done());

  nethack::environment other;
  const nethack::observation& seen = other.reset_from(saved, 8);
  CHECK(seen.stats == before.stats);
  for (int row = 1; row < 22; ++row) CHECK(seen.line(row) == before.line(row));
  CHECK(other.score() == 0);
  CHECK(other.turns() == 0);
  other.step('s');
  CHECK_FALSE(other.done());
  CHECK(other.reset_from(saved, 8).stats == before.stats);  // the file is still there

  CHECK_THROWS_WITH(other.reset_from(folder.path() / "none", 1),
                    ContainsSubstring("no saved game"));
  const fs::path garbage = folder.path() / "garbage";
  std::ofstream(garbage) << "not a saved game";
  CHECK_THROWS_WITH(other.reset_from(garbage, 1), ContainsSubstring("not a saved game"));
  fs::resize_file(saved, fs::file_size(saved) / 2);  // the game leaves without a question
  CHECK_THROWS_WITH(other.reset_from(saved, 1), ContainsSubstring("not a saved game"));
  CHECK(other.game().left());
  CHECK(other.reset(1).stats.turn == 1);
}

TEST_CASE("a game that never answers is not blamed on the saved file") {
  const own_tmpdir folder;
  const fs::path package = folder.path() / "package", saved = folder.path() / "saved";
  fs::create_directory(package);
  std::ofstream(package / "nethack-console") << "#!/bin/sh\nwhile :; do :; done\n";
  std::ofstream(package / "nhdat");
  std::ofstream(saved) << "who can tell?";
  nethack::environment_options options;
  options.game.package = package.string();
  options.game.hang_timeout_ms = 60;
  nethack::environment game(options);
  CHECK_THROWS_WITH(game.reset_from(saved, 1), ContainsSubstring("does not start"));
  CHECK(game.game().hangs() == 3);
  CHECK_FALSE(game.game().left());
  CHECK(game.done());
}

TEST_CASE("no file is left behind") {
  if (skipped()) return;
  const own_tmpdir folder;
  {
    nethack::vector_environment games(2, 1);
    games.reset();
    CHECK_FALSE(fs::is_empty(folder.path()));
  }
  CHECK(fs::is_empty(folder.path()));

  // A process that is killed outright cannot tidy up; the next one does. Its game ends with it.
  int pipe_ends[2];
  REQUIRE(pipe(pipe_ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    nethack::environment game;
    game.reset(1);
    const pid_t process = game.game().process();
    (void)!write(pipe_ends[1], &process, sizeof process);
    pause();
    _exit(0);
  }
  pid_t orphan = 0;
  REQUIRE(read(pipe_ends[0], &orphan, sizeof orphan) == sizeof orphan);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  CHECK_FALSE(fs::is_empty(folder.path()));
  const auto alive = [&] {  // a zombie nobody reaps counts as gone
    std::ifstream file("/proc/" + std::to_string(orphan) + "/stat");
    std::string number, name, state;
    return static_cast<bool>(file >> number >> name >> state) && state != "Z";
  };
  for (int i = 0; i < 200 && alive(); ++i) usleep(10'000);
  CHECK_FALSE(alive());
  {
    nethack::environment game;
  }
  CHECK(fs::is_empty(folder.path()));
}

}  // namespace nethack_environment_test
