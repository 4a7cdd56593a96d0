# SPDX-License-Identifier: MIT
# The port of packaging/vcpkg, with the real client: in classic mode with every feature, and as a dependency of a manifest without
# LibTorch. Empty ports stand in for those of LibTorch and Eigen, which would be built for hours; the system's are used.
cmake_minimum_required(VERSION 3.24)
include(${CMAKE_CURRENT_LIST_DIR}/steps.cmake)

if(NOT EXISTS "$ENV{VCPKG_ROOT}/vcpkg")
  message("SKIPPED: vcpkg is not here: set VCPKG_ROOT to a checkout of vcpkg with its client, see packaging/README.md")
  return()
endif()
set(folder ${work}/vcpkg)
file(REMOVE_RECURSE ${folder})
foreach(port IN ITEMS libtorch eigen3)
  file(WRITE ${folder}/overlay/${port}/vcpkg.json "{\"name\": \"${port}\", \"version\": \"99\"}\n")
  file(WRITE ${folder}/overlay/${port}/portfile.cmake "set(VCPKG_POLICY_EMPTY_PACKAGE enabled)\n")
endforeach()
set(ENV{VCPKG_DISABLE_METRICS} 1)
# Nothing is left behind in the checkout of vcpkg.
set(places --x-buildtrees-root=${folder}/buildtrees --x-packages-root=${folder}/packages --binarysource=clear)
set(arguments ${same_tools} -DTorch_DIR=${torch} -Dversion=${version} -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0
    -DCMAKE_TOOLCHAIN_FILE=$ENV{VCPKG_ROOT}/scripts/buildsystems/vcpkg.cmake)
function(build_and_run mode)
  step("build, ${mode}" ${CMAKE_COMMAND} --build ${folder}/${mode}_build)
  step("run, ${mode}" ${folder}/${mode}_build/consumer)
  expect("${output}" "^retain ${version}, [0-9]+ thread")
endfunction()

step("vcpkg install retain" $ENV{VCPKG_ROOT}/vcpkg install retain ${places} --x-install-root=${folder}/classic
     --overlay-ports=${source}/packaging/vcpkg --overlay-ports=${folder}/overlay)
expect("${output}" "Installing [0-9]/[0-9] retain.core,libtorch.")
expect("${output}" "find_package.retain CONFIG REQUIRED.")
expect_not("${output}" "warning: ")
step("configure, classic" ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/project -B ${folder}/classic_build -G ${generator} ${arguments}
     -DVCPKG_MANIFEST_MODE=OFF -DVCPKG_INSTALLED_DIR=${folder}/classic)
build_and_run(classic)

file(COPY ${CMAKE_CURRENT_LIST_DIR}/project/ DESTINATION ${folder}/manifest)
file(WRITE ${folder}/manifest/vcpkg.json "{\"dependencies\": [{\"name\": \"retain\", \"default-features\": false}]}\n")
file(WRITE ${folder}/cache.cmake "set(VCPKG_OVERLAY_PORTS \"${source}/packaging/vcpkg;${folder}/overlay\" CACHE STRING \"\")
set(VCPKG_INSTALL_OPTIONS \"${places}\" CACHE STRING \"\")\n")
step("configure, manifest" ${CMAKE_COMMAND} -C ${folder}/cache.cmake -S ${folder}/manifest -B ${folder}/manifest_build -G ${generator} ${arguments})
expect_not("${output}" "Installing [0-9]/[0-9] libtorch")
build_and_run(manifest)
