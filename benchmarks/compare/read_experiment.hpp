// SPDX-License-Identifier: MIT
// Reads the experiment file. Every error has its line and its key.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/common/seeds.hpp"
#include "experiment.hpp"

namespace compare {
namespace detail {

/// Names become folders.
inline std::string folder_name(const located& where, const std::string& name) {
  const bool good = !name.empty() && name.front() != '.' && name.size() <= 80 &&
                    std::all_of(name.begin(), name.end(), [](unsigned char c) {
                      return std::isalnum(c) != 0 ||
                             std::string("._+@=-").find(static_cast<char>(c)) != std::string::npos;
                    });
  if (!good)
    where.fail(
        "'" + name +
        "' names a folder: use letters, digits and . _ + @ = -, and do not begin with a dot");
  return name;
}

/// `teachers`: the teachers of the file. Nothing else may stand in braces but `known`.
inline std::vector<std::string> words(const located& list, const std::vector<std::string>& known,
                                      const std::vector<std::string>& teachers) {
  std::vector<std::string> all;
  for (const auto& each : list.elements()) {
    all.push_back(each.text());
    try {
      substituted(all.back(), [&](const std::string& name) {
        if (!name.starts_with("teacher:") && !name.starts_with("folder:") &&
            std::find(known.begin(), known.end(), name) == known.end())
          each.fail("{" + name + "} is unknown" + suggestion(name, known));
        return name;
      });
    } catch (const std::invalid_argument& error) {
      each.fail(error.what());
    }
    for (const auto& name : teachers_in({all.back()}))
      if (std::find(teachers.begin(), teachers.end(), name) == teachers.end())
        each.fail("the teacher '" + name + "' is unknown" + suggestion(name, teachers));
  }
  return all;
}

inline std::vector<std::int64_t> seeds_of(const located& where) {
  std::vector<std::string> given;
  if (where.value().is_array()) {
    for (const auto& each : where.elements())
      given.push_back(each.value().is_string() ? each.text()
                                               : std::to_string(each.whole_number(0)));
  } else {
    std::string word;
    for (const char c : where.text() + ",") {
      if (c != ',' && c != ' ') {
        word += c;
      } else if (!word.empty()) {
        given.push_back(word);
        word.clear();
      }
    }
  }
  try {
    const auto list = seed_list(given, "this list");
    return {list.begin(), list.end()};
  } catch (const std::exception& error) {
    where.fail(error.what());
  }
}

inline teacher read_teacher(const std::string& name, const located& from,
                            const std::vector<std::string>& teachers) {
  from.allow({"run", "product", "each", "seed", "teacher"});
  teacher result;
  result.name = folder_name(from, name);
  result.run = words(from.at("run"), {"seed", "out", "teacher", "steps"}, teachers);
  if (result.run.empty()) from.at("run").fail("must name a program");
  result.product = from.at("product").text();
  if (from.has("each")) result.each_seed = from.at("each").text_of({"seed", "all"}) == "seed";
  if (from.has("seed")) {
    if (result.each_seed) from.at("seed").fail("belongs to a teacher with \"each\": \"all\"");
    result.seed = from.at("seed").whole_number(0);
  }
  if (from.has("teacher")) result.from = from.at("teacher").text();
  return result;
}

inline setting read_setting(const std::string& name, const located& from) {
  setting result{name, {}, false};
  const auto check = [](const located& each) {
    if (!each.value().is_number() && !each.value().is_string() && !each.value().is_boolean())
      each.fail("must be a number, a text, true or false");
    return each.value();
  };
  if (!from.value().is_object()) {
    result.values.push_back(check(from));
    return result;
  }
  from.allow({"tune"});
  result.tuned = true;
  for (const auto& each : from.at("tune").elements()) {
    result.values.push_back(check(each));
    if (std::count(result.values.begin(), result.values.end(), each.value()) > 1)
      each.fail("this candidate stands here twice");
  }
  if (result.values.size() < 2) from.at("tune").fail("needs at least two candidates");
  return result;
}

inline method read_method(const std::string& name, const located& from) {
  from.allow({"terms", "options"});
  method result;
  result.name = folder_name(from, name);
  if (from.has("terms"))
    for (const auto& [term_name, settings] : from.at("terms").items()) {
      term added{term_name, {}};
      for (const auto& [key, value] : settings.items())
        added.settings.push_back(read_setting(key, value));
      result.terms.push_back(std::move(added));
    }
  if (from.has("options"))
    result.options = words(from.at("options"), {"seed", "steps", "preset", "task"}, {});
  return result;
}

inline measure_style read_measure(const std::string& name, const located& from) {
  from.allow({"label", "side", "goal", "range", "digits"});
  measure_style result;
  result.name = name;
  result.label = from.has("label") ? from.at("label").text() : name;
  if (from.has("side")) result.side = from.at("side").text_of({"FAR", "CLOSE"});
  if (from.has("goal"))
    result.higher_is_better = from.at("goal").text_of({"highest", "lowest"}) == "highest";
  if (from.has("digits")) result.digits = static_cast<int>(from.at("digits").whole_number(0));
  if (from.has("range")) {
    const auto ends = from.at("range").elements();
    if (ends.size() != 2 || !(ends[0].number() < ends[1].number()))
      from.at("range").fail("must be [lowest, highest]");
    result.low = ends[0].number();
    result.high = ends[1].number();
  }
  return result;
}

/// The reductions of a curve: NAME or NAME:REDUCTION.
inline const std::vector<std::string>& reductions() {
  static const std::vector<std::string> all{"end", "mean", "lowest", "highest", "last"};
  return all;
}

inline std::string read_reference(const located& from, const std::vector<measure_style>& known) {
  const auto text = from.text();
  const auto colon = text.rfind(':');
  std::vector<std::string> names;
  for (const auto& each : known) names.push_back(each.name);
  const auto name = text.substr(0, colon);
  if (std::find(names.begin(), names.end(), name) == names.end())
    from.fail("the measure '" + name + "' is not in measures" + suggestion(name, names));
  if (colon != std::string::npos) {
    const auto reduction = text.substr(colon + 1);
    if (std::find(reductions().begin(), reductions().end(), reduction) == reductions().end())
      from.fail("':" + reduction + "' is unknown" + suggestion(reduction, reductions()));
  }
  return text;
}

/// The same effort for every tuned method.
inline void check_equal_effort(const experiment_plan& plan, const located& methods) {
  const method* first = nullptr;
  for (const auto& each : plan.methods) {
    if (!each.tuned()) continue;
    if (first == nullptr) first = &each;
    if (each.candidates() != first->candidates())
      methods.at(each.name).fail(
          "has " + std::to_string(each.candidates()) + " candidates, but " + first->name + " has " +
          std::to_string(first->candidates()) +
          ": methods are compared after equal tuning, so give every tuned method as many");
  }
}

template <class All>
std::vector<std::string> keys_of(const All& all) {
  std::vector<std::string> names;
  for (const auto& [name, value] : all) names.push_back(name);
  return names;
}

inline void check_teachers(const experiment_plan& plan, const located& root) {
  const auto known = keys_of(plan.teachers);
  for (const auto& [name, each] : plan.teachers) {
    const auto where = root.at("teachers").at(name);
    if (!each.from.empty() && !plan.teachers.contains(each.from))
      where.fail("its teacher '" + each.from + "' is unknown" + suggestion(each.from, known));
    const bool named = std::any_of(each.run.begin(), each.run.end(), [](const std::string& word) {
      return word.find("{teacher}") != std::string::npos;
    });
    if (named && each.from.empty()) where.fail("{teacher} is used, but it has no \"teacher\"");
  }
  for (const auto& [name, each] : plan.teachers) {
    const auto where = root.at("teachers").at(name);
    std::vector<std::string> next{name};
    std::set<std::string> seen;
    while (!next.empty()) {  // everything that it needs
      const auto& one = plan.teachers.at(next.back());
      next.pop_back();
      for (const auto& needed : one.needs()) {
        if (needed == name) where.fail("is its own teacher, by way of others");
        if (!each.each_seed && plan.teachers.at(needed).each_seed)
          where.fail("is one for all seeds, so its teacher '" + needed + "' must be too");
        if (seen.insert(needed).second) next.push_back(needed);
      }
    }
  }
}

}  // namespace detail

/// Reads an experiment. Throws file_error with the line and the key.
inline experiment_plan read_experiment(const located& root, const std::filesystem::path& file) {
  using detail::words;
  root.allow({"name", "programs", "teachers", "tasks", "methods", "seeds", "steps", "tuning",
              "measures", "main", "plain", "scratch"});
  experiment_plan plan;
  plan.file = file;
  plan.source = root.value();
  plan.name = detail::folder_name(root.has("name") ? root.at("name") : root,
                                  root.has("name") ? root.at("name").text() : file.stem().string());
  if (root.has("teachers"))
    for (const auto& [name, from] : root.at("teachers").items())
      plan.teachers[name] =
          detail::read_teacher(name, from, detail::keys_of(root.at("teachers").items()));
  detail::check_teachers(plan, root);
  const auto teacher_at = [&](const located& from) {
    auto name = from.text();
    if (!plan.teachers.contains(name))
      from.fail("the teacher '" + name + "' is unknown" +
                suggestion(name, detail::keys_of(plan.teachers)));
    return name;
  };

  const std::vector<std::string> of_run{"task", "preset", "method", "terms",
                                        "seed", "steps",  "out",    "teacher"};
  for (const auto& [name, from] : root.at("programs").items()) {
    from.allow({"run", "terms", "setting", "teacher"});
    program added;
    added.run = words(from.at("run"), of_run, detail::keys_of(plan.teachers));
    if (added.run.empty()) from.at("run").fail("must name a program");
    if (from.has("terms")) added.terms = words(from.at("terms"), {"terms"}, {});
    if (from.has("setting"))
      added.setting = words(from.at("setting"), {"term", "setting", "value"}, {});
    if (from.has("teacher")) added.teacher = teacher_at(from.at("teacher"));
    plan.programs[name] = std::move(added);
  }

  for (const auto& [name, from] : root.at("tasks").items()) {
    from.allow({"program", "preset", "options", "teacher"});
    task added;
    added.name = detail::folder_name(from, name);
    added.program = from.at("program").text_of(detail::keys_of(plan.programs));
    const auto& runs = plan.programs.at(added.program);
    if (from.has("preset")) added.preset = from.at("preset").text();
    if (from.has("options"))
      added.options = words(from.at("options"), of_run, detail::keys_of(plan.teachers));
    added.teacher = from.has("teacher") ? teacher_at(from.at("teacher")) : runs.teacher;
    const auto uses = [&](const std::string& placeholder) {
      return std::any_of(runs.run.begin(), runs.run.end(), [&](const std::string& word) {
        return word.find(placeholder) != std::string::npos;
      });
    };
    if (uses("{teacher}") && added.teacher.empty())
      from.fail("{teacher} is used, but neither the task nor its program has a \"teacher\"");
    if (uses("{preset}") && added.preset.empty())
      from.fail("{preset} is used, so the task needs a \"preset\"");
    if (!uses("{out}")) from.fail("the program's \"run\" has no {out}: a run needs its folder");
    plan.tasks.push_back(std::move(added));
  }
  if (plan.tasks.empty()) root.at("tasks").fail("has no task");

  for (const auto& [name, from] : root.at("methods").items()) {
    plan.methods.push_back(detail::read_method(name, from));
    for (const auto& each : plan.tasks) {
      const auto& runs = plan.programs.at(each.program);
      if (!plan.methods.back().terms.empty() && runs.terms.empty() && runs.setting.empty() &&
          std::none_of(runs.run.begin(), runs.run.end(), [](const std::string& word) {
            return word.find("{terms}") != std::string::npos ||
                   word.find("{method}") != std::string::npos;
          }))
        from.fail("has terms, but the program '" + each.program +
                  "' does not say by \"terms\" how they become arguments");
      if (plan.methods.back().has_settings() && runs.setting.empty())
        from.fail("has settings, but the program '" + each.program +
                  "' does not say by \"setting\" how they become arguments");
    }
  }
  if (plan.methods.empty()) root.at("methods").fail("has no method");
  detail::check_equal_effort(plan, root.at("methods"));

  plan.seeds = detail::seeds_of(root.at("seeds"));
  plan.steps = root.at("steps").whole_number(1);
  for (const auto& [name, from] : root.at("measures").items())
    plan.measures.push_back(detail::read_measure(name, from));
  if (plan.measures.empty()) root.at("measures").fail("has no measure");

  std::vector<std::string> methods;
  for (const auto& each : plan.methods) methods.push_back(each.name);
  if (root.has("plain")) plan.plain = root.at("plain").text_of(methods);
  if (root.has("scratch")) plan.scratch = root.at("scratch").text_of(methods);

  const bool tuned = std::any_of(plan.methods.begin(), plan.methods.end(),
                                 [](const method& each) { return each.tuned(); });
  if (root.has("tuning")) {
    const auto from = root.at("tuning");
    from.allow({"seeds", "measure", "goal", "choose"});
    if (!tuned) from.fail("no method has a setting with candidates, {\"tune\": […]}");
    tuning_plan how;
    how.seeds = detail::seeds_of(from.at("seeds"));
    for (const auto seed : how.seeds)
      if (std::find(plan.seeds.begin(), plan.seeds.end(), seed) != plan.seeds.end())
        from.at("seeds").fail("seed " + std::to_string(seed) +
                              " is also a seed of the comparison: tune on other seeds");
    how.measure = detail::read_reference(from.at("measure"), plan.measures);
    const auto name = how.measure.substr(0, how.measure.rfind(':'));
    for (const auto& each : plan.measures)
      if (each.name == name) how.higher_is_better = each.higher_is_better;
    if (from.has("goal"))
      how.higher_is_better = from.at("goal").text_of({"highest", "lowest"}) == "highest";
    if (from.has("choose"))
      how.each_task =
          from.at("choose").text_of({"for each task", "for all tasks"}) == "for each task";
    plan.tuning = how;
  } else if (tuned) {
    root.at("methods").fail(
        "settings have candidates, so the file needs \"tuning\": {\"seeds\": …, \"measure\": …}");
  }
  plan.main_measure = root.has("main") ? detail::read_reference(root.at("main"), plan.measures)
                      : plan.tuning    ? plan.tuning->measure
                                       : plan.measures.front().name;
  return plan;
}

inline experiment_plan read_experiment(const std::filesystem::path& file) {
  return read_experiment(read_located(file), file);
}

}  // namespace compare
