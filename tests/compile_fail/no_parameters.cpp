// SPDX-License-Identifier: MIT
// expect: this model has no named parameters: pass a torch::nn::Module, its holder
#include <retain/l2_init.hpp>

const retain::l2_init keep{42};
