# SPDX-License-Identifier: MIT
# Finds what retain is built on, and says which package to install when something is missing.

# A project that takes retain by add_subdirectory or FetchContent links what is found here from its own folder.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)

include(${CMAKE_CURRENT_LIST_DIR}/retainDependencies.cmake)
if(retain_missing)
  message(FATAL_ERROR "${retain_missing}")
endif()

# Debian's LibTorch uses whatever libblas.so.3 points to. The reference BLAS is slower by an order of magnitude. Other packages of LibTorch bring
# their own.
if(Torch_DIR MATCHES "^/usr/(lib|share)/")
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
endif()
