# SPDX-License-Identifier: MIT
# Installs the package, moves it, and builds and runs a project that knows nothing but find_package(retain); then the same project
# with retain's sources as a part of it, by FetchContent from a local folder.
function(step what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${what} failed:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${work})
step("install" ${CMAKE_COMMAND} --install ${build} --prefix ${work}/installed)
file(RENAME ${work}/installed ${work}/moved)
function(build_and_run how)
  step("configure ${how}" ${CMAKE_COMMAND} -S ${source}/tests/consume -B ${work}/${how} -G ${generator}
       -DCMAKE_CXX_COMPILER=${compiler} -DCMAKE_CXX_COMPILER_LAUNCHER=${launcher} -DTorch_DIR=${torch} -DEigen3_DIR=${eigen} ${ARGN})
  step("build ${how}" ${CMAKE_COMMAND} --build ${work}/${how} -j 2)
  step("run ${how}" ${work}/${how}/consumer)
endfunction()
build_and_run(installed-package -DCMAKE_PREFIX_PATH=${work}/moved)
build_and_run(subdirectory -DRETAIN_SOURCE=${source})
