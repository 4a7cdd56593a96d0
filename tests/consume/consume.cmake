# SPDX-License-Identifier: MIT
# Installs the package, moves it, and builds and runs a project that knows nothing but find_package(retain).
function(step what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${what} failed:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${work})
step("install" ${CMAKE_COMMAND} --install ${build} --prefix ${work}/installed)
file(RENAME ${work}/installed ${work}/moved)
step("configure" ${CMAKE_COMMAND} -S ${source}/tests/consume -B ${work}/build -G ${generator}
     -DCMAKE_PREFIX_PATH=${work}/moved -DCMAKE_CXX_COMPILER=${compiler} -DCMAKE_CXX_COMPILER_LAUNCHER=${launcher})
step("build" ${CMAKE_COMMAND} --build ${work}/build -j 2)
step("run" ${work}/build/consumer)
