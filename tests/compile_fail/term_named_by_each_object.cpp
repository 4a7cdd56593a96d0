// SPDX-License-Identifier: MIT
// expect: the name of a term must be a static member, for example static
#include <retain/compose.hpp>

#include <string>

struct my_penalty {
  std::string name = "mine";
  at::Tensor loss(const std::vector<at::Tensor>& model) { return model[0].square().sum(); }
  double strength() const { return 1; }
  void step(double) {}
  void save_state(retain::state&, const std::string&) const {}
  void load_state(const retain::state&, const std::string&) {}
};

auto keep = retain::compose(my_penalty{});
