# SPDX-License-Identifier: MIT
import os
import re

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy, load
from conan.tools.layout import basic_layout
from conan.tools.scm import Version

required_conan_version = ">=2.0"


class RetainConan(ConanFile):
    name = "retain"
    description = "Fine-tuning with knowledge retention on LibTorch and Eigen"
    license = "MIT"
    topics = ("reinforcement-learning", "fine-tuning", "continual-learning", "libtorch", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"with_libtorch": [True, False]}
    default_options = {"with_libtorch": True}
    options_description = {"with_libtorch": "take LibTorch from Conan; False: CMake finds the one that is installed"}
    exports_sources = "LICENSE", "cmake/retainConan.cmake", "cmake/retainDependencies.cmake", "include/*.hpp"
    no_copy_source = True

    def set_version(self):
        header = load(self, os.path.join(self.recipe_folder, "include", "retain", "version.hpp"))
        self.version = ".".join(re.findall(r"#define RETAIN_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header))

    def layout(self):
        basic_layout(self)

    def requirements(self):
        # Conan's libtorch needs an Eigen before 4, too.
        self.requires("eigen/[>=3.4 <4]", transitive_headers=True)
        if self.options.with_libtorch:
            self.requires("libtorch/[>=2 <3]", transitive_headers=True, transitive_libs=True)

    def package_id(self):
        self.info.clear()

    def validate(self):
        check_min_cppstd(self, 20)
        if self.settings.os != "Linux":
            raise ConanInvalidConfiguration(f"{self.ref} is tested on Linux only")
        compiler, version = str(self.settings.compiler), str(self.settings.compiler.version)
        oldest = {"gcc": "12", "clang": "16"}.get(compiler)
        if oldest and Version(version) < oldest:
            raise ConanInvalidConfiguration(f"{self.ref} needs {compiler} {oldest} or newer; this is {version}")

    def package(self):
        for pattern, folder in (("*.hpp", "include"), ("*.cmake", "cmake")):
            copy(self, pattern, os.path.join(self.source_folder, folder), os.path.join(self.package_folder, folder))
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.system_libs = ["dl"]
        self.cpp_info.set_property("cmake_file_name", "retain")
        self.cpp_info.set_property("cmake_target_name", "retain::retain")
        self.cpp_info.set_property("cmake_build_modules", [os.path.join("cmake", "retainConan.cmake")])
