// SPDX-License-Identifier: MIT
// The report of runs whose numbers are known.
#include <algorithm>
#include <filesystem>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "../../benchmarks/compare/command_export.hpp"
#include "../../examples/common/temporary_folder.hpp"
#include "../../examples/experiment/run_folder.hpp"
#include "../common/program.hpp"

namespace report_test {
using namespace compare;
using programs::read;
namespace fs = std::filesystem;

/// FAR falls from 1 to 1 − loss, CLOSE rises from 0 to `gain` + seed / 100.
void write_run(const fs::path& out, const std::string& task, const std::string& method, int seed,
               double loss, double gain) {
  experiment::run_folder run(out / task / method / ("seed" + std::to_string(seed)),
                             {task, "", method, nlohmann::json::object(), seed, {}, {}},
                             {"far", "close"});
  const double end = gain + seed / 100.0;
  run.log(0, {{"far", 1.0}, {"close", 0.0}});
  run.log(50, {{"far", 1 - loss}, {"close", end / 2}});
  run.log(100, {{"far", 1 - loss / 2}, {"close", end}});
  run.finish(100, {{"close", end}, {"far", 1 - loss / 2}}, 2);
}

/// Two tasks, three methods.
void write_runs(const fs::path& out, int seeds) {
  write_file(
      out / "experiment.json",
      R"({"name": "known", "programs": {"p": {"run": ["true", "{out}"], "terms": ["{terms}"]}},
    "tasks": {"b": {"program": "p"}, "a": {"program": "p"}},
    "methods": {"scratch": {}, "none": {}, "keep": {"terms": {"keep": {}}}}, "seeds": "1-10", "steps": 100,
    "measures": {"close": {"label": "success in CLOSE", "side": "CLOSE", "range": [0, 1], "digits": 3},
                 "far": {"label": "success in FAR", "side": "FAR", "range": [0, 1], "digits": 3}},
    "main": "close", "plain": "none", "scratch": "scratch"})");
  for (const auto* task : {"a", "b"})
    for (int seed = 1; seed <= seeds; ++seed) {
      write_run(out, task, "none", seed, 0.8, 0.5);
      write_run(out, task, "keep", seed, 0.1, 0.6);
      write_run(out, task, "scratch", seed, 0, 0.2);
    }
}

std::string section(const std::string& text, const std::string& from, const std::string& to) {
  const auto begin = text.find(from);
  REQUIRE(begin != std::string::npos);
  return text.substr(begin, text.find(to, begin + from.size()) - begin);
}

TEST_CASE("the report says what the runs say", "[compare]") {
  const temporary_folder folder;
  write_runs(folder / "runs", 10);
  const auto text = write_report({folder / "runs"}, folder / "report");
  CHECK_THAT(text, ContainsSubstring("60 finished runs of 3 methods on 2 tasks."));
  const auto task = section(text, "## a\n", "## How");
  // seeds 1 to 10: mean .055, median .055; the middle five with halves at the ends have .055 too
  CHECK(std::regex_search(
      task,
      std::regex(R"(\| keep +\| +10 \| 0\.655 \[0\.6\d\d … 0\.6\d\d\] \| +0\.655 \| 0\.655 \[)")));
  CHECK(std::regex_search(
      task,
      std::regex(
          R"(\| keep +\| +\+0\.100 \[0\.100 … 0\.100\] \| +10/10 \| 1\.00 \[1\.00 … 1\.00\])")));
  // the area of FAR without retention: (100 · (1 + .2) / 2 · ½ + (.2 + .6) / 2 · ½)
  CHECK(std::regex_search(
      task, std::regex(R"(\| none +\| 0\.600 \[0\.600 … 0\.600\] \| 0\.500 \[.*\] \| 0\.200 )")));
  // forgetting: best 1 − end .6; backward transfer: .6 − 1
  CHECK(std::regex_search(task,
                          std::regex(R"(\| none +\| 0\.400 \[0\.400 … 0\.400\] \| -0\.400 \[)")));
  // forward transfer: areas are half of the ends: (.3275 − .1275) / (1 − .1275)
  CHECK(std::regex_search(task, std::regex(R"(\| keep +\| 0\.229 )")));
  CHECK(std::regex_search(task, std::regex(R"(\| none +\| +50 \| +20000 \| +1\.00 \|)")));
  // all tasks
  CHECK(std::regex_search(section(text, "## All tasks", "## b\n"),
                          std::regex(R"(\| keep +\| +20 \| 0\.66 \[)")));
  CHECK_THAT(section(text, "## All tasks", "## b\n"), ContainsSubstring("in its range, 0 to 1"));
  CHECK(text.find("Note:") == std::string::npos);
}

TEST_CASE("no interval below five seeds, and a warning below ten", "[compare]") {
  const temporary_folder folder;
  write_runs(folder / "four", 4);
  const auto four = write_report({folder / "four"}, folder / "report");
  CHECK(four.find(" … ") == std::string::npos);
  CHECK_THAT(four,
             ContainsSubstring("**Note:** a: fewer than 5 seeds (4), so there is no interval"));
  CHECK(read(folder / "report/index.html").find("fill-opacity=\".16\"") ==
        std::string::npos);  // no band
  write_runs(folder / "six", 6);
  const auto six = write_report({folder / "six"}, folder / "report");
  CHECK(six.find(" … ") != std::string::npos);
  CHECK_THAT(six, ContainsSubstring("6 seeds are few"));
  CHECK(read(folder / "report/index.html").find("fill-opacity=\".16\"") != std::string::npos);
}

TEST_CASE("what is missing is said", "[compare]") {
  const temporary_folder folder;
  write_runs(folder / "runs", 10);
  const auto run = folder / "runs/a/keep/seed3";
  fs::remove(run / "evaluation.json");
  fs::remove_all(folder / "runs/a/none/seed4");
  run_record failed;
  failed.identity = {{"kind", "run"}};
  failed.status = run_status::failed;
  write_record(run, failed);
  auto shorter = read_ordered(folder / "runs/a/keep/seed5/evaluation.json");
  shorter["step"] = 90;
  write_ordered(folder / "runs/a/keep/seed5/evaluation.json", shorter);
  const auto text = write_report({folder / "runs"}, folder / "report");
  CHECK_THAT(text, ContainsSubstring("a: the runs have different budgets, of 90 to 100 steps"));
  CHECK_THAT(text, ContainsSubstring("1 run is left out, which failed."));
  CHECK_THAT(text, ContainsSubstring("a: the methods have different numbers of seeds (9 to 10)"));
  CHECK_THAT(text, ContainsSubstring("8/8"));  // the pairs that are left
  CHECK_THROWS_WITH(write_report({folder / "report"}, folder / "again"),
                    ContainsSubstring("there is no finished run"));
}

TEST_CASE("the page stands alone and is well-formed", "[compare]") {
  const temporary_folder folder;
  write_runs(folder / "runs", 5);
  write_run(folder / "runs", "a", "<b>&\"", 1, 0, 0);  // a method's name is text, not HTML
  write_report({folder / "runs"}, folder / "report");
  const auto page = read(folder / "report/index.html");
  CHECK(page.find("<script") == std::string::npos);
  CHECK(page.find("<link") == std::string::npos);
  CHECK(page.find("<img") == std::string::npos);
  CHECK(page.find("<b>") == std::string::npos);
  CHECK(page.find("prefers-color-scheme:dark") != std::string::npos);
  const std::string namespace_of_svg = "http://www.w3.org/2000/svg";
  for (auto at = page.find("http"); at != std::string::npos; at = page.find("http", at + 1))
    CHECK(page.compare(at, namespace_of_svg.size(), namespace_of_svg) == 0);
  CHECK(page.find("nan") == std::string::npos);
  // every element is closed, in order
  std::vector<std::string> open;
  const std::regex tag(R"(<(/?)([a-z0-9]+)([^<>]*?)(/?)>)");
  for (std::sregex_iterator each(page.begin(), page.end(), tag), end; each != end; ++each) {
    const std::string name = (*each)[2];
    if ((*each)[4] == "/" || name == "meta") continue;
    if ((*each)[1] == "/") {
      REQUIRE_FALSE(open.empty());
      CHECK(open.back() == name);
      open.pop_back();
    } else {
      open.push_back(name);
    }
  }
  CHECK(open.empty());
  // the pictures of the Markdown are files
  const auto text = read(folder / "report/report.md");
  const std::regex picture(R"(\]\(([^)]+\.svg)\))");
  int pictures = 0;
  for (std::sregex_iterator each(text.begin(), text.end(), picture), end; each != end;
       ++each, ++pictures)
    CHECK(fs::exists(folder / "report" / (*each)[1].str()));
  CHECK(pictures >= 8);
  // tables fit a terminal
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("|")) CHECK(text_table::width(line) <= 100);
}

TEST_CASE("one report over two experiments, each with its own measures", "[compare]") {
  const temporary_folder folder;
  write_runs(folder / "one", 5);
  write_runs(folder / "two", 5);
  auto other = read(folder / "two/experiment.json");
  other.replace(other.find("\"known\""), 7, "\"other\"");
  other.replace(other.find("success in CLOSE"), 16, "score");
  write_file(folder / "two/experiment.json", other);
  for (const auto* task : {"a", "b"})  // two environments
    fs::rename(folder / "two" / task, folder / "two" / (std::string("world-") + task));
  for (const auto& entry : fs::recursive_directory_iterator(folder / "two"))
    if (const auto name = entry.path().filename();
        name == "config.json" || name == "evaluation.json") {
      auto file = read_ordered(entry.path());
      file["task"] = "world-" + file.at("task").get<std::string>();
      write_ordered(entry.path(), file);
    }
  const auto text = write_report({folder / "one", folder / "two"}, folder / "report");
  CHECK_THAT(text, ContainsSubstring("# known, other\n"));
  CHECK_THAT(section(text, "## known: a\n", "## other"),
             ContainsSubstring("CLOSE: success in CLOSE."));
  CHECK_THAT(section(text, "## other: world-a\n", "## other: world-b\n"),
             ContainsSubstring("CLOSE: score."));
  // all four tasks have a range
  CHECK(std::regex_search(section(text, "## All tasks", "## known: b\n"),
                          std::regex(R"(\| none +\| +20 \|)")));
}

TEST_CASE("what lies within a recorded folder is no run", "[compare]") {
  const temporary_folder folder;
  write_runs(folder / "runs", 5);
  const auto teacher = folder / "runs/teachers/t/seed1";
  run_record record;
  record.identity = {{"kind", "teacher"}};
  record.status = run_status::finished;
  fs::create_directories(teacher / "attempt1");
  write_record(teacher, record);
  write_file(teacher / "metrics.csv", "anything\n1\n");
  write_file(teacher / "attempt1/evaluation.json", "{}");
  CHECK(read_results({folder / "runs"}).size() == 30);
}

TEST_CASE("the live table is at most 100 columns wide", "[compare]") {
  live_state now;
  now.total = 120;
  now.finished = 60;
  now.failed = 3;
  now.left = 4000;
  now.runs.push_back({"runs/a-task-with-a-long-name/a-method/seed123",
                      "ewc  30k of 1.5M\tsteps …" + std::string(90, 'x'), 300'000, 1'500'000, 5'000,
                      60});
  now.runs.push_back({"teachers/t/seed1", "", 0, 0, 0, 75});
  for (const std::size_t width : {20u, 80u, 100u, 300u})
    for (const auto& line : live_lines(now, 90, width)) {
      CHECK(text_table::width(line) == std::clamp<std::size_t>(width, 40, 100));
      CHECK(line.find('\t') == std::string::npos);
    }
  const auto lines = live_lines(now, 90, 100);
  CHECK_THAT(lines[0], ContainsSubstring(
                           "60 of 120 finished, 2 running, 3 failed   1:30, about 1:06:40 left"));
  CHECK_THAT(lines[1], ContainsSubstring(" 20 %  5.0k/s, 4:00 left"));
  CHECK_THAT(lines[2], ContainsSubstring("1:15"));
}

TEST_CASE("every number is in the long CSV", "[compare]") {
  const temporary_folder folder;
  write_runs(folder / "runs", 1);
  write_report({folder / "runs"}, folder / "report");
  const auto text = read(folder / "report/runs.csv");
  // 6 runs, each with 3 rows of 2 measures, and 2 values at the end
  CHECK(std::count(text.begin(), text.end(), '\n') == 1 + 6 * 8);
  CHECK_THAT(text, ContainsSubstring("a,,keep,,1,finished,training,50.0,far,0.9\n"));
  CHECK_THAT(text, ContainsSubstring("b,,none,,1,finished,end,100.0,close,0.51\n"));
}

TEST_CASE("LaTeX escapes what has a meaning there", "[compare]") {
  document doc;
  doc.heading(2, "A_b");
  doc.table({{"100 %", "x & y"}, {"−1 … 2", "µs_{i}"}});
  const auto text = latex_of(doc);
  CHECK_THAT(text, ContainsSubstring("100 \\% & x \\& y \\\\"));
  CHECK_THAT(text, ContainsSubstring("$-$1 \\ldots{} 2 & $\\mu$s\\_\\{i\\} \\\\"));
  CHECK_THAT(text, ContainsSubstring("\\caption{A\\_b}"));
}

TEST_CASE("ticks are round and cover the values", "[compare]") {
  CHECK(nice_ticks(0, 1) == std::vector<double>{0, 0.2, 0.4, 0.6000000000000001, 0.8, 1});
  CHECK(nice_ticks(0, 1'500'000, 4) == std::vector<double>{0, 500'000, 1'000'000, 1'500'000});
  for (const auto& [low, high] :
       std::vector<std::pair<double, double>>{{-3.2, 7.9}, {0.011, 0.012}, {5, 5}}) {
    const auto ticks = nice_ticks(low, high);
    CHECK(ticks.front() <= low + 1e-12);
    CHECK(ticks.back() >= high - 1e-12);
    CHECK(ticks.size() <= 12);
  }
}

TEST_CASE("labels do not cover each other", "[compare]") {
  std::vector<double> places{100, 101, 99, 300};
  detail::spread(places, 14, 30, 230);
  auto sorted = places;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 1; i < sorted.size(); ++i) CHECK(sorted[i] - sorted[i - 1] >= 14);
  CHECK(sorted.back() <= 230);
  CHECK(places[2] < places[0]);  // the order stays
  CHECK(places[0] < places[1]);
}

TEST_CASE("TensorBoard's frames", "[compare]") {
  CHECK(crc32c("123456789") == 0xE3069283u);  // the check value of CRC-32C
  // RFC 3720, B.4: 32 bytes of zeros
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);
  run_result run;
  run.curves["a"] = {{300, 0.5}};
  const auto bytes = tensorboard_events(run);
  // event 1: wall time 0, step 0, "brain.Event:2"; 9 + 2 + 15 bytes
  REQUIRE(bytes.size() > 42);
  CHECK(static_cast<int>(bytes[0]) == 26);
  CHECK(bytes.substr(12 + 13, 13) == "brain.Event:2");
  // event 2: time (9), step 300 as a varint of two bytes (3), summary: {a: .5f}
  const auto second = bytes.substr(26 + 16 + 12);
  CHECK(second.substr(9, 3) == "\x10\xAC\x02");
  CHECK(second.substr(12, 2) == std::string("\x2A\x0A"));
  CHECK(second.substr(14, 10) == std::string("\x0A\x08\x0A\x01"
                                             "a"
                                             "\x15\x00\x00\x00\x3F",
                                             10));
}

TEST_CASE("report, show, export and list as programs", "[compare]") {
  const programs::program retain_compare{RETAIN_COMPARE};
  const temporary_folder folder;
  write_runs(folder / "runs", 2);
  const auto quoted = "'" + folder.file("runs") + "'";
  const auto report = retain_compare("report " + quoted);
  CHECK(report.code == 0);
  CHECK(fs::exists(folder / "runs/report/index.html"));
  const auto shown = retain_compare("show " + quoted + "/a/keep/seed1");
  CHECK(shown.code == 0);
  CHECK_THAT(shown.text, ContainsSubstring("method      keep\n"));
  CHECK_THAT(shown.text, ContainsSubstring("| close      | 0.6100 |"));
  CHECK_THAT(shown.text, ContainsSubstring("█▁▄"));
  CHECK(retain_compare("export " + quoted).code == 1);
  CHECK(retain_compare("export " + quoted + " --csv '" + folder.file("x.csv") + "' --latex '" +
                       folder.file("x.tex") + "' --tensorboard '" + folder.file("tb") + "'")
            .code == 0);
  CHECK(fs::exists(folder / "tb/a/keep/seed1/events.out.tfevents.0.retain"));
  CHECK(fs::exists(folder / "x.csv"));
  CHECK(fs::exists(folder / "x.tex"));
  CHECK(retain_compare("report /nowhere").code == 1);
  CHECK_THAT(retain_compare("report /nowhere").text,
             ContainsSubstring("there is no folder /nowhere"));
  programs::check_help(retain_compare, {"report", "show", "export", "list"});
}

}  // namespace report_test
