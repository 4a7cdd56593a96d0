// SPDX-License-Identifier: MIT
// JSON with comments, whose values know in which line of the file they stand. So an error names
// the line and the key.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace compare {

using json = nlohmann::ordered_json;  // methods and tasks keep the order of the file

/// An experiment file that cannot be used. The text starts with FILE:LINE.
struct file_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The number of insertions, deletions, replacements and swaps of neighbors that turn `a` into `b`.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = std::min(
          {d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

/// "; did you mean 'x'?" for the nearest of `names`, and otherwise the list of all names.
inline std::string suggestion(const std::string& wrong, const std::vector<std::string>& names) {
  std::string nearest, all;
  std::size_t best = std::numeric_limits<std::size_t>::max();
  for (const auto& name : names) {
    all += (all.empty() ? "" : ", ") + name;
    if (const auto distance = edit_distance(wrong, name); distance < best) {
      best = distance;
      nearest = name;
    }
  }
  if (best <= std::max<std::size_t>(2, wrong.size() / 3))
    return "; did you mean '" + nearest + "'?";
  return names.empty() ? "; none is allowed here" : "; known: " + all;
}

namespace detail {

/// Notes how far the parser has read.
class watched_character {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  watched_character(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}
  reference operator*() const { return *at_; }
  watched_character& operator++() {
    *furthest_ = ++at_;
    return *this;
  }
  watched_character operator++(int) {
    auto before = *this;
    ++*this;
    return before;
  }
  bool operator==(const watched_character& other) const { return at_ == other.at_; }
  bool operator!=(const watched_character& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** furthest_;
};

inline std::string below(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

}  // namespace detail

/// A parsed file. `lines` has the line of each value by its path, for example "methods.ewc.ewc".
struct located_file {
  std::string name;
  json root;
  std::map<std::string, long> lines;
};

namespace detail {

class located_builder : public nlohmann::json_sax<json> {
 public:
  located_builder(located_file& out, const char* begin, const char** furthest)
      : out_(out), begin_(begin), furthest_(furthest) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(value); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    auto& at = open_.back();
    if (at.value->contains(name))
      throw file_error(out_.name + ":" + std::to_string(line()) + ": " + below(at.path, name) +
                       " stands here twice");
    at.key = name;
    out_.lines[below(at.path, name)] = line();
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    const std::string text = error.what();
    const auto colon = text.find(": ");
    throw file_error(out_.name + ":" + std::to_string(line()) + ": not valid JSON: " +
                     (colon == std::string::npos ? text : text.substr(colon + 2)));
  }

 private:
  struct level {
    json* value;
    std::string path, key;
  };

  /// A number is only known to end when the character behind it is read; a line break there
  /// still belongs to the line of the number.
  long line() const { return 1 + std::count(begin_, std::max(begin_, *furthest_ - 1), '\n'); }

  json* add(json value) {
    if (open_.empty()) {
      out_.root = std::move(value);
      out_.lines[""] = line();
      return &out_.root;
    }
    auto& at = open_.back();
    if (at.value->is_object()) return &((*at.value)[at.key] = std::move(value));
    at.key = std::to_string(at.value->size());
    out_.lines[below(at.path, at.key)] = line();
    at.value->push_back(std::move(value));
    return &at.value->back();
  }
  bool put(json value) {
    add(std::move(value));
    return true;
  }
  bool open(json value) {
    const auto path = open_.empty() ? "" : open_.back().path;
    json* added = add(std::move(value));
    open_.push_back({added, open_.empty() ? "" : below(path, open_.back().key), ""});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  located_file& out_;
  const char* begin_;
  const char** furthest_;
  std::vector<level> open_;
};

}  // namespace detail

/// Parses JSON with // and /* */ comments. Throws file_error.
inline located_file parse_located(const std::string& text, const std::string& name) {
  located_file file{name, {}, {}};
  const char* furthest = text.data();
  detail::located_builder builder(file, text.data(), &furthest);
  json::sax_parse(detail::watched_character(text.data(), &furthest),
                  detail::watched_character(text.data() + text.size(), &furthest), &builder,
                  nlohmann::detail::input_format_t::json, true, true);
  return file;
}

/// A value in a file, which can say where it stands.
class located {
 public:
  explicit located(std::shared_ptr<const located_file> file)
      : file_(std::move(file)), value_(&file_->root) {}

  [[noreturn]] void fail(const std::string& what) const {
    const auto found = file_->lines.find(path_);
    const auto line = found == file_->lines.end() ? 1 : found->second;
    throw file_error(file_->name + ":" + std::to_string(line) + ": " +
                     (path_.empty() ? "" : path_ + ": ") + what);
  }

  const json& value() const { return *value_; }
  const std::string& path() const { return path_; }
  bool has(const std::string& key) const { return value_->is_object() && value_->contains(key); }

  located at(const std::string& key) const {
    if (!value_->is_object()) fail("must be an object { … }");
    if (!value_->contains(key)) fail("the key '" + key + "' is missing");
    return {file_, &value_->at(key), detail::below(path_, key)};
  }

  std::vector<std::pair<std::string, located>> items() const {
    if (!value_->is_object()) fail("must be an object { … }");
    std::vector<std::pair<std::string, located>> all;
    for (const auto& [key, value] : value_->items())
      all.emplace_back(key, located(file_, &value, detail::below(path_, key)));
    return all;
  }

  std::vector<located> elements() const {
    if (!value_->is_array()) fail("must be a list [ … ]");
    std::vector<located> all;
    for (std::size_t i = 0; i < value_->size(); ++i)
      all.push_back(located(file_, &(*value_)[i], detail::below(path_, std::to_string(i))));
    return all;
  }

  /// Throws if the object has a key that is not in `keys`.
  const located& allow(const std::vector<std::string>& keys) const {
    for (const auto& [key, item] : items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        item.fail("unknown key" + suggestion(key, keys));
    return *this;
  }

  std::string text() const {
    if (!value_->is_string()) fail("must be a text \"…\"");
    return value_->get<std::string>();
  }
  /// One of `names`.
  std::string text_of(const std::vector<std::string>& names) const {
    auto given = text();
    if (std::find(names.begin(), names.end(), given) == names.end())
      fail("'" + given + "' is unknown" + suggestion(given, names));
    return given;
  }
  std::int64_t whole_number(std::int64_t least) const {
    if (!value_->is_number_integer() || value_->get<std::int64_t>() < least)
      fail("must be a whole number of at least " + std::to_string(least));
    return value_->get<std::int64_t>();
  }
  double number() const {
    if (!value_->is_number()) fail("must be a number");
    return value_->get<double>();
  }
  std::vector<std::string> texts() const {
    std::vector<std::string> all;
    for (const auto& each : elements()) all.push_back(each.text());
    return all;
  }

 private:
  located(std::shared_ptr<const located_file> file, const json* value, std::string path)
      : file_(std::move(file)), value_(value), path_(std::move(path)) {}

  std::shared_ptr<const located_file> file_;
  const json* value_;
  std::string path_;
};

/// Reads and parses a file. Throws file_error.
inline located read_located(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path))
    throw file_error(path.string() + ": there is no such file");
  std::ostringstream text;
  text << file.rdbuf();
  return located(std::make_shared<located_file>(parse_located(text.str(), path.string())));
}

}  // namespace compare
