# SPDX-License-Identifier: MIT
# Asks the installed package for what it refuses and what it accepts. One configure step has every case: nothing is compiled.
cmake_minimum_required(VERSION 3.24)
include(${CMAKE_CURRENT_LIST_DIR}/steps.cmake)
file(REMOVE_RECURSE ${work}/questions)
step("the questions" ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/questions -B ${work}/questions -G ${generator} ${same_tools}
     -DTorch_DIR=${torch} -Dprefix=${prefix} -Dversion=${version})
expect("${output}" "every answer was right")
