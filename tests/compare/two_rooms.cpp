// SPDX-License-Identifier: MIT
// An environment and a method of one's own, as a program that retain-compare can run. NEAR is where
// every episode begins; FAR comes only behind a solved NEAR. The teacher solves FAR. The method is
// L2 to the teacher's weights. docs/compare.md shows this file.
//
//     two_rooms pretrain --out FOLDER --seed 1
//     two_rooms finetune --teacher FILE --out FOLDER --seed 1 --steps 2000 --l2 0.1
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <map>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>

#include "../../examples/experiment/run_folder.hpp"

namespace {

using weights = std::array<double, 2>;
constexpr weights near_room{1, 0.2}, far_room{-1, 0.2};  // what the policy sees

double chance(const weights& w, const weights& room) {
  return 1 / (1 + std::exp(-(w[0] * room[0] + w[1] * room[1])));
}

/// All that a run needs to go on: written to a temporary name and renamed, so it is never half.
struct checkpoint {
  long step = 0;
  weights w{};
  std::mt19937_64 random;

  void save(const std::filesystem::path& path) const {
    std::ostringstream text;
    text << std::setprecision(17) << step << ' ' << w[0] << ' ' << w[1] << ' ' << random << '\n';
    write_file(path, text.str());
  }
  bool load(const std::filesystem::path& path) {
    std::ifstream file(path);
    return static_cast<bool>(file >> step >> w[0] >> w[1] >> random);
  }
};

volatile std::sig_atomic_t stop = 0;

int pretrain(std::map<std::string, std::string> options) {
  std::mt19937_64 random(std::stoull(options["--seed"]));
  const double noise = static_cast<double>(random() % 1000) / 5000;
  std::ostringstream text;
  text << -2.5 + noise << " 1.0\n";
  write_file(std::filesystem::path(options["--out"]) / "teacher.txt", text.str());
  return 0;
}

int finetune(std::map<std::string, std::string> options) {
  const std::filesystem::path out = options["--out"], saved = out / "checkpoint.txt";
  const auto begin = std::chrono::steady_clock::now();
  const long steps = std::stol(options["--steps"]), every = std::max(1L, steps / 20);
  const double l2 = options.contains("--l2") ? std::stod(options["--l2"]) : 0;
  if (l2 < 0) throw std::runtime_error("--l2 must not be negative");

  weights teacher{};
  std::ifstream file(options["--teacher"]);
  if (!(file >> teacher[0] >> teacher[1]))
    throw std::runtime_error("no teacher in " + options["--teacher"]);
  checkpoint now;
  now.w = teacher;
  now.random.seed(std::stoull(options["--seed"]));
  const bool resumed = now.load(saved);

  experiment::run_description what;
  what.task = "two-rooms";
  what.method = l2 > 0 ? "l2" : "none";
  if (l2 > 0) what.settings["l2"]["strength"] = l2;
  what.seed = std::stol(options["--seed"]);
  what.versions["two_rooms"] = "1";
  experiment::run_folder run(out, what, {"near/success", "far/success", "both/success"}, now.step);
  const auto success = [&] {
    const double p = chance(now.w, near_room), q = chance(now.w, far_room);
    return std::map<std::string, double>{
        {"near/success", p}, {"far/success", q}, {"both/success", p * q}};
  };
  if (!resumed) run.log(0, success());

  const auto uniform = [&] { return static_cast<double>(now.random() >> 11) * 0x1p-53; };
  while (now.step < steps) {
    // REINFORCE: NEAR first; FAR only if NEAR was solved
    weights gradient{};
    const double p = chance(now.w, near_room);
    const bool solved = uniform() < p;
    for (std::size_t i = 0; i < 2 && solved; ++i) gradient[i] += (1 - p) * near_room[i];
    if (const double q = chance(now.w, far_room); solved && uniform() < q)
      for (std::size_t i = 0; i < 2; ++i) gradient[i] += (1 - q) * far_room[i];
    for (std::size_t i = 0; i < 2; ++i)
      now.w[i] += 0.02 * (gradient[i] - l2 * (now.w[i] - teacher[i]));
    ++now.step;
    if (now.step % every == 0 || now.step == steps) run.log(now.step, success());
    if (now.step % every == 0 || stop != 0) now.save(saved);
    if (stop != 0) return 130;
    if (options.contains("--pause"))
      std::this_thread::sleep_for(std::chrono::microseconds(std::stol(options["--pause"])));
  }
  run.finish(now.step, success(),
             std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  std::filesystem::remove(saved);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  for (const int number : {SIGINT, SIGTERM}) std::signal(number, [](int) { stop = 1; });
  try {
    std::map<std::string, std::string> options;
    for (int i = 2; i + 1 < argc; i += 2) options[argv[i]] = argv[i + 1];
    const std::string command = argc > 1 ? argv[1] : "";
    if (command == "pretrain") return pretrain(options);
    if (command == "finetune") return finetune(options);
    throw std::runtime_error("give pretrain or finetune");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "two_rooms: %s\n", error.what());
    return 1;
  }
}
