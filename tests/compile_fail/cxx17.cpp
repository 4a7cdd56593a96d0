// SPDX-License-Identifier: MIT
// expect: retain needs C..20: compile with -std=c..20, in CMake set.CMAKE_CXX_STANDARD 20.
// options: -std=c++17
#include <retain/ewc.hpp>
