// SPDX-License-Identifier: MIT
// Checks for constructors and for loading, and limits for sizes.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/state.hpp>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

namespace retain::detail {

/// More items than fit into any memory. A double holds every integer up to this number, and sums of
/// a few such numbers do not overflow.
inline constexpr std::int64_t most_items = std::int64_t{1} << 53;

/// Returns the result of `make`. Throws config_error, whose text begins with `what`, if there is
/// not enough memory or if LibTorch reports an error.
template <class Make, class... Parts>
auto allocated(Make&& make, const Parts&... what) {
  std::string reason;
  try {
    return make();
  } catch (const c10::Error& e) {
    const std::string_view text = e.what_without_backtrace();
    reason = text.substr(0, text.find('\n'));
  } catch (const std::bad_alloc&) {
    reason = "there is not enough memory";
  } catch (const std::length_error&) {
    reason = "there is not enough memory";
  }
  throw config_error(concat(what..., ": ", reason));
}

/// Reserves room for `more` elements, so that adding them cannot fail. The capacity at least
/// doubles when it grows.
template <class Vector>
void make_room(Vector& elements, std::size_t more) {
  if (elements.capacity() - elements.size() < more)
    elements.reserve(std::max(elements.size() + more, 2 * elements.capacity()));
}

/// Runs a constructor's check on the value that was saved under `key`. If the check throws
/// config_error, throws state_error with the key's name instead.
template <class Check>
void check_saved(const std::string& key, Check&& check) {
  try {
    check();
  } catch (const config_error& e) {
    throw state_error(concat("the state's '", key, "' is not valid: ", e.what()));
  }
}

/// Returns the tensor [n] under `key`, contiguous on the CPU. Throws state_error if the tensor is
/// undefined or has another type or number of dimensions.
inline at::Tensor saved_list(const state& in, const std::string& key, at::ScalarType type) {
  const at::Tensor& list = in.tensor(key);
  if (!list.defined() || list.layout() != at::kStrided || list.dim() != 1 ||
      list.scalar_type() != type)
    throw state_error(concat("the state's '", key, "' must be ", type, " [n], got ",
                             list.defined()
                                 ? concat(list.scalar_type(), ' ', shape_text(list.sizes()))
                                 : "an undefined tensor",
                             ": the state was saved from another object"));
  return list.to(at::kCPU).contiguous();
}

}  // namespace retain::detail
