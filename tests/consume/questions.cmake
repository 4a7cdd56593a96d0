# SPDX-License-Identifier: MIT
# Asks the installed package for what it refuses and what it accepts. One configure step has every case: nothing is compiled.
cmake_minimum_required(VERSION 3.24)
include(${CMAKE_CURRENT_LIST_DIR}/steps.cmake)
file(REMOVE_RECURSE ${work}/questions)
step("the questions" ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/questions -B ${work}/questions -G ${generator} ${same_tools}
     -DTorch_DIR=${torch} -Dprefix=${prefix} -Dversion=${version})
expect("${output}" "every answer was right")

# The system's BLAS concerns the system's LibTorch only. With the benchmarks alone, nothing is compiled, and LibTorch is looked for.
step("configure the tree with a LibTorch of its own" ${CMAKE_COMMAND} -S ${source} -B ${work}/own_torch -G ${generator} ${same_tools}
     -DRETAIN_BUILD_TESTS=OFF -DRETAIN_BUILD_EXAMPLES=OFF -DRETAIN_BUILD_BENCHMARKS=ON
     -DTorch_DIR=${CMAKE_CURRENT_LIST_DIR}/stand_in -Dstand_in_form=torch -Dstand_in_version=2.6)
expect("${output}" "retain: LibTorch 2[.]6 in ")
expect_not("${output}" "BLAS")
