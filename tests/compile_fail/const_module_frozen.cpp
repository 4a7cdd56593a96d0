// SPDX-License-Identifier: MIT
// expect: a const module cannot be put into eval mode: pass the module itself, a holder or a
// pointer
#include <retain/freeze.hpp>

#include <torch/nn/module.h>

void freeze(const torch::nn::Module& model) { retain::frozen hold{model, {"encoder"}}; }
