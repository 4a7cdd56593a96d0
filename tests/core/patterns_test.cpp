// SPDX-License-Identifier: MIT
#include <retain/core/patterns.hpp>

#include "support.hpp"

namespace patterns_test {

using retain::detail::check_patterns;
using retain::detail::nearest_names;
using retain::detail::pattern_distance;

namespace {

retain::parameter_list list_of(const std::vector<std::string>& names) {
  retain::parameter_list list;
  for (const auto& name : names) list.push_back({name, torch::zeros({1})});
  return list;
}

/// All texts of at most `length` characters of the alphabet.
std::vector<std::string> texts(const std::string& alphabet, std::size_t length) {
  std::vector<std::string> all{""};
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].size() < length)
      for (const char c : alphabet) all.push_back(all[i] + c);
  return all;
}

/// The number of edits between two texts by the definition.
std::size_t edits(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return a.size() + b.size();
  return std::min({edits(a.substr(1), b) + 1, edits(a, b.substr(1)) + 1,
                   edits(a.substr(1), b.substr(1)) + (a[0] == b[0] ? 0U : 1U)});
}

}  // namespace

TEST_CASE("patterns: the distance is the fewest edits to a name that the pattern matches",
          "[patterns]") {
  const auto names = texts("ab", 4);
  for (const std::string pattern : {"", "a", "ab", "abb", "?", "a?", "*", "a*", "*b", "a*b", "?*a"})
    for (const auto& name : texts("ab", 3)) {
      std::size_t least = 99;
      for (const auto& other : names)
        if (retain::detail::matches(pattern, other)) least = std::min(least, edits(name, other));
      INFO(pattern << " and " << name);
      CHECK(pattern_distance(pattern, name) == least);
    }
}

TEST_CASE("patterns: one that matches nothing is refused with the nearest names", "[patterns]") {
  const auto list = list_of({"encoder.0.weight", "encoder.0.bias", "policy_head.weight",
                             "policy_head.bias", "value_head.weight", "value_head.bias"});
  CHECK_NOTHROW(check_patterns("own", "exclude pattern", {}, list));
  CHECK_NOTHROW(check_patterns("own", "exclude pattern",
                               {"value_head", "*.bias", "encoder.0", "policy_head.weight"}, list));
  // The first letters of a module are not the module.
  CHECK_THROWS_AS(check_patterns("own", "exclude pattern", {"value"}, list), retain::config_error);
  CHECK_THROWS_AS(check_patterns("own", "exclude pattern", {"encoder", ""}, list),
                  retain::config_error);
  for (const std::string pattern : {"valeu_head", "value_heads.*"})
    CHECK_THROWS_WITH(
        check_patterns("own", "exclude pattern", {"encoder", pattern}, list),
        ContainsSubstring("own: the exclude pattern '" + pattern + "' matches no parameter") &&
            ContainsSubstring("the nearest of the 6 names are 'value_head.weight', "
                              "'value_head.bias', "));
  CHECK(nearest_names("polcy_head.bias", {"a", "policy_head.bias"}) == "'policy_head.bias', 'a'");
  CHECK_THROWS_WITH(check_patterns("own", "exclude pattern", {"x"}, retain::parameter_list{}),
                    ContainsSubstring("there are no names to match"));
}

TEST_CASE("patterns: a name of either list is enough, a common name counts once", "[patterns]") {
  const auto model = list_of({"body", "head"}), importance = list_of({"body", "critic.weight"});
  CHECK_NOTHROW(check_patterns("own", "exclude pattern", {"critic", "head"}, model, importance));
  CHECK_THROWS_WITH(check_patterns("own", "exclude pattern", {"x"}, model, importance),
                    ContainsSubstring("the nearest of the 3 names"));
}

}  // namespace patterns_test
