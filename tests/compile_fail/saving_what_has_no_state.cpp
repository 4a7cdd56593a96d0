// SPDX-License-Identifier: MIT
// expect: stateful
#include <retain/state.hpp>

void save() { retain::save("state", 42); }
