// SPDX-License-Identifier: MIT
// expect: every term needs a static member name, strength_schedule& schedule..
#include <retain/compose.hpp>

struct my_penalty {
  at::Tensor loss(const std::vector<at::Tensor>& model) { return model[0].square().sum(); }
};

auto keep = retain::compose(my_penalty{});
