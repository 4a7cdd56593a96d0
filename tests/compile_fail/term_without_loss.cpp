// SPDX-License-Identifier: MIT
// expect: a term needs loss.model. and add_gradient.model. for a weight term
#include <retain/retention.hpp>

struct own {
  static constexpr const char* name = "own";
  retain::strength_schedule strength = 1.0;
  retain::strength_schedule& schedule() { return strength; }
  void save_state(retain::state&, const std::string&) const {}
  void load_state(const retain::state&, const std::string&) {}
};

void add(retain::retention<>& keep) { keep.add(own{}); }
