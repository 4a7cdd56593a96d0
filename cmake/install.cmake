# SPDX-License-Identifier: MIT
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(retain_cmake_folder ${CMAKE_INSTALL_DATADIR}/retain/cmake)
# CMake before 3.23 knows nothing of file sets: it takes the folder from INCLUDES.
install(TARGETS retain EXPORT retainTargets FILE_SET HEADERS FILE_SET internals INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT retainTargets NAMESPACE retain:: DESTINATION ${retain_cmake_folder})
configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/retainConfig.cmake.in ${PROJECT_BINARY_DIR}/retainConfig.cmake
  INSTALL_DESTINATION ${retain_cmake_folder})
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/retainConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/retainConfig.cmake ${PROJECT_BINARY_DIR}/retainConfigVersion.cmake
              ${CMAKE_CURRENT_LIST_DIR}/retainDependencies.cmake
        DESTINATION ${retain_cmake_folder})

file(RELATIVE_PATH retain_pc_includedir ${CMAKE_INSTALL_FULL_DATADIR}/pkgconfig ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(${CMAKE_CURRENT_LIST_DIR}/retain.pc.in ${PROJECT_BINARY_DIR}/retain.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/retain.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/retain)
