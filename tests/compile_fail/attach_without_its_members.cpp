// SPDX-License-Identifier: MIT
// expect: attach needs a weight term with check.model., covers.name. and
#include <retain/attach.hpp>
#include <retain/term.hpp>

struct own {
  static constexpr const char* name = "own";
  retain::strength_schedule strength = 1.0;
  at::Tensor loss(const retain::parameter_list&) const { return {}; }
  at::Tensor add_gradient(const retain::parameter_list&) const { return {}; }
  retain::strength_schedule& schedule() { return strength; }
  void save_state(retain::state&, const std::string&) const {}
  void load_state(const retain::state&, const std::string&) {}
};

retain::attachment guard(own& keep, const retain::parameter_list& model) {
  return retain::attach(keep, model);
}
