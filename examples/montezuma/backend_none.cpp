// SPDX-License-Identifier: MIT
// What the commands say of the real game in a program that was built without it.
#include "backend.hpp"

#include <stdexcept>

namespace montezuma {
namespace {

[[noreturn]] int missing() {
  throw std::runtime_error("this program was built without the Arcade Learning Environment: "
                           "install its C++ library (0.8 or later, configured with "
                           "-DBUILD_CPP_LIB=ON -DBUILD_PYTHON_LIB=OFF), configure this project "
                           "again with -Dale_DIR=PREFIX/lib/cmake/ale, and build; the default, "
                           "--backend pyramid, needs nothing");
}

}  // namespace

int on_ale(const pretrain_command&) { missing(); }
int on_ale(const finetune_command&) { missing(); }
int on_ale(const evaluate_command&) { missing(); }
int on_ale(const make_states_command&) { missing(); }

}  // namespace montezuma
