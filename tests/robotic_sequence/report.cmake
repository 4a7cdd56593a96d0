# SPDX-License-Identifier: MIT
# The reports and the sweep's list of commands; these need neither LibTorch nor MuJoCo.
find_package(CLI11 REQUIRED)
find_package(nlohmann_json 3.10 REQUIRED)
add_executable(robotic_sequence_report_tests ${CMAKE_CURRENT_LIST_DIR}/report_test.cpp)
target_link_libraries(robotic_sequence_report_tests PRIVATE retain_test_main_plain)
target_compile_features(robotic_sequence_report_tests PRIVATE cxx_std_20)
target_include_directories(robotic_sequence_report_tests PRIVATE ${PROJECT_SOURCE_DIR}/examples/robotic_sequence)
target_link_libraries(robotic_sequence_report_tests PRIVATE retain_files CLI11::CLI11 nlohmann_json::nlohmann_json Catch2::Catch2
  $<TARGET_NAME_IF_EXISTS:retain_project_options>)
catch_discover_tests(robotic_sequence_report_tests)
