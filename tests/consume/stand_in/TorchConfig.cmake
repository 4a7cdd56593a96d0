# SPDX-License-Identifier: MIT
# Stands in for packages of LibTorch that are not installed here. stand_in_form says which.
set(TORCH_INCLUDE_DIRS ${stand_in_includes})
if(stand_in_form STREQUAL "conan")
  # As Conan Center's package of 2.9.1: no target torch, and TORCH_LIBRARIES names the package's own. Its libraries are the real ones.
  if(NOT TARGET libtorch::libtorch)
    add_library(libtorch::libtorch INTERFACE IMPORTED)
    set_target_properties(libtorch::libtorch PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${stand_in_includes}"
      INTERFACE_LINK_LIBRARIES "${stand_in_folder}/libtorch.so;${stand_in_folder}/libtorch_cpu.so;${stand_in_folder}/libc10.so")
  endif()
  set(TORCH_LIBRARIES libtorch::libtorch)
elseif(stand_in_form STREQUAL "torch")
  # As LibTorch's own, in the folder ${stand_in_folder}.
  add_library(torch INTERFACE IMPORTED)
  set(TORCH_INSTALL_PREFIX ${stand_in_folder})
elseif(stand_in_form STREQUAL "broken")
  set(Torch_FOUND FALSE)
  set(Torch_NOT_FOUND_MESSAGE "the CUDA libraries are somewhere else")
endif()
