// SPDX-License-Identifier: MIT
// expect: attach takes a weight term such as retain::ewc: a distillation term needs
#include <retain/attach.hpp>
#include <retain/kickstarting.hpp>

using teacher = retain::categorical (*)(const at::Tensor&);

retain::attachment guard(retain::kickstarting<teacher>& keep,
                         const std::vector<at::Tensor>& model) {
  return retain::attach(keep, model);
}
