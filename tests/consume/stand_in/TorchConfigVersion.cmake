# SPDX-License-Identifier: MIT
set(PACKAGE_VERSION ${stand_in_version})
set(PACKAGE_VERSION_COMPATIBLE TRUE)
