// SPDX-License-Identifier: MIT
// expect: parameter_source
#include <retain/l2_init.hpp>

const retain::l2_init keep{42};
