// SPDX-License-Identifier: MIT
// expect: every term needs a static member name, strength_schedule& schedule..
#include <retain/retention.hpp>

struct own {
  static constexpr const char* name = "own";
  at::Tensor loss(const retain::parameter_list&) const { return {}; }
  at::Tensor add_gradient(const retain::parameter_list&) const { return {}; }
  void save_state(retain::state&, const std::string&) const {}
  void load_state(const retain::state&, const std::string&) {}
};

void add(retain::retention<>& keep) { keep.add(own{}); }
