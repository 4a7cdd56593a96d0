# SPDX-License-Identifier: MIT
# Finds what retain is built on, and says which package to install when something is missing.

# A project that takes retain by add_subdirectory or FetchContent links what is found here from its own folder.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)

find_package(Torch QUIET)
if(NOT Torch_FOUND)
  message(FATAL_ERROR
    "LibTorch was not found. Debian and Ubuntu: apt install libtorch-dev libopenblas0-pthread. "
    "Elsewhere: unpack LibTorch and configure with -DCMAKE_PREFIX_PATH=/path/to/libtorch.")
endif()
if(Torch_VERSION AND Torch_VERSION VERSION_LESS 1.13)
  message(FATAL_ERROR "retain needs LibTorch 1.13 or newer; ${Torch_DIR} has ${Torch_VERSION}.")
endif()
message(STATUS "retain: LibTorch ${Torch_VERSION}")

find_package(Eigen3 3.4 QUIET NO_MODULE)
if(NOT Eigen3_FOUND)
  find_package(Eigen3 5 QUIET NO_MODULE)
endif()
if(NOT Eigen3_FOUND)
  message(FATAL_ERROR "Eigen 3.4 or newer was not found. Debian and Ubuntu: apt install libeigen3-dev.")
endif()

find_package(OpenMP QUIET COMPONENTS CXX)
if(NOT OpenMP_CXX_FOUND)
  message(FATAL_ERROR
    "OpenMP was not found. at::parallel_for runs on one thread without it. "
    "g++ brings it with libgomp; clang wants libomp-dev.")
endif()
message(STATUS "retain: OpenMP ${OpenMP_CXX_VERSION}; penalties and LibTorch's loops run on several threads")

# Debian's libtorch uses whatever libblas.so.3 points to. The reference BLAS is slower by an order of magnitude.
find_library(RETAIN_SYSTEM_BLAS NAMES libblas.so.3 PATHS /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu)
mark_as_advanced(RETAIN_SYSTEM_BLAS)
if(RETAIN_SYSTEM_BLAS)
  file(REAL_PATH "${RETAIN_SYSTEM_BLAS}" retain_blas)
  if(retain_blas MATCHES "openblas|blis|mkl|atlas")
    message(STATUS "retain: BLAS ${retain_blas}")
  else()
    message(WARNING
      "The system's BLAS is ${retain_blas}, the reference implementation: matrix products will be about "
      "fourteen times slower than with OpenBLAS. Debian and Ubuntu: apt install libopenblas0-pthread.")
  endif()
endif()
