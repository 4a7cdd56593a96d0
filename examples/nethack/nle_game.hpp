// SPDX-License-Identifier: MIT
// The NetHack of an installed NetHack Learning Environment (Küttler et al. 2020, arXiv 2006.13760):
// its libnethack.so, without Python. The game runs in this process. Versions 0.9 and 1.x have
// different calls; 1.3 is tested.
#pragma once

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../common/temporary_folder.hpp"
#include "actions.hpp"
#include "machine.hpp"
#include "playground.hpp"
#include "terminal.hpp"

namespace nethack {

/// Finds the folder of the Python package nle: `chosen` itself, or in a virtual environment of that
/// path; without a choice in $VIRTUAL_ENV, or where the python3 on PATH finds it. Throws
/// std::runtime_error, which says what to install.
inline std::filesystem::path find_nle(const std::string& chosen = {}) {
  namespace fs = std::filesystem;
  std::error_code error;
  const auto whole = [&](const fs::path& folder) {
    return fs::exists(folder / "libnethack.so", error) &&
           fs::exists(folder / "nethackdir" / "nhdat", error);
  };
  const auto within = [&](const fs::path& environment) -> fs::path {
    if (whole(environment)) return environment;
    for (const char* library : {"lib", "lib64"})
      for (fs::directory_iterator entry(environment / library, error), end; !error && entry != end;
           entry.increment(error))
        if (const auto folder = entry->path() / "site-packages" / "nle"; whole(folder))
          return folder;
    return {};
  };
  constexpr const char* install =
      "install it (python3 -m venv nle && nle/bin/pip install nle), and name the folder: --nle nle";
  if (!chosen.empty()) {
    if (auto folder = within(chosen); !folder.empty()) return folder;
    throw std::runtime_error("no NetHack Learning Environment in '" + chosen + "': " + install);
  }
  if (const char* active = std::getenv("VIRTUAL_ENV"); active && *active)
    if (auto folder = within(active); !folder.empty()) return folder;
  const std::unique_ptr<FILE, int (*)(FILE*)> python(
      popen("python3 -c 'import importlib.util as u; s = u.find_spec(\"nle\"); "
            "print(s.submodule_search_locations[0] if s else \"\")' 2>/dev/null",
            "r"),
      pclose);
  std::array<char, 4096> line{};
  if (python && std::fgets(line.data(), static_cast<int>(line.size()), python.get())) {
    std::string folder = line.data();
    while (!folder.empty() && folder.back() == '\n') folder.pop_back();
    if (!folder.empty() && whole(folder)) return folder;
  }
  throw std::runtime_error(std::string("the NetHack Learning Environment was not found: ") +
                           install);
}

class nle_game : public machine {
 public:
  /// `folder` is the package's, see find_nle. Throws std::runtime_error if the library cannot be
  /// read.
  explicit nle_game(const std::filesystem::path& folder) {
    namespace fs = std::filesystem;
    fs::create_symlink(folder / "nethackdir" / "nhdat", folder_.path / "nhdat");
    for (const char* name : {"perm", "record", "logfile", "xlogfile"})
      std::ofstream(folder_.path / name).flush();
    fs::create_directory(folder_.path / "save");
    // The loader gives the same library only once, and the game has global variables. So each game
    // loads a copy of its own.
    const auto file = folder / "libnethack.so";
    const int in = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info{};
    copy_ = memfd_create("libnethack.so", MFD_CLOEXEC);
    bool good = in >= 0 && copy_ >= 0 && fstat(in, &info) == 0;
    for (off_t at = 0; good && at < info.st_size;)
      good = sendfile(copy_, in, &at, static_cast<std::size_t>(info.st_size - at)) > 0;
    const int why = errno;
    if (in >= 0) close(in);
    if (!good) {
      if (copy_ >= 0) close(copy_);
      throw std::runtime_error("cannot read " + file.string() + ": " + std::strerror(why));
    }

    seen_.glyphs = full_.glyphs.data();
    seen_.blstats = full_.blstats.data();
    seen_.program_state = program_state_.data();
    seen_.internal = internal_.data();
    seen_.inv_glyphs = full_.inventory_glyphs.data();
    seen_.inv_strs = full_.inventory_texts.data();
    seen_.inv_letters = full_.inventory_letters.data();
    seen_.inv_oclasses = full_.inventory_classes.data();
    seen_.tty_chars = chars_.data();
    seen_.tty_colors = colors_.data();
    seen_.tty_cursor = cursor_.data();
  }
  ~nle_game() override {
    stop();
    if (copy_ >= 0) close(copy_);
  }

  void start(std::uint64_t seed) override {
    stop();
    screen_.reset();
    full_ = {};
    chars_.fill(' ');
    colors_.fill(0);
    cursor_ = {};
    seen_.action = seen_.done = seen_.how_done = 0;
    seen_.in_normal_game = 0;
    left_ = false;
    // Its own functions come first for it: LibTorch's libraries have some of the same name.
    int how = RTLD_LAZY | RTLD_LOCAL;
#ifndef __SANITIZE_ADDRESS__  // which does not allow this
    how |= RTLD_DEEPBIND;
#endif
    library_ = dlopen(("/proc/self/fd/" + std::to_string(copy_)).c_str(), how);
    if (!library_) throw std::runtime_error(std::string("cannot load NetHack: ") + dlerror());
    step_ = reinterpret_cast<void* (*)(void*, nle_obs*)>(symbol("nle_step"));
    end_ = reinterpret_cast<void (*)(void*)>(symbol("nle_end"));
    void* const begin = symbol("nle_start");
    settings_ = {};
    std::snprintf(settings_.hackdir, sizeof settings_.hackdir, "%s", folder_.path.c_str());
    std::snprintf(settings_.options, sizeof settings_.options, "%s", game_settings);
    settings_.spawn_monsters = 1;
    if (dlsym(library_, "nle_init_lgen_rng")) {  // 1.x: the seeds are among the settings
      settings_.seeds = {{seed, ~seed}, 0, true, 0, false};
      context_ = reinterpret_cast<void* (*)(nle_obs*, FILE*, settings*)>(begin)(&seen_, nullptr,
                                                                                &settings_);
    } else {
      old_seeds_ = {{seed, ~seed}, 0};
      context_ = reinterpret_cast<void* (*)(nle_obs*, FILE*, old_seeds*, settings*)>(begin)(
          &seen_, nullptr, &old_seeds_, &settings_);
    }
    first_ = true;
  }
  void start_from(const std::filesystem::path& saved, std::uint64_t /*seed*/) override {
    throw std::runtime_error("the NetHack Learning Environment cannot start from a saved game (" +
                             saved.string() + "): use --backend debian");
  }

  void stop() override {
    if (context_) end_(context_);
    context_ = nullptr;
    if (library_) dlclose(library_);
    library_ = nullptr;
  }
  bool running() const override { return context_ != nullptr; }
  bool left() const override { return left_; }

  void send(key code) override { next_ = code; }
  answer receive() override {
    if (!running()) return answer::lost;
    if (!first_) {
      seen_.action = static_cast<int>(next_);
      context_ = step_(context_, &seen_);
    }
    first_ = false;  // the start has filled the first observation
    screen_.show(chars_.data(), reinterpret_cast<const std::uint8_t*>(colors_.data()), cursor_[0],
                 cursor_[1]);
    if (!seen_.done) return answer::waiting;
    left_ = true;
    stop();
    return answer::ended;
  }

  bool save_to(const std::filesystem::path& /*file*/) override { return false; }
  std::optional<long> final_score() const override {
    std::ifstream log(folder_.path / "xlogfile");
    std::string line, last;
    while (std::getline(log, line)) last = line;
    const std::size_t field = last.find("\tpoints=");
    if (running() || !left_ || field == std::string::npos) return std::nullopt;
    return std::strtol(last.c_str() + field + 8, nullptr, 10);
  }
  const full_observation* full() const override { return &full_; }

 private:
  // The interface of nle.h, in the versions 0.9 and 1.x.
  struct nle_obs {
    int action, done;
    char in_normal_game;
    int how_done;
    short* glyphs;
    unsigned char *chars, *colors, *specials;
    long* blstats;
    unsigned char* message;
    int *program_state, *internal;
    short* inv_glyphs;
    unsigned char *inv_strs, *inv_letters, *inv_oclasses, *screen_descriptions, *tty_chars;
    signed char* tty_colors;
    unsigned char* tty_cursor;
    int* misc;
  };
  struct seeds {
    unsigned long core_and_display[2];
    char reseed;
    bool use_init_seeds;
    unsigned long level_seed;
    bool use_level_seed;
  };
  struct old_seeds {
    unsigned long core_and_display[2];
    char reseed;
  };
  struct settings {
    char hackdir[4096], scoreprefix[4096], options[32768], wizkit[4096];
    int spawn_monsters;
    char ttyrecname[4096];
    nle_game::seeds seeds;
  };

  /// Those of game.hpp, as far as the game's window is not concerned.
  static constexpr const char* game_settings =
      "color,!legacy,!news,!splash_screen,!cmdassist,disclose:-i -a -v -g -c -o,!mail,!bones,"
      "mention_walls,!sparkle,pickup_burden:unencumbered,pickup_types:$?!/,autopickup,"
      "runmode:teleport,showexp,showscore,time,!tombstone,!toptenwin,!timed_delay,"
      "name:Agent-mon-hum-mal-neu";

  void* symbol(const char* name) {
    if (void* found = dlsym(library_, name)) return found;
    throw std::runtime_error(std::string("this libnethack.so has no ") + name +
                             ": it is not one of the NetHack Learning Environment");
  }

  /// The folder in which the game runs (its HACKDIR).
  struct game_folder {
    game_folder() {
      process_folder::sweep();
      path = process_folder::new_folder();
    }
    ~game_folder() { remove_folder(path); }
    game_folder(const game_folder&) = delete;
    game_folder& operator=(const game_folder&) = delete;
    std::filesystem::path path;
  };

  game_folder folder_;
  int copy_ = -1;
  void* library_ = nullptr;
  void* context_ = nullptr;
  void* (*step_)(void*, nle_obs*) = nullptr;
  void (*end_)(void*) = nullptr;
  nle_obs seen_{};
  settings settings_{};
  old_seeds old_seeds_{};
  full_observation full_;
  std::array<unsigned char, rows * columns> chars_{};
  std::array<signed char, rows * columns> colors_{};
  std::array<unsigned char, 2> cursor_{};
  std::array<int, 6> program_state_{};
  std::array<int, 9> internal_{};
  key next_{};
  bool first_ = true, left_ = false;
};

}  // namespace nethack
