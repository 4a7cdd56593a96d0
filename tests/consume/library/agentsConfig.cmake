# SPDX-License-Identifier: MIT
include(CMakeFindDependencyMacro)
find_dependency(retain)
include("${CMAKE_CURRENT_LIST_DIR}/agentsTargets.cmake")
