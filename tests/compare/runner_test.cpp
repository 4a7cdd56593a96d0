// SPDX-License-Identifier: MIT
// retain-compare as its user meets it: stopped, killed, continued, started twice.
#include <dirent.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "../../benchmarks/compare/live.hpp"
#include "../../benchmarks/compare/results.hpp"
#include "../../examples/common/files.hpp"
#include "../common/program.hpp"

namespace runner_test {
using namespace compare;
using programs::read;
namespace fs = std::filesystem;

const programs::program retain_compare{RETAIN_COMPARE};
const std::string beside = " --programs '" TWO_ROOMS_FOLDER "' ";

/// Six runs, each of `steps` pauses of a millisecond.
fs::path write_experiment(const temporary_folder& folder, int steps,
                          const std::string& l2 = "0.1") {
  const auto file = folder / "x.json";
  write_file(file, R"({"programs": {"p": {
      "run": ["two_rooms", "finetune", "--teacher", "{teacher}", "--seed", "{seed}", "--steps", "{steps}",
              "--out", "{out}", "--pause", "1000"],
      "setting": ["--{term}", "{value}"], "teacher": "t"}},
    "teachers": {"t": {"run": ["two_rooms", "pretrain", "--out", "{out}", "--seed", "{seed}"], "product": "teacher.txt"}},
    "tasks": {"rooms": {"program": "p"}},
    "methods": {"none": {}, "l2": {"terms": {"l2": {"strength": )" +
                       l2 + R"(}}}},
    "seeds": "1-3", "steps": )" +
                       std::to_string(steps) + R"(, "measures": {"far/success": {}}})");
  return file;
}

std::string run_words(const fs::path& file, const fs::path& out,
                      const std::string& more = "--jobs 3") {
  return "run '" + file.string() + "' --out '" + out.string() + "'" + beside + more;
}

/// Starts it and returns its process.
pid_t start(const std::string& words) {
  const auto command = "exec '" RETAIN_COMPARE "' " + words + " >/dev/null 2>&1 </dev/null";
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  return child;
}

int status_of(pid_t child) {
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/// Processes whose command line names `path`.
std::vector<pid_t> processes_with(const std::string& path) {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const auto name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (read(entry.path() / "cmdline").find(path) != std::string::npos)
      found.push_back(static_cast<pid_t>(std::stol(name)));
  }
  std::erase(found, getpid());
  return found;
}

/// The files of each run and what they say, without times.
std::map<std::string, std::string> contents(const fs::path& out) {
  std::map<std::string, std::string> all;
  for (const auto& entry : fs::recursive_directory_iterator(out)) {
    if (!entry.is_regular_file()) continue;
    const auto name = fs::relative(entry.path(), out).string();
    const auto file = entry.path().filename();
    std::string text = read(entry.path());
    if (file == "log.txt") text = "a log";
    if (file == "evaluation.json") text = json::parse(text).at("values").dump();
    if (file == "compare.json") text = json::parse(text).at("status").dump();
    all[name] = text;
  }
  return all;
}

void wait_until_gone(const std::string& path) {
  for (int i = 0; i < 500 && !processes_with(path).empty(); ++i) usleep(10'000);
  CHECK(processes_with(path).empty());
}

TEST_CASE("runs that are killed at random moments end like undisturbed ones", "[compare]") {
  const temporary_folder folder;
  const auto file = write_experiment(folder, 300);
  const auto calm = folder / "calm", torn = folder / "torn";
  REQUIRE(retain_compare(run_words(file, calm)).code == 0);

  std::mt19937 random(20'240'202);
  int kills = 0, of_runs = 0;
  pid_t runner = 0;
  for (int i = 0; i < 400 && kills < 24; ++i) {
    if (runner == 0) runner = start(run_words(file, torn));
    usleep(static_cast<useconds_t>(20'000 + random() % 130'000));
    if (random() % 3 == 0) {  // a run, which the runner starts again
      for (const auto& entry : fs::recursive_directory_iterator(torn)) {
        if (entry.path().filename() != record_name) continue;
        const auto record = read_record(entry.path().parent_path());
        if (record.status != run_status::running || record.pid <= 0) continue;
        if (kill(static_cast<pid_t>(record.pid), SIGKILL) == 0) ++kills, ++of_runs;
        break;
      }
      continue;
    }
    constexpr std::array<int, 4> ways{SIGINT, SIGTERM, SIGHUP, SIGKILL};
    const int signal = ways[random() % ways.size()];
    int ended = 0;
    if (waitpid(runner, &ended, WNOHANG) == runner) {  // finished before
      runner = 0;
      if (ended == 0) fs::remove_all(torn / "runs");
      continue;
    }
    kill(runner, signal);
    ++kills;
    const int code = status_of(runner);
    // The signal itself ends a runner that has not started anything yet.
    if (code != 0 && code != -signal) CHECK(code == 128 + signal);
    runner = 0;
  }
  CHECK(kills >= 20);
  CHECK(of_runs >= 3);
  if (runner != 0) kill(runner, SIGINT), status_of(runner);
  CHECK(retain_compare(run_words(file, torn, "--jobs 3 --attempts 9 --retry-failed")).code == 0);
  const auto expected = contents(calm), found = contents(torn);
  for (const auto& [name, text] : found) {
    CAPTURE(name);
    REQUIRE(expected.contains(name));
    CHECK(text == expected.at(name));
  }
  CHECK(found.size() == expected.size());
  wait_until_gone(torn.string());
}

TEST_CASE("kill -9 of the runner stops its runs, which save themselves", "[compare]") {
  const temporary_folder folder;
  const auto file = write_experiment(folder, 60'000);
  const auto out = folder / "out";
  const pid_t runner = start(run_words(file, out));
  for (int i = 0; i < 1000 && processes_with("finetune").size() < 3; ++i) usleep(5'000);
  usleep(50'000);
  kill(runner, SIGKILL);
  CHECK(status_of(runner) == -SIGKILL);
  wait_until_gone(out.string());
  int saved = 0;
  for (const auto& entry : fs::recursive_directory_iterator(out))
    saved += entry.path().filename() == "checkpoint.txt";
  CHECK(saved == 3);
}

TEST_CASE("kill -9 of the runner leaves nothing of a run that does not listen", "[compare]") {
  const temporary_folder folder;
  const auto mark = (folder / "stray").string();
  // SIGTERM ends only the outer shell; what it has started lives on until the guard kills the group
  write_file(folder / "x.json", R"({"programs": {"p": {"run": ["/bin/sh", "-c",
      "sh -c 'trap : TERM; while :; do sleep 1; done; : )" +
                                    mark +
                                    R"(' & echo {out} >/dev/null; wait"]}},
    "tasks": {"t": {"program": "p"}}, "methods": {"none": {}}, "seeds": "1", "steps": 1,
    "measures": {"a": {}}})");
  const pid_t runner = start(run_words(folder / "x.json", folder / "out", "--grace 1"));
  for (int i = 0; i < 1000 && processes_with(mark).size() < 2; ++i) usleep(5'000);
  CHECK(processes_with(mark).size() >= 2);
  kill(runner, SIGKILL);
  CHECK(status_of(runner) == -SIGKILL);
  wait_until_gone(mark);
}

TEST_CASE("two runners share one folder, and no run is made twice", "[compare]") {
  const temporary_folder folder;
  const auto file = write_experiment(folder, 150);
  const auto out = folder / "out";
  const pid_t one = start(run_words(file, out, "--jobs 2")),
              other = start(run_words(file, out, "--jobs 2"));
  CHECK(status_of(one) == 0);
  CHECK(status_of(other) == 0);
  int runs = 0;
  for (const auto& entry : fs::recursive_directory_iterator(out))
    if (entry.path().filename() == record_name) {
      const auto record = read_record(entry.path().parent_path());
      CHECK(record.attempts == 1);
      CHECK(record.status == run_status::finished);
      ++runs;
    }
  CHECK(runs == 9);  // three teachers and six runs
  // and a third starts nothing
  CHECK_THAT(retain_compare(run_words(file, out)).text,
             ContainsSubstring("9 of 9 finished (9 before)"));
}

TEST_CASE("a failed run is kept with its log while the rest goes on", "[compare]") {
  const temporary_folder folder;
  const auto file = write_experiment(folder, 5, "-1");
  const auto out = folder / "out";
  const auto first = retain_compare(run_words(file, out));
  CHECK(first.code == 3);
  CHECK_THAT(first.text, ContainsSubstring("6 of 9 finished (0 before), 3 failed"));
  CHECK_THAT(first.text,
             ContainsSubstring("failed (exit code 1): two_rooms: --l2 must not be negative"));
  const auto folder_of_run = out / "runs/rooms/l2/seed1";
  CHECK_THAT(read(folder_of_run / "log.txt"), ContainsSubstring("must not be negative"));
  CHECK(retain_compare(run_words(file, out)).code == 3);
  CHECK(read_record(folder_of_run).attempts == 1);
  CHECK(retain_compare(run_words(file, out, "--retry-failed")).code == 3);
  CHECK(read_record(folder_of_run).attempts == 2);
}

TEST_CASE("a teacher that fails stops only what needs it", "[compare]") {
  const temporary_folder folder;
  auto text = read(write_experiment(folder, 5));
  text.replace(text.find("\"pretrain\""), 10, "\"protrain\"");
  write_file(folder / "y.json", text);
  const auto result = retain_compare(run_words(folder / "y.json", folder / "out"));
  CHECK(result.code == 3);
  CHECK_THAT(
      result.text,
      ContainsSubstring("0 of 9 finished (0 before), 3 failed, 6 not started because of these"));
}

TEST_CASE("files that are removed under a run are no silent loss", "[compare]") {
  const temporary_folder folder;
  const auto file = write_experiment(folder, 400);
  const auto out = folder / "out";
  const auto run = out / "runs/rooms/none/seed1";
  const auto when_running = [&] {
    for (int i = 0; i < 1000 && last_step(run) < 20; ++i) usleep(5'000);
  };
  SECTION("the log of its steps") {
    const pid_t runner = start(run_words(file, out, "--jobs 6"));
    when_running();
    fs::remove(run / "metrics.csv");
    CHECK(status_of(runner) == 3);
    CHECK(read_record(run).ended == "exit code 0 without metrics.csv");
  }
  SECTION("its record") {
    const pid_t runner = start(run_words(file, out, "--jobs 6"));
    when_running();
    fs::remove(run / record_name);
    CHECK(status_of(runner) == 0);
    CHECK(read_record(run).status == run_status::finished);
  }
  SECTION("its folder") {
    const pid_t runner = start(run_words(file, out, "--jobs 6"));
    when_running();
    remove_folder(run);
    CHECK(status_of(runner) == 3);
    CHECK_THAT(read_record(run).ended, ContainsSubstring("folder was removed while it ran"));
    remove_folder(run);  // as it says
    CHECK(retain_compare(run_words(file, out)).code == 0);
  }
  SECTION("the evaluation of a finished run") {
    REQUIRE(retain_compare(run_words(file, out, "--jobs 6")).code == 0);
    const auto before = json::parse(read(run / "evaluation.json")).at("values");
    fs::remove(run / "evaluation.json");
    CHECK(retain_compare(run_words(file, out)).code == 0);
    CHECK(json::parse(read(run / "evaluation.json")).at("values") == before);
  }
}

TEST_CASE("another experiment in the same folder is refused before anything starts", "[compare]") {
  const temporary_folder folder;
  const auto out = folder / "out";
  REQUIRE(retain_compare(run_words(write_experiment(folder, 5), out)).code == 0);
  const auto before = contents(out / "runs");
  const auto other = retain_compare(run_words(write_experiment(folder, 6), out));
  CHECK(other.code == 1);
  CHECK_THAT(other.text, ContainsSubstring("holds a run with steps = 5, not 6"));
  CHECK(contents(out / "runs") == before);
}

TEST_CASE("shards merge by copying", "[compare]") {
  const temporary_folder folder;
  const auto file = write_experiment(folder, 5);
  const auto all = folder / "all";
  for (const auto* shard : {"1/2", "2/2"}) {
    const auto part = folder / (std::string("part") + shard[0]);
    REQUIRE(retain_compare(run_words(file, part, std::string("--shard ") + shard)).code == 0);
    fs::copy(part, all, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  }
  CHECK_THAT(retain_compare(run_words(file, all)).text,
             ContainsSubstring("9 of 9 finished (9 before)"));
  CHECK(retain_compare(run_words(file, all, "--shard 0/2")).code == 1);
  CHECK(retain_compare(run_words(file, all, "--shard 3/2")).code == 1);
}

TEST_CASE("nothing that a run starts outlives it", "[compare]") {
  const temporary_folder folder;
  const auto mark = (folder / "stray").string();
  write_file(
      folder / "x.json",
      R"({"programs": {"p": {"run": ["/bin/sh", "-c",
      "sh -c 'sleep 600; : )" +
          mark +
          R"(' & echo step,a >{out}/metrics.csv; echo '{{\"values\":{{}}}}' >{out}/evaluation.json"]}},
    "tasks": {"t": {"program": "p"}}, "methods": {"none": {}}, "seeds": "1", "steps": 1, "measures": {"a": {}}})");
  const auto result = retain_compare(run_words(folder / "x.json", folder / "out"));
  CAPTURE(result.text);
  CHECK(result.code == 0);
  wait_until_gone(mark);
}

TEST_CASE("the tuning chooses, and the comparison uses the choice", "[compare]") {
  const temporary_folder folder;
  const auto file = std::string("'" RETAIN_SOURCE "/experiments/two_rooms.json' --out '") +
                    (folder / "out").string() + "'" + beside;
  const auto early = retain_compare("run " + file);
  CHECK(early.code == 1);
  CHECK_THAT(early.text, ContainsSubstring("run `retain-compare tune` first"));
  const auto tuned = retain_compare("tune " + file + "--jobs 2");
  CHECK(tuned.code == 0);
  CHECK_THAT(tuned.text, ContainsSubstring("Chosen by both/success:mean, highest mean"));
  CHECK(retain_compare("run " + file + "--jobs 2 --seeds 1-2").code == 0);
  const auto chosen = read_record(folder / "out/runs/two-rooms/l2/seed1").identity.at("settings");
  CHECK(chosen.dump() == R"({"l2":{"strength":0.003}})");  // the weakest hinders NEAR least
  CHECK_THAT(retain_compare("run " + file + "--seeds 11").text,
             ContainsSubstring("11 is not a seed of"));
}

TEST_CASE("every subcommand has help, and wrong options are refused", "[compare]") {
  programs::check_help(retain_compare, {"run", "tune", "list"});
  CHECK(retain_compare("run").code == 2);
  CHECK(retain_compare("run /nowhere.json").code == 2);
  CHECK_THAT(retain_compare("run /nowhere.json").text,
             ContainsSubstring("/nowhere.json: there is no such file"));
}

}  // namespace runner_test
