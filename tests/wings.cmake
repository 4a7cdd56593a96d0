# SPDX-License-Identifier: MIT
# The order of the library's folders. A folder may include itself and the folders listed after its name, and no other
# header of the library. Headers in no folder ("front doors") may include everything, and no folder includes a front door.
# A header that names something of LibTorch or Eigen includes a header of it.
#
#     cmake -P tests/wings.cmake
cmake_minimum_required(VERSION 3.24)
set(may_include
  "base:"
  "files:base"
  "kernels:base"
  "core:base files kernels"
  "distributions:base kernels core"
  "policy:base kernels core distributions"
  "loss:base kernels core distributions"
  "replay:base files kernels core"
  "importance:base kernels core distributions"
  "terms:base kernels core distributions")

if(NOT headers)
  get_filename_component(headers ${CMAKE_CURRENT_LIST_DIR}/../include/retain ABSOLUTE)
endif()
foreach(row IN LISTS may_include)
  string(REGEX MATCH "^([a-z]+):(.*)$" row "${row}")
  list(APPEND wings ${CMAKE_MATCH_1})
  string(REPLACE " " ";" allowed_${CMAKE_MATCH_1} "${CMAKE_MATCH_1} ${CMAKE_MATCH_2}")
endforeach()

file(GLOB_RECURSE files RELATIVE ${headers} ${headers}/*.hpp)
foreach(file IN LISTS files)
  foreach(row IN ITEMS "at::=ATen/" "torch::nn::=torch/nn" "torch::autograd::=torch/csrc/autograd/" "Eigen::=Eigen/")
    string(REGEX MATCH "^(.*)=(.*)$" row ${row})
    set(name ${CMAKE_MATCH_1})
    set(folder ${CMAKE_MATCH_2})
    # not in a comment or a text
    file(STRINGS ${headers}/${file} uses REGEX "^([^/\"]*[^a-z_/\"])?${name}" LIMIT_COUNT 1)
    file(STRINGS ${headers}/${file} includes REGEX "#include <${folder}" LIMIT_COUNT 1)
    if(uses AND NOT includes)
      list(APPEND wrong "${file}: names ${name} and includes no <${folder}...>")
    endif()
  endforeach()
  get_filename_component(wing ${file} DIRECTORY)
  if(wing STREQUAL "")
    continue()
  elseif(NOT wing IN_LIST wings)
    list(APPEND wrong "${file}: the folder ${wing}/ is not in the table of tests/wings.cmake")
    continue()
  endif()
  file(STRINGS ${headers}/${file} includes REGEX "^ *# *include *[<\"]")
  foreach(include IN LISTS includes)
    if(include MATCHES "<retain/([^/>]+)>")
      list(APPEND wrong "${file}: includes the front door ${CMAKE_MATCH_1}: include the header of the folder that it stands on")
    elseif(include MATCHES "<retain/([^/]+)/" AND NOT CMAKE_MATCH_1 IN_LIST allowed_${wing})
      list(APPEND wrong "${file}: ${wing}/ may not include ${CMAKE_MATCH_1}/")
    elseif(include MATCHES "\"")
      list(APPEND wrong "${file}: ${include}: name headers from the root, <retain/...>")
    endif()
  endforeach()
endforeach()
list(LENGTH files count)
if(count LESS 1)
  message(FATAL_ERROR "no headers in ${headers}")
endif()
if(wrong)
  list(JOIN wrong "\n  " wrong)
  message(FATAL_ERROR "includes that are wrong:\n  ${wrong}")
endif()
message(STATUS "${count} headers: every include runs down the table")
