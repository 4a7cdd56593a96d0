# SPDX-License-Identifier: MIT
# Installs the package and moves it. A machine that only packages needs no LibTorch, and gets the same files.
cmake_minimum_required(VERSION 3.24)
include(${CMAKE_CURRENT_LIST_DIR}/steps.cmake)

file(REMOVE_RECURSE ${work}/installed ${prefix} ${work}/headers_only ${work}/packaged)
step("install" ${CMAKE_COMMAND} --install ${build} --prefix ${work}/installed)
file(RENAME ${work}/installed ${prefix})

step("configure without LibTorch" ${CMAKE_COMMAND} -S ${source} -B ${work}/headers_only -G ${generator} -DCMAKE_CXX_COMPILER=${compiler}
     -DRETAIN_BUILD_TESTS=OFF -DRETAIN_BUILD_EXAMPLES=OFF -DRETAIN_BUILD_BENCHMARKS=OFF
     -DCMAKE_DISABLE_FIND_PACKAGE_Torch=ON -DCMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON)
step("build without LibTorch" ${CMAKE_COMMAND} --build ${work}/headers_only)
step("install without LibTorch" ${CMAKE_COMMAND} --install ${work}/headers_only --prefix ${work}/packaged)
function(files_in folder result)
  file(GLOB_RECURSE files RELATIVE ${folder} ${folder}/*)
  list(SORT files)
  set(${result} "${files}" PARENT_SCOPE)
endfunction()
files_in(${prefix} here)
files_in(${work}/packaged there)
if(NOT here STREQUAL there)
  message(FATAL_ERROR "without LibTorch other files are installed: ${there}\nthan with it: ${here}")
endif()
foreach(file IN ITEMS include/retain/retain.hpp share/retain/cmake/retainConfig.cmake share/pkgconfig/retain.pc share/licenses/retain/LICENSE)
  if(NOT file IN_LIST here)
    message(FATAL_ERROR "${file} is not installed, but: ${here}")
  endif()
endforeach()

# CMake before 3.23 ignores file sets, and takes the folder from here.
file(READ ${prefix}/share/retain/cmake/retainTargets.cmake targets)
expect("${targets}" "INTERFACE_INCLUDE_DIRECTORIES \"[^\"]*/include\"")

# What is compiled needs LibTorch, and it is said at once.
execute_process(COMMAND ${CMAKE_COMMAND} -S ${source} -B ${work}/without -G ${generator} -DCMAKE_CXX_COMPILER=${compiler}
                        -DCMAKE_DISABLE_FIND_PACKAGE_Torch=ON
                RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
expect("${result}" "^[1-9]")
expect("${output}" "LibTorch was not found[.] Debian and Ubuntu: apt install libtorch-dev")

# The version stands in one header, and is repeated where a registry wants it.
file(READ ${source}/packaging/vcpkg/retain/vcpkg.json port)
expect("${port}" "\"version-semver\": \"${version}\"")
