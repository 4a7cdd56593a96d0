// SPDX-License-Identifier: MIT
// What is checked alike of what a caller builds with and of what a state brings, and sizes that no
// memory holds.
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

/// More items than any memory holds or any stream brings. Doubles count so far without gaps, and
/// sums of a few such numbers do not overflow.
inline constexpr std::int64_t most_items = std::int64_t{1} << 53;

/// What `make` returns. Where there is no memory for it, or LibTorch cannot make it, a config_error
/// that begins with `what`.
template <class Make, class... Parts>
auto allocated(Make&& make, const Parts&... what) {
  std::string reason;
  try {
    return make();
  } catch (const c10::Error& e) {
    const std::string_view text = e.what_without_backtrace();
    reason = text.substr(0, text.find('\n'));
  } catch (const std::bad_alloc&) {
    reason = "there is not so much memory";
  } catch (const std::length_error&) {
    reason = "there is not so much memory";
  }
  throw config_error(concat(what..., ": ", reason));
}

/// Room for `more` elements, so that adding them cannot fail; it grows by doubling, as adding one
/// by one does.
template <class Vector>
void make_room(Vector& elements, std::size_t more) {
  if (elements.capacity() - elements.size() < more)
    elements.reserve(std::max(elements.size() + more, 2 * elements.capacity()));
}

/// Runs a constructor's check on what was saved under `key`: what is a config_error there is a
/// state_error here, with the key's name.
template <class Check>
void check_saved(const std::string& key, Check&& check) {
  try {
    check();
  } catch (const config_error& e) {
    throw state_error(concat("the state's '", key, "' is refused: ", e.what()));
  }
}

/// The list [n] under a key, contiguous on the CPU. Throws state_error when it is no list of this
/// type.
inline at::Tensor saved_list(const state& in, const std::string& key, at::ScalarType type) {
  const at::Tensor& list = in.tensor(key);
  if (!list.defined() || list.layout() != at::kStrided || list.dim() != 1 ||
      list.scalar_type() != type)
    throw state_error(concat("the state's '", key, "' must be ", type, " [n], got ",
                             list.defined()
                                 ? concat(list.scalar_type(), ' ', shape_text(list.sizes()))
                                 : "an undefined tensor",
                             ": it was saved from something else"));
  return list.to(at::kCPU).contiguous();
}

}  // namespace retain::detail
