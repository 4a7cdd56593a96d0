// SPDX-License-Identifier: MIT
// expect: this model has no named parameters: pass a torch::nn::Module, its holder, a std::vector<at::Tensor>, or give your type a member named_parameters..
#include <retain/l2_init.hpp>

const retain::l2_init keep{42};
