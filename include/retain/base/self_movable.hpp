// SPDX-License-Identifier: MIT
#pragma once

#include <utility>

namespace retain::detail {

/// A container that keeps its contents in a move assignment to itself. In such an assignment, a
/// container of the standard library may become empty. A class whose members have this type needs
/// no user-defined assignment operator.
template <class T>
struct self_movable : T {
  using T::T;
  self_movable() = default;
  self_movable(T value) noexcept : T(std::move(value)) {}  // NOLINT: it is the container
  self_movable(const self_movable&) = default;
  self_movable(self_movable&&) noexcept = default;
  self_movable& operator=(const self_movable&) = default;
  self_movable& operator=(self_movable&& other) noexcept {
    if (this != &other) T::operator=(static_cast<T&&>(other));
    return *this;
  }
};

}  // namespace retain::detail
