# SPDX-License-Identifier: MIT
# Runs the ranks of a group side by side, and checks how each ends.
#
#     cmake -D worker=PROGRAM -D folder=FOLDER -P processes.cmake
function(ranks mode size expected)
  set(file ${folder}/${mode}-${size})
  file(REMOVE ${file})
  set(commands)
  math(EXPR last "${size} - 1")
  foreach(rank RANGE ${last})
    list(APPEND commands COMMAND ${worker} ${mode} ${rank} ${size} ${file})
  endforeach()
  string(TIMESTAMP begin "%s")
  # the commands of one call run at the same time
  execute_process(${commands} RESULTS_VARIABLE results ERROR_VARIABLE errors TIMEOUT 100)
  string(TIMESTAMP end "%s")
  math(EXPR seconds "${end} - ${begin}")
  if(NOT "${results}" MATCHES "^${expected}$")
    message(FATAL_ERROR "${size} processes, ${mode}: exit codes ${results} after ${seconds} s, where ${expected} was expected\n${errors}")
  endif()
  message(STATUS "${size} processes, ${mode}: exit codes ${results} after ${seconds} s\n${errors}")
  set(errors "${errors}" PARENT_SCOPE)
  file(REMOVE ${file})
endfunction()

file(MAKE_DIRECTORY ${folder})
ranks(well 2 "0;0")
ranks(well 4 "0;0;0;0")
foreach(mode IN ITEMS dies hangs)
  ranks(${mode} 2 "3;0")
  if(NOT errors MATCHES "all_reduce of a fisher: rank 0 of 2 waited for the other processes")
    message(FATAL_ERROR "the error does not say who waited for what:\n${errors}")
  endif()
endforeach()
