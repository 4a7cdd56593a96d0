# SPDX-License-Identifier: MIT
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS retain EXPORT retainTargets FILE_SET HEADERS FILE_SET internals)
install(EXPORT retainTargets NAMESPACE retain:: DESTINATION ${CMAKE_INSTALL_DATADIR}/retain/cmake)
configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/retainConfig.cmake.in ${PROJECT_BINARY_DIR}/retainConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_DATADIR}/retain/cmake)
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/retainConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/retainConfig.cmake ${PROJECT_BINARY_DIR}/retainConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_DATADIR}/retain/cmake)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/retain)
