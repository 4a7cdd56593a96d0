// SPDX-License-Identifier: MIT
// The saved state of a term as named entries, and its file format.
#pragma once

#include <retain/base/concat.hpp>
#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/files/state_file.hpp>
#include <retain/files/state_header.hpp>

#include <ATen/core/Tensor.h>

#include <charconv>
#include <concepts>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace retain {

/// Tensors, numbers and texts by name. The state shares its tensors and does not copy them. A
/// `load_state` function must replace the tensors of its term and must never write into the loaded
/// tensors. Therefore a state that was saved before a failed load restores the term completely.
class state {
 public:
  /// Each overload throws config_error for a name that the file format reserves: "retain.format"
  /// and "retain.checksum" for texts and numbers, "__metadata__" for tensors.
  void set(const std::string& key, at::Tensor tensor) {
    check_free(key == detail::metadata_key, key);
    contents_.tensors[key] = std::move(tensor);
  }
  void set(const std::string& key, std::string text) {
    check_free(key == detail::format_key || key == detail::checksum_key, key);
    contents_.texts[key] = std::move(text);
  }
  void set(const std::string& key, const char* text) { set(key, std::string(text)); }
  void set(const std::string& key, double number) { set(key, detail::exact_text(number)); }
  template <std::integral I>
  void set(const std::string& key, I number) {
    set(key, std::to_string(number));
  }

  /// Each function throws state_error if no value of the requested kind has this key.
  const at::Tensor& tensor(const std::string& key) const {
    return find(contents_.tensors, key, "tensor");
  }
  const std::string& text(const std::string& key) const {
    return find(contents_.texts, key, "value");
  }
  double number(const std::string& key) const { return parse<double>(key); }
  template <std::integral I = std::int64_t>
  I integer(const std::string& key) const {
    return parse<I>(key);
  }
  bool contains(const std::string& key) const {
    return contents_.tensors.count(key) || contents_.texts.count(key);
  }

  /// Returns the keys of all tensors whose key begins with `prefix`.
  std::vector<std::string> tensor_keys(const std::string& prefix = {}) const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : contents_.tensors)
      if (key.compare(0, prefix.size(), prefix) == 0) keys.push_back(key);
    return keys;
  }

  /// Returns the keys that were never read from this state. After a load, these are the surplus
  /// keys of the file.
  std::vector<std::string> unread() const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : contents_.tensors)
      if (!read_.count(key)) keys.push_back(key);
    for (const auto& [key, value] : contents_.texts)
      if (!read_.count(key)) keys.push_back(key);
    return keys;
  }

  /// Makes every load_state keep the strengths with which the terms were constructed or which were
  /// set since then. Without this call, loading replaces them by the saved strengths.
  void keep_strength(bool keep = true) { keeps_strength_ = keep; }
  bool keeps_strength() const { return keeps_strength_; }

  /// One line for each strength of which the state and the loading object had different schedules:
  /// which schedule the object has after the load, and which it has not.
  const std::vector<std::string>& strength_notes() const { return strength_notes_; }
  void note_strength(std::string line) const { strength_notes_.push_back(std::move(line)); }

  /// Writes a safetensors file with a checksum over the whole file. The file is written under a
  /// temporary name and then renamed, so `path` is always the old file or the complete new file. If
  /// `path` is a symbolic link, the link stays and its target is replaced. Throws io_error if
  /// writing fails or if `path` is a folder, a device or a pipe.
  void write(const std::string& path) const { detail::write_state_file(path, contents_); }

  /// Reads a file that `write` wrote. Throws io_error if the file is missing, is not a state, is
  /// truncated, is damaged (even by a single bit), or has a newer format. Also throws io_error,
  /// even if the checksum matches, if the header has a name twice or extra text after its end, or
  /// if the tensors do not fill the file without gaps or overlaps.
  static state read(const std::string& path) {
    state result;
    result.contents_ = detail::read_state_file(path);
    return result;
  }

 private:
  static void check_free(bool taken, const std::string& key) {
    if (taken)
      throw config_error(
          detail::concat("state: '", key, "' is reserved by the file format: choose another name"));
  }
  template <class Map>
  const typename Map::mapped_type& find(const Map& map, const std::string& key,
                                        const char* kind) const {
    const auto found = map.find(key);
    if (found == map.end())
      throw state_error(
          detail::concat("the state has no ", kind, " '", key,
                         "': it was saved from another object or by an older version"));
    read_.insert(key);
    return found->second;
  }

  template <class Number>
  Number parse(const std::string& key) const {
    const std::string& value = text(key);
    Number number{};
    const auto result = std::from_chars(value.data(), value.data() + value.size(), number);
    if (result.ec != std::errc{} || result.ptr != value.data() + value.size())
      throw state_error(detail::concat("the state's '", key, "' is '", value,
                                       "', which is not a valid number here"));
    return number;
  }

  detail::state_contents contents_;
  bool keeps_strength_ = false;
  // mutable, like read_: notes about the load, which do not change what the state holds
  mutable std::vector<std::string> strength_notes_;
  mutable std::set<std::string> read_;
};

/// A type whose state can be written and read: every term, teacher, schedule and controller of this
/// library.
template <class T>
concept stateful =
    requires(T& term, const T& source, state& out, const state& in, const std::string& prefix) {
      source.save_state(out, prefix);
      term.load_state(in, prefix);
    };

/// Writes everything that resuming a run needs: anchors, importances, schedules, random generators.
/// Throws io_error if the file cannot be written.
template <stateful T>
void save(const std::string& path, const T& term) {
  state out;
  term.save_state(out, "");
  out.write(path);
}

/// Tag for `load`: keep the strengths of the term instead of the saved ones.
struct keep_strength_t {};
inline constexpr keep_strength_t keep_strength{};

/// What `load` has to report.
struct load_report {
  /// one line for each strength whose schedule differs between the file and the term
  std::vector<std::string> strengths;
};

namespace detail {

/// Calls load(in). If it throws, calls load with the state that `save` wrote before, and throws the
/// same exception.
template <class Save, class Load>
void load_or_restore(const state& in, Save save, Load load) {
  state before;
  save(before);
  try {
    load(in);
  } catch (...) {
    load(before);
    throw;
  }
}

template <class T>
load_report load_file(const std::string& path, T& term, bool keep) {
  state in = state::read(path);
  in.keep_strength(keep);
  const auto load = [&](const state& from) {
    term.load_state(from, "");
    if (&from != &in) return;
    if (const auto extra = in.unread(); !extra.empty())
      throw state_error(
          concat("'", path, "' holds '", extra.front(), "'", extra.size() > 1 ? " and more" : "",
                 ", which this term does not have: the file was saved from another object"));
  };
  load_or_restore(in, [&](state& out) { term.save_state(out, ""); }, load);
  return {in.strength_notes()};
}
}  // namespace detail

/// Reads a file that `save` wrote into a term that was constructed in the same way. The term gets
/// the complete state of the file, also its strengths: training continues with the strength that
/// was saved, even if the constructor got another one. The report says so. On any exception, the
/// term does not change. Throws io_error if the file is damaged, and state_error if it belongs to
/// another term.
template <stateful T>
load_report load(const std::string& path, T& term) {
  return detail::load_file(path, term, false);
}
/// Like load(path, term), but the term keeps its own strengths; only their progress is loaded.
///
///     retain::load("keep.safetensors", keep, retain::keep_strength);
template <stateful T>
load_report load(const std::string& path, T& term, keep_strength_t) {
  return detail::load_file(path, term, true);
}

}  // namespace retain
