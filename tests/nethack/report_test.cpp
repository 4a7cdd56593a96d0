// SPDX-License-Identifier: MIT
#include "../../examples/nethack/report.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "../../examples/common/temporary_folder.hpp"
#include "../../examples/nethack/screen_view.hpp"
#include "catch2.hpp"

namespace nethack_report_test {

namespace {

std::vector<nethack::game_result> some_games(double level) {
  std::vector<nethack::game_result> games;
  for (std::uint64_t i = 0; i < 8; ++i)
    games.push_back({i, "new", level + static_cast<double>(i), level / 2, 2, 1500, 2000,
                     i == 0 ? "stuck" : "death"});
  return games;
}

/// A folder as a sweep leaves it: a clone, and two methods with two seeds each.
struct sweep_folder : temporary_folder {
  sweep_folder() {
    write("clone", "", 0, 300);
    for (const int seed : {1, 2}) {
      write("none-" + std::to_string(seed), "none", seed, 100 + 10 * seed);
      write("ewc-" + std::to_string(seed), "ewc", seed, 250 + 10 * seed);
    }
  }

  void write(const std::string& name, const std::string& method, int seed, double level) const {
    nlohmann::json file{{"name", name},
                        {"starts", nethack::to_json({{"new", some_games(level)}})},
                        {"monitor",
                         {{"kl/close", 0.1},
                          {"kl/far", 0.2},
                          {"agreement/close", 0.9},
                          {"agreement/far", nullptr}}}};
    if (!method.empty()) {
      file["training"] = {{"method", method},
                          {"recipe", "quick"},
                          {"seed", seed},
                          {"steps", 1000},
                          {"turns", 2000}};
      write_file(path() / name / "metrics.csv",
                 "global_step,kl/close,kl/far\n0,0,0\n500,0.05,\n1000,0.1,0.2\n");
      std::string episodes = "step,score,depth,turns,ending\n";
      for (int step = 0; step <= 1000; step += 10)
        episodes += std::to_string(step) + "," + std::to_string(step / 4) + ",1,100,death\n";
      write_file(path() / name / "episodes.csv", episodes);
    }
    write_json(path() / name / "evaluation.json", file);
  }
};

}  // namespace

TEST_CASE("games come back from JSON as they went in", "[nethack][report]") {
  const nethack::results_by_start results{
      {"new", some_games(100)}, {"depth3", {{7, "depth3/001", 1.5, 1, 4, 90, 120, "turns"}}}};
  const auto again =
      nethack::results_from_json(nlohmann::json::parse(nethack::to_json(results).dump()));
  REQUIRE(again.size() == 2);
  REQUIRE(again.at("new").size() == 8);
  CHECK(nethack::scores(again.at("new")) == nethack::scores(results.at("new")));
  CHECK(again.at("depth3")[0].start == "depth3/001");
  CHECK(again.at("depth3")[0].score == 1.5);
  CHECK(again.at("depth3")[0].ending == "turns");
}

TEST_CASE("a summary holds mean, median, interval, and the share of endings", "[nethack][report]") {
  const auto games = some_games(100);
  const auto found = nethack::summary(games);
  CHECK(found.at("mean").get<double>() == Approx(103.5));
  CHECK(found.at("median").get<double>() == Approx(103.5));
  CHECK(found.at("gained_after_turn_1000").get<double>() == Approx(53.5));
  CHECK(found.at("endings").at("stuck") == 1);
  CHECK(nethack::ending_share(games, "stuck") == Approx(0.125));
}

TEST_CASE("the report pairs seeds and games, and keeps its order", "[nethack][report]") {
  const sweep_folder folder;
  const auto runs = nethack::read_evaluations({folder.path()});
  REQUIRE(runs.size() == 5);
  CHECK(runs[0].name == "clone");
  CHECK(runs[1].method == "none");
  CHECK(runs[1].seed == 1);
  CHECK(runs[4].method == "ewc");
  const auto text = nethack::seeds_report(runs);
  CHECK(text.find("+150 [150 … 150], 2/2") != std::string::npos);  // ewc − none, in both seeds
  CHECK(text.find("-35 [-40 … -30], 0/2") != std::string::npos);   // ewc − clone
  CHECK(nethack::games_report(runs).find("ewc, seed 2") != std::string::npos);
}

TEST_CASE("the report compares the methods with each other on equal games", "[nethack][report]") {
  const sweep_folder folder;
  // one method alone
  CHECK(nethack::seeds_report(nethack::read_evaluations({folder.path()})).find("row − column") ==
        std::string::npos);
  for (const int seed : {1, 2})
    folder.write("bc-" + std::to_string(seed), "bc", seed, 280 + 20 * seed);
  folder.write("bc-3", "bc", 3, 1000);  // a seed that the other lacks
  const auto text = nethack::seeds_report(nethack::read_evaluations({folder.path()}));
  const auto table = text.substr(text.find("row − column"));
  // bc − ewc: 300 − 260 and 320 − 270
  CHECK(table.find("+45 [40 … 50], 2/2") != std::string::npos);
  CHECK(table.find("-45 [-50 … -40], 0/2") != std::string::npos);
  CHECK(table.find("none |") == std::string::npos);
}

TEST_CASE("methods that no table has a place for stay apart, each with its seeds together",
          "[nethack][report]") {
  const sweep_folder folder;
  for (const int seed : {1, 2, 3})
    for (const std::string method : {"l2+ks", "l2+bc"})
      folder.write(method + "-" + std::to_string(seed), method, seed, 200);
  const auto groups = nethack::group_runs(nethack::read_evaluations({folder.path()}));
  REQUIRE(groups.size() == 1);
  std::vector<std::pair<std::string, std::size_t>> seeds;
  for (const auto& [method, runs] : groups[0].methods) seeds.emplace_back(method, runs.size());
  CHECK(seeds == std::vector<std::pair<std::string, std::size_t>>{
                     {"none", 2}, {"ewc", 2}, {"l2+bc", 3}, {"l2+ks", 3}});
}

TEST_CASE("a report counts each seed once, has one reference of a name, and games of one length",
          "[nethack][report]") {
  const auto read = [](const temporary_folder& folder) {
    return nethack::read_evaluations({folder.path()});
  };
  {
    const sweep_folder folder;
    folder.write("again/none-2", "none", 2, 500);
    CHECK_THROWS_WITH(read(folder),
                      ContainsSubstring("two runs of none, seed 2") && ContainsSubstring("again"));
  }
  {
    const sweep_folder folder;
    const auto clone = nlohmann::json::parse(std::ifstream(folder / "clone" / "evaluation.json"));
    write_json(folder / "other" / "evaluation.json", clone);
    CHECK_THROWS_WITH(read(folder), ContainsSubstring("two evaluations of 'clone'") &&
                                        ContainsSubstring("other"));
  }
  const sweep_folder folder;
  auto clone = nlohmann::json::parse(std::ifstream(folder / "clone" / "evaluation.json"));
  clone["turns"] = 300;
  write_json(folder / "clone" / "evaluation.json", clone);
  CHECK_THROWS_WITH(read(folder), ContainsSubstring("300 turns"));
}

TEST_CASE("a report writes its tables", "[nethack][report]") {
  const sweep_folder folder;
  nethack::write_report(nethack::read_evaluations({folder.path()}), folder.path() / "report");
  for (const auto* name : {"report.md", "runs.csv", "report.json"})
    CHECK(std::filesystem::file_size(folder.path() / "report" / name) > 100);
}

TEST_CASE("a report draws its pictures", "[nethack][report]") {
  if (std::system("command -v gnuplot >/dev/null 2>&1") != 0) {
    skip_test("gnuplot is missing (apt install gnuplot-nox)");
    return;
  }
  const sweep_folder folder;
  nethack::write_report(nethack::read_evaluations({folder.path()}), folder.path() / "report");
  for (const auto* name : {"curves-quick-2000.png", "curves-quick-2000.svg",
                           "scores-quick-2000.png", "scores-quick-2000.svg"})
    CHECK(std::filesystem::file_size(folder.path() / "report" / name) > 1000);
}

TEST_CASE("a folder without evaluations, and a file that is none, say so", "[nethack][report]") {
  const sweep_folder folder;
  CHECK_THROWS_WITH(nethack::read_evaluations({folder.path() / "nowhere"}),
                    ContainsSubstring("no folder"));
  write_file(folder.path() / "clone" / "evaluation.json", "{\"name\": \"clone\"}");
  CHECK_THROWS_WITH(nethack::read_evaluations({folder.path()}),
                    ContainsSubstring("is not an evaluation"));
  write_file(folder.path() / "clone" / "evaluation.json", "{");
  CHECK_THROWS_WITH(nethack::read_evaluations({folder.path()}),
                    ContainsSubstring("not valid JSON"));
}

TEST_CASE("a frame keeps its characters, with or without colors", "[nethack][report]") {
  nethack::observation seen;
  seen.chars.fill(' ');
  seen.colors.fill(7);
  seen.chars[80] = '@';
  seen.chars[81] = '$';
  seen.colors[81] = 11;
  seen.cursor_row = 1;
  CHECK(nethack::screen_text(seen, false).find("\n@$\n") == 0);
  CHECK(nethack::screen_text(seen, true).find("\033[0;93m$") != std::string::npos);
}

}  // namespace nethack_report_test
