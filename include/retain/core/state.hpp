// SPDX-License-Identifier: MIT
// What a term remembers, keyed by name, and the file it goes to.
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

/// Tensors, numbers and texts by name. Tensors are held as handles: whoever loads one replaces
/// their own by it and never writes into it, so a state taken before a failed load restores
/// everything.
class state {
 public:
  /// Each throws config_error for a name that the file's format has for itself: "retain.format" and
  /// "retain.checksum", of a tensor "__metadata__".
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

  /// Each throws state_error when there is nothing of that kind under the key.
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

  /// The keys of all tensors that begin with `prefix`.
  std::vector<std::string> tensor_keys(const std::string& prefix = {}) const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : contents_.tensors)
      if (key.compare(0, prefix.size(), prefix) == 0) keys.push_back(key);
    return keys;
  }

  /// The keys that nobody has asked for since the state was made: after a load, what the file has
  /// too much.
  std::vector<std::string> unread() const {
    std::vector<std::string> keys;
    for (const auto& [key, value] : contents_.tensors)
      if (!read_.count(key)) keys.push_back(key);
    for (const auto& [key, value] : contents_.texts)
      if (!read_.count(key)) keys.push_back(key);
    return keys;
  }

  /// Writes a safetensors file with a checksum over all of it: first under a temporary name, then
  /// renamed, so that `path` is either the old file or the complete new one. A link stays, and what
  /// it leads to is replaced. Throws io_error, also where `path` is a folder, a device or a pipe.
  void write(const std::string& path) const { detail::write_state_file(path, contents_); }

  /// Throws io_error when the file is missing, no state, truncated, damaged by as much as a bit, or
  /// of a newer format, and where a header, though its checksum is right, has a name twice, more
  /// behind its end, or tensors that do not lie one behind the other and fill the file.
  static state read(const std::string& path) {
    state result;
    result.contents_ = detail::read_state_file(path);
    return result;
  }

 private:
  static void check_free(bool taken, const std::string& key) {
    if (taken)
      throw config_error(detail::concat("state: '", key,
                                        "' is a name of the file's format itself: choose another"));
  }
  template <class Map>
  const typename Map::mapped_type& find(const Map& map, const std::string& key,
                                        const char* kind) const {
    const auto found = map.find(key);
    if (found == map.end())
      throw state_error(
          detail::concat("the state has no ", kind, " '", key,
                         "': it was saved from something else, or by an older version"));
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
                                       "', which is not the number it should be"));
    return number;
  }

  detail::state_contents contents_;
  mutable std::set<std::string> read_;
};

/// Something whose state can be written and read back: every term, teacher, schedule and controller
/// of this library.
template <class T>
concept stateful =
    requires(T& term, const T& source, state& out, const state& in, const std::string& prefix) {
      source.save_state(out, prefix);
      term.load_state(in, prefix);
    };

/// Writes everything that going on needs: anchors, importances, schedules, random generators.
/// Throws io_error.
template <stateful T>
void save(const std::string& path, const T& term) {
  state out;
  term.save_state(out, "");
  out.write(path);
}

/// Reads what `save` wrote into a term that was built the same way. It loads completely or, on any
/// exception, leaves the term as it was. Throws io_error for a damaged file, state_error for one
/// that belongs to something else.
template <stateful T>
void load(const std::string& path, T& term) {
  const state in = state::read(path);
  state before;
  term.save_state(before, "");
  try {
    term.load_state(in, "");
    if (const auto extra = in.unread(); !extra.empty())
      throw state_error(detail::concat(
          "'", path, "' holds '", extra.front(), "'", extra.size() > 1 ? " and more" : "",
          ", which this term does not have: it was saved from something else"));
  } catch (...) {
    term.load_state(before, "");
    throw;
  }
}

}  // namespace retain
