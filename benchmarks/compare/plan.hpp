// SPDX-License-Identifier: MIT
// From an experiment to processes: teachers, runs of the comparison, and runs of the tuning.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include "experiment.hpp"

namespace compare {

/// One process to run.
struct unit {
  std::string name;  ///< the folder, relative to the experiment's
  std::filesystem::path folder, product;
  std::vector<std::string> command;
  std::vector<std::size_t> after;  ///< the units whose products this one reads
  /// Everything that the result depends on, and nothing that depends on the machine: kind, task,
  /// preset, method, settings, seed, steps, and the command with {out} and {teacher} left in.
  json identity;
  std::int64_t steps = 0;  ///< 0: unknown
};

/// Where programs are looked for that are named without a slash.
struct program_places {
  std::vector<std::filesystem::path> folders;
  std::filesystem::path beside;  ///< the folder of the experiment file, for names with a slash

  std::string find(const std::string& name) const {
    const auto runs = [](const std::filesystem::path& path) {
      return std::filesystem::is_regular_file(path) && access(path.c_str(), X_OK) == 0;
    };
    if (name.find('/') != std::string::npos) {
      const auto path = std::filesystem::absolute(beside / name).lexically_normal();
      if (!runs(path))
        throw std::runtime_error("the program " + path.string() +
                                 " is not there or not executable");
      return path.string();
    }
    std::string looked;
    for (const auto& folder : folders) {
      for (const auto& path : {folder / name, folder / name / name})
        if (runs(path)) return std::filesystem::absolute(path).lexically_normal().string();
      looked += folder.string() + ", ";
    }
    const char* path = std::getenv("PATH");
    std::string folder;
    for (const char c : std::string(path == nullptr ? "" : path) + ":") {
      if (c != ':') {
        folder += c;
        continue;
      }
      if (!folder.empty() && runs(std::filesystem::path(folder) / name))
        return (std::filesystem::path(folder) / name).string();
      folder.clear();
    }
    throw std::runtime_error("the program '" + name + "' was not found in " + looked +
                             "or PATH: build it, or name its folder with --programs");
  }
};

/// A value as an argument: a text without quotes, a number as in the file.
inline std::string argument_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// "ewc.strength = 30, bc.batch = 128"; empty without settings.
inline std::string settings_text(const json& settings) {
  std::string text;
  for (const auto& [term, values] : settings.items())
    for (const auto& [name, value] : values.items())
      text += (text.empty() ? "" : ", ") + term + "." + name + " = " + argument_of(value);
  return text;
}

/// What a plan contains.
enum class what_to_run { comparison, tuning };

class planner {
 public:
  /// `chosen(task, method)` returns the settings of a method in the comparison.
  using choice = std::function<json(const task&, const method&)>;

  planner(const experiment_plan& plan, std::filesystem::path out, program_places places)
      : plan_(plan), out_(std::move(out)), places_(std::move(places)) {}

  std::vector<unit> comparison(const std::vector<std::int64_t>& seeds, const choice& chosen) {
    for (const auto seed : seeds)
      for (const auto& where : plan_.tasks)
        for (const auto& how : plan_.methods)
          add_run("run", "runs/" + where.name + "/" + how.name, where, how, chosen(where, how),
                  seed);
    return std::move(units_);
  }

  /// Every candidate of every tuned method, with the seeds of the tuning.
  std::vector<unit> tuning() {
    if (!plan_.tuning) return {};
    for (const auto seed : plan_.tuning->seeds)
      for (const auto& where : plan_.tasks)
        for (const auto& how : plan_.methods)
          for (std::size_t i = 0; how.tuned() && i < how.candidates(); ++i)
            add_run("tune",
                    "tuning/" + where.name + "/" + how.name + "/candidate" + std::to_string(i + 1),
                    where, how, how.candidate(i), seed);
    return std::move(units_);
  }

 private:
  using lookup = std::map<std::string, std::string>;

  std::vector<std::string> filled(const std::vector<std::string>& words,
                                  const lookup& values) const {
    std::vector<std::string> all;
    for (const auto& word : words)
      all.push_back(substituted(word, [&](const std::string& name) {
        const auto found = values.find(name);
        // what depends on the folder stays a placeholder in the identity
        return found == values.end() ? "{" + name + "}" : found->second;
      }));
    return all;
  }

  void add_run(const std::string& kind, const std::string& folder, const task& where,
               const method& how, const json& settings, std::int64_t seed) {
    const auto& runs = plan_.programs.at(where.program);
    std::string terms;
    for (const auto& each : how.terms) terms += (terms.empty() ? "" : "+") + each.name;
    lookup values{{"task", where.name},           {"preset", where.preset},
                  {"method", how.name},           {"terms", terms},
                  {"seed", std::to_string(seed)}, {"steps", std::to_string(plan_.steps)}};
    auto words = runs.run;
    if (!how.terms.empty()) words.insert(words.end(), runs.terms.begin(), runs.terms.end());
    auto recipe = filled(words, values);
    for (const auto& [term, chosen] : settings.items())
      for (const auto& [name, value] : chosen.items())
        for (auto& word : filled(
                 runs.setting, {{"term", term}, {"setting", name}, {"value", argument_of(value)}}))
          recipe.push_back(std::move(word));
    for (const auto* options : {&how.options, &where.options})
      for (auto& word : filled(*options, values)) recipe.push_back(std::move(word));

    unit added;
    added.name = folder + "/seed" + std::to_string(seed);
    added.folder = out_ / added.name;
    added.product = added.folder / "evaluation.json";
    added.steps = plan_.steps;
    added.identity = {{"kind", kind},           {"experiment", plan_.name}, {"task", where.name},
                      {"preset", where.preset}, {"method", how.name},       {"settings", settings},
                      {"seed", seed},           {"steps", plan_.steps},     {"command", recipe}};
    complete(added, recipe, where.teacher, seed);
    units_.push_back(std::move(added));
  }

  std::size_t add_teacher(const teacher& who, std::int64_t seed) {
    const auto number = who.each_seed ? seed : who.seed;
    const auto name =
        "teachers/" + who.name + (who.each_seed ? "/seed" + std::to_string(seed) : "");
    for (std::size_t i = 0; i < units_.size(); ++i)
      if (units_[i].name == name) return i;
    unit added;
    added.name = name;
    added.folder = out_ / name;
    added.product = added.folder / who.product;
    const auto recipe =
        filled(who.run, {{"seed", std::to_string(number)}, {"steps", std::to_string(plan_.steps)}});
    added.identity = {{"kind", "teacher"},
                      {"experiment", plan_.name},
                      {"teacher", who.name},
                      {"seed", number},
                      {"command", recipe}};
    complete(added, recipe, who.from, seed);
    units_.push_back(std::move(added));
    return units_.size() - 1;
  }

  /// Fills in what belongs to the machine, and adds the teachers that the words name.
  void complete(unit& added, const std::vector<std::string>& recipe, const std::string& from,
                std::int64_t seed) {
    lookup places{{"{out}", added.folder.string()}};
    auto needed = detail::teachers_in(recipe);
    if (!from.empty()) needed.push_back(from);
    for (const auto& name : needed) {
      const auto index = add_teacher(plan_.teachers.at(name), seed);
      if (std::find(added.after.begin(), added.after.end(), index) == added.after.end())
        added.after.push_back(index);
      places["{teacher:" + name + "}"] = units_[index].product.string();
      places["{folder:" + name + "}"] = units_[index].folder.string();
      if (name == from) places["{teacher}"] = units_[index].product.string();
    }
    for (auto word : recipe) {
      for (const auto& [what, by] : places) word = replaced(std::move(word), what, by);
      added.command.push_back(std::move(word));
    }
    auto& found = found_[added.command.front()];
    if (found.empty()) found = places_.find(added.command.front());
    added.command.front() = found;
  }

  static std::string replaced(std::string word, const std::string& what, const std::string& by) {
    for (auto at = word.find(what); at != std::string::npos; at = word.find(what, at + by.size()))
      word.replace(at, what.size(), by);
    return word;
  }

  const experiment_plan& plan_;
  std::filesystem::path out_;
  program_places places_;
  std::map<std::string, std::string> found_;
  std::vector<unit> units_;
};

/// The units of shard `index` (1 …) of `count`, with the teachers that they need. Runs of one seed
/// share a teacher, so seeds are dealt out if there are enough of them, and otherwise single runs.
inline std::vector<unit> shard_of(const std::vector<unit>& all, std::size_t index,
                                  std::size_t count) {
  std::vector<std::int64_t> seeds;
  for (const auto& each : all)
    if (const auto seed = each.identity.at("seed").get<std::int64_t>();
        each.identity.at("kind") != "teacher" &&
        std::find(seeds.begin(), seeds.end(), seed) == seeds.end())
      seeds.push_back(seed);
  std::vector<bool> mine(all.size());
  std::size_t number = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].identity.at("kind") == "teacher") continue;
    const auto seed = all[i].identity.at("seed").get<std::int64_t>();
    const auto place =
        seeds.size() >= count
            ? static_cast<std::size_t>(std::find(seeds.begin(), seeds.end(), seed) - seeds.begin())
            : number;
    ++number;
    mine[i] = place % count == index - 1;
  }
  for (std::size_t i = all.size(); i-- > 0;)  // teachers stand before what needs them
    if (mine[i])
      for (const auto needed : all[i].after) mine[needed] = true;
  std::vector<std::size_t> moved(all.size());
  std::vector<unit> kept;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!mine[i]) continue;
    moved[i] = kept.size();
    kept.push_back(all[i]);
    for (auto& needed : kept.back().after) needed = moved[needed];
  }
  return kept;
}

}  // namespace compare
