// SPDX-License-Identifier: MIT
// The version of this library, for #if. CMakeLists.txt and conanfile.py read it from this file.
#pragma once

#define RETAIN_VERSION_MAJOR 0
#define RETAIN_VERSION_MINOR 1
#define RETAIN_VERSION_PATCH 0
/// One number that grows with the version: 10000 * major + 100 * minor + patch.
#define RETAIN_VERSION \
  (RETAIN_VERSION_MAJOR * 10000 + RETAIN_VERSION_MINOR * 100 + RETAIN_VERSION_PATCH)
