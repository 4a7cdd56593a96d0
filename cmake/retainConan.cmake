# SPDX-License-Identifier: MIT
# Conan defines retain::retain. This links what Conan does not know of: a LibTorch that is not Conan's, and OpenMP.
include("${CMAKE_CURRENT_LIST_DIR}/retainDependencies.cmake")
if(retain_missing)
  set(retain_FOUND FALSE)
  set(retain_NOT_FOUND_MESSAGE "${retain_missing}")
else()
  target_link_libraries(retain::retain INTERFACE retain::libtorch Eigen3::Eigen)
endif()
