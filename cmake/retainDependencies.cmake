# SPDX-License-Identifier: MIT
# Finds what retain stands on: LibTorch 1.13 or newer, Eigen 3.4 or newer, and OpenMP if LibTorch is built on it. The project and the
# installed package include this file. It defines the target retain::libtorch; or it leaves in retain_missing what is missing and
# how to install it.
set(retain_missing "")

if(NOT CMAKE_CXX_COMPILER_LOADED)
  set(retain_missing "retain needs C++: name CXX among the languages of project().")
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 16)
  set(retain_missing "retain needs clang 16 or newer, or g++ 12 or newer; ${CMAKE_CXX_COMPILER} is clang ${CMAKE_CXX_COMPILER_VERSION}.")
endif()
if(retain_missing)
  return()
endif()

find_package(Torch QUIET)
if(NOT Torch_FOUND)
  # Lines that begin with a space are not broken.
  string(CONCAT retain_missing
    "LibTorch was not found.\n"
    "  Debian and Ubuntu: apt install libtorch-dev libopenblas0-pthread\n"
    "  LibTorch unpacked in a folder: cmake -DCMAKE_PREFIX_PATH=/path/to/libtorch ...\n"
    "  LibTorch of Python's package: cmake -DCMAKE_PREFIX_PATH=\"$(python3 -c 'import torch; print(torch.utils.cmake_prefix_path)')\" ...\n")
  if(Torch_CONSIDERED_CONFIGS)
    string(APPEND retain_missing "  ${Torch_CONSIDERED_CONFIGS} cannot be used here: ${Torch_NOT_FOUND_MESSAGE}\n")
  endif()
  return()
endif()
if(Torch_VERSION AND Torch_VERSION VERSION_LESS 1.13)
  set(retain_missing "retain needs LibTorch 1.13 or newer; ${Torch_DIR} has ${Torch_VERSION}.")
  return()
endif()

# Two calls, since Eigen refuses a range over its major versions.
find_package(Eigen3 3.4 QUIET NO_MODULE)
if(NOT Eigen3_FOUND)
  set(retain_considered ${Eigen3_CONSIDERED_CONFIGS})
  set(retain_considered_versions ${Eigen3_CONSIDERED_VERSIONS})
  find_package(Eigen3 5 QUIET NO_MODULE)
endif()
if(NOT Eigen3_FOUND)
  set(retain_missing "Eigen was not found: retain needs Eigen 3.4 or 5.\n  Debian and Ubuntu: apt install libeigen3-dev\n")
  if(retain_considered)
    string(APPEND retain_missing "  ${retain_considered} has ${retain_considered_versions}\n")
  endif()
  return()
endif()

# at::parallel_for is a template: where LibTorch is built on OpenMP, it runs on one thread in code that is compiled without.
set(retain_openmp TRUE)
foreach(retain_folder IN LISTS TORCH_INCLUDE_DIRS)
  if(EXISTS "${retain_folder}/ATen/Config.h")
    file(STRINGS "${retain_folder}/ATen/Config.h" retain_other_threads REGEX "define AT_PARALLEL_OPENMP +0")
    if(retain_other_threads)
      set(retain_openmp FALSE)
    endif()
    break()
  endif()
endforeach()
if(retain_openmp)
  find_package(OpenMP QUIET COMPONENTS CXX)
  if(NOT OpenMP_CXX_FOUND)
    string(CONCAT retain_missing
      "OpenMP was not found, and LibTorch in ${Torch_DIR} is built on it: at::parallel_for runs on one thread without it. "
      "g++ brings it with libgomp; clang wants libomp-dev.")
    return()
  endif()
endif()

# LibTorch's own packages define the target torch. A Conan package of it defines libtorch::libtorch and names it in TORCH_LIBRARIES.
if(TARGET torch)
  set(retain_torch torch)
elseif(TORCH_LIBRARIES)
  set(retain_torch ${TORCH_LIBRARIES})
elseif(TARGET libtorch::libtorch)
  set(retain_torch libtorch::libtorch)
else()
  set(retain_missing "LibTorch in ${Torch_DIR} defines neither the target torch nor TORCH_LIBRARIES: retain does not know what to link.")
  return()
endif()

if(NOT TARGET retain::libtorch)
  add_library(retain::libtorch INTERFACE IMPORTED)
  target_link_libraries(retain::libtorch INTERFACE ${retain_torch})
  if(NOT TARGET torch AND TORCH_INCLUDE_DIRS)
    target_include_directories(retain::libtorch INTERFACE ${TORCH_INCLUDE_DIRS})
  endif()
  # Beside the LibTorch of Python's package lie the CUDA libraries that it is built with. Without these folders, the linker resolves its
  # references in the libraries of an installed CUDA toolkit, which may be older.
  file(GLOB retain_cuda_folders "${TORCH_INSTALL_PREFIX}/../nvidia/*/lib")
  foreach(retain_folder IN LISTS retain_cuda_folders)
    target_link_options(retain::libtorch INTERFACE "LINKER:-rpath-link,${retain_folder}")
  endforeach()
  if(retain_openmp)
    target_link_libraries(retain::libtorch INTERFACE OpenMP::OpenMP_CXX)
    set(retain_threads "built on OpenMP: ${OpenMP_CXX_FLAGS} reaches all code that links retain::retain")
  else()
    set(retain_threads "built on threads of its own, without OpenMP")
  endif()
  if(NOT retain_FIND_QUIETLY)
    message(STATUS "retain: LibTorch ${Torch_VERSION} in ${Torch_DIR}, ${retain_threads}")
  endif()
endif()
