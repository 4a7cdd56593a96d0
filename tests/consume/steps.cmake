# SPDX-License-Identifier: MIT
# What the scripts of this folder share.

# Runs a command, and leaves what it prints in `output`.
function(step what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${what} failed (${result}):\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

# Ends the test if what it prints is not what it should be. CMake breaks the lines of its messages: a blank stands for any space.
function(expect text pattern)
  string(REGEX REPLACE "[ \n]+" " " text "${text}")
  if(NOT text MATCHES "${pattern}")
    message(FATAL_ERROR "'${pattern}' is missing in:\n${text}")
  endif()
endfunction()
function(expect_not text pattern)
  string(REGEX REPLACE "[ \n]+" " " text "${text}")
  if(text MATCHES "${pattern}")
    message(FATAL_ERROR "'${pattern}' should not be in:\n${text}")
  endif()
endfunction()

# Ends the test if the compiler's arguments do not name the folder of the headers as a system folder: their warnings are not the consumer's.
function(expect_system_folder commands folder)
  string(FIND "${commands}" "-isystem ${folder} " place)
  string(FIND "${commands}" "-I${folder} " other)
  if(place LESS 0 OR NOT other LESS 0)
    message(FATAL_ERROR "no -isystem ${folder}, or -I, in:\n${commands}")
  endif()
endfunction()

# The compiler and the packages that the project itself is built with.
set(same_tools -DCMAKE_CXX_COMPILER=${compiler} -DCMAKE_CXX_COMPILER_LAUNCHER=${launcher} -DEigen3_DIR=${eigen})
set(prefix ${work}/moved)
