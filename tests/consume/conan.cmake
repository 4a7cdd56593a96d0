# SPDX-License-Identifier: MIT
# The recipe, with the real client and without a network: with the LibTorch that is installed, and with a package of LibTorch in the
# form of Conan Center's.
cmake_minimum_required(VERSION 3.24)
include(${CMAKE_CURRENT_LIST_DIR}/steps.cmake)

find_program(conan NAMES conan HINTS ${source}/build/conan/bin)
if(NOT conan)
  message("SKIPPED: conan is not installed: python3 -m venv build/conan && build/conan/bin/pip install -r tests/consume/conan.txt")
  return()
endif()
set(folder ${work}/conan)
file(REMOVE_RECURSE ${folder})
set(ENV{CONAN_HOME} ${folder}/home)
set(ENV{CXX} ${compiler})
set(ENV{CMAKE_CXX_COMPILER_LAUNCHER} ${launcher})
set(ENV{Torch_DIR} ${torch})
set(ENV{Eigen3_DIR} ${eigen})
step("conan profile detect" ${conan} profile detect)
# Eigen is the one that is installed.
file(WRITE ${folder}/profile "include(default)
[settings]
compiler.cppstd=20
[platform_requires]
eigen/3.4.0
[conf]
tools.cmake.cmake_layout:test_folder=${folder}/test_package
")
set(options -pr ${folder}/profile --no-remote)

step("conan create with the LibTorch that is installed" ${conan} create ${source} ${options} -o retain/*:with_libtorch=False)
expect("${output}" "retain/${version}: ")
expect("${output}" "retain is here, LibTorch has [0-9]+ thread")

list(TRANSFORM torch_includes REPLACE "(.+)" "'\\1'" OUTPUT_VARIABLE includes)
list(JOIN includes ", " includes)
file(WRITE ${folder}/libtorch/conanfile.py "from conan import ConanFile


class LibTorch(ConanFile):
    name = 'libtorch'
    version = '2.9.1'
    package_type = 'shared-library'

    def package_info(self):
        self.cpp_info.set_property('cmake_file_name', 'Torch')
        self.cpp_info.set_property('cmake_additional_variables_prefixes', ['TORCH'])
        for name, below in (('c10', []), ('torch_cpu', ['c10']), ('torch', ['torch_cpu'])):
            self.cpp_info.components[name].libs = [name]
            self.cpp_info.components[name].libdirs = ['${torch_folder}']
            self.cpp_info.components[name].includedirs = [${includes}]
            self.cpp_info.components[name].requires = below
")
step("conan create libtorch" ${conan} create ${folder}/libtorch ${options})
step("conan create with libtorch" ${conan} create ${source} ${options})
expect("${output}" "LibTorch 2[.]9[.]1 in ")
expect("${output}" "retain is here, LibTorch has [0-9]+ thread")

# refused(SETTING REASON)
function(refused setting reason)
  execute_process(COMMAND ${conan} create ${source} ${options} -o retain/*:with_libtorch=False -s ${setting}
                  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  expect("${result}" "^[1-9]")
  expect("${output}" "${reason}")
endfunction()
refused(compiler.cppstd=17 "retain/${version}: Invalid: .*required C[+][+] standard [(]20[)]")
refused(os=Macos "retain/${version}: Invalid: .* is tested on Linux only")
refused(compiler.version=11 "retain/${version}: Invalid: .* needs [a-z]+ [0-9]+ or newer; this is 11")
