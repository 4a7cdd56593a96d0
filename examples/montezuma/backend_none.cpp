// SPDX-License-Identifier: MIT
// The commands of the real game in a program that was built without ALE: they only throw an error.
#include "backend.hpp"

#include <stdexcept>

namespace montezuma {
namespace {

[[noreturn]] int missing() {
  throw std::runtime_error("this program was built without the Arcade Learning Environment: "
                           "install pybind11 (Debian and Ubuntu: apt install pybind11-dev "
                           "python3-dev) for the Python package ale-py, or ALE's C++ library "
                           "(0.8 or later, -DBUILD_CPP_LIB=ON -DBUILD_PYTHON_LIB=OFF, found by "
                           "-Dale_DIR=PREFIX/lib/cmake/ale), then configure and build again; the "
                           "default, --backend pyramid, works without it");
}

}  // namespace

int on_ale(const pretrain_command&) { missing(); }
int on_ale(const finetune_command&) { missing(); }
int on_ale(const evaluate_command&) { missing(); }
int on_ale(const make_states_command&) { missing(); }
int on_ale(const play_command&) { missing(); }

}  // namespace montezuma
