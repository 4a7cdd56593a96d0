// SPDX-License-Identifier: MIT
// The experiment file: what is compared, on what, with which seeds and which budget.
// docs/compare.md describes every key.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "located_json.hpp"

namespace compare {

/// A policy from which runs start: one for each seed, or one for all.
struct teacher {
  std::string name;
  std::vector<std::string> run;
  std::string product;  ///< the file in its folder that {teacher} stands for
  bool each_seed = true;
  std::int64_t seed = 1;  ///< of a teacher for all seeds
  std::string from;       ///< the teacher of this teacher; empty: none

  /// The names of all teachers whose products it reads.
  std::vector<std::string> needs() const;
};

struct program {
  std::vector<std::string> run;      ///< the command of every run
  std::vector<std::string> terms;    ///< added once, if the method has terms
  std::vector<std::string> setting;  ///< added for each setting of each term
  std::string teacher;               ///< the default of tasks; empty: none
};

struct task {
  std::string name, program, preset, teacher;
  std::vector<std::string> options;
};

/// A setting of a term. Several values are candidates, between which the tuning decides.
struct setting {
  std::string name;
  std::vector<json> values;
  bool tuned = false;
};

struct term {
  std::string name;
  std::vector<setting> settings;
};

struct method {
  std::string name;
  std::vector<term> terms;
  std::vector<std::string> options;

  std::size_t candidates() const {
    std::size_t n = 1;
    for (const auto& each : terms)
      for (const auto& one : each.settings) n *= one.values.size();
    return n;
  }
  bool tuned() const {
    return std::any_of(terms.begin(), terms.end(), [](const term& each) {
      return std::any_of(each.settings.begin(), each.settings.end(),
                         [](const setting& one) { return one.tuned; });
    });
  }
  bool has_settings() const {
    return std::any_of(terms.begin(), terms.end(),
                       [](const term& each) { return !each.settings.empty(); });
  }
  /// The settings of candidate `n`: {"ks": {"strength": 0.1, "factor": 0.9994}}. The last setting
  /// changes fastest.
  json candidate(std::size_t n) const {
    json all = json::object();
    std::size_t rest = n, of = candidates();
    for (const auto& each : terms) {
      all[each.name] = json::object();
      for (const auto& one : each.settings) {
        of /= one.values.size();
        all[each.name][one.name] = one.values[rest / of];
        rest %= of;
      }
    }
    return all;
  }
};

/// How a number is shown and read.
struct measure_style {
  std::string name, label, side;  ///< side: "FAR", "CLOSE" or empty
  bool higher_is_better = true;
  double low = std::nan(""), high = std::nan("");  ///< the range of its values, if they have one
  int digits = 2;
};

struct tuning_plan {
  std::vector<std::int64_t> seeds;
  std::string measure;
  bool higher_is_better = true;
  bool each_task = false;  ///< otherwise the mean over tasks decides, and all tasks use one choice
};

struct experiment_plan {
  std::filesystem::path file;
  std::string name;
  std::map<std::string, program> programs;
  std::map<std::string, teacher> teachers;
  std::vector<task> tasks;
  std::vector<method> methods;
  std::vector<std::int64_t> seeds;
  std::int64_t steps = 0;
  std::optional<tuning_plan> tuning;
  std::vector<measure_style> measures;
  std::string main_measure, plain, scratch;
  json source;  ///< the file without its comments

  const method& method_named(const std::string& wanted) const {
    return *std::find_if(methods.begin(), methods.end(),
                         [&](const method& each) { return each.name == wanted; });
  }
};

/// Replaces {name} in `word`; {{ and }} stand for braces. `value(name)` returns the replacement.
template <class Value>
std::string substituted(const std::string& word, Value value) {
  std::string text;
  for (std::size_t i = 0; i < word.size(); ++i) {
    if ((word[i] == '{' || word[i] == '}') && i + 1 < word.size() && word[i + 1] == word[i]) {
      text += word[i++];
    } else if (word[i] == '{') {
      const auto end = word.find('}', i);
      if (end == std::string::npos) throw std::invalid_argument("'" + word + "' has no closing }");
      text += value(word.substr(i + 1, end - i - 1));
      i = end;
    } else {
      text += word[i];
    }
  }
  return text;
}

namespace detail {

/// The teachers that words name by {teacher:NAME}, which stands for the product, and by
/// {folder:NAME}.
inline std::vector<std::string> teachers_in(const std::vector<std::string>& words) {
  std::vector<std::string> names;
  for (const auto& word : words)
    substituted(word, [&](const std::string& name) {
      for (const std::string prefix : {"teacher:", "folder:"})
        if (name.starts_with(prefix)) names.push_back(name.substr(prefix.size()));
      return name;
    });
  return names;
}

}  // namespace detail

inline std::vector<std::string> teacher::needs() const {
  auto names = detail::teachers_in(run);
  if (!from.empty()) names.push_back(from);
  return names;
}

}  // namespace compare
