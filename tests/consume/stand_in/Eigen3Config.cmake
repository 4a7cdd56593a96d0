# SPDX-License-Identifier: MIT
# Stands in for an Eigen that is too old.
add_library(Eigen3::Eigen INTERFACE IMPORTED)
