// SPDX-License-Identifier: MIT
// expect: the guard ends at once if it is not kept
#include <retain/attach.hpp>
#include <retain/l2_init.hpp>

#pragma GCC diagnostic error "-Wunused-result"

void guard(retain::l2_init& keep, const std::vector<at::Tensor>& model) {
  retain::attach(keep, model);
}
