// SPDX-License-Identifier: MIT
// Helpers for terms with stored data: the rows that count, and saving and loading the data.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/state.hpp>

#include <ATen/ATen.h>

#include <concepts>
#include <cstdint>
#include <string>

namespace retain::detail {

/// Returns the rows of `rows` [T, N] that count in the loss: step t >= burn_in, or any step of an
/// episode that begins inside the sequence.
inline at::Tensor warm_rows(std::int64_t burn_in, const at::Tensor& rows,
                            const at::Tensor& episode_start) {
  if (rows.dim() != 2 || rows.size(0) <= burn_in)
    throw shape_error(concat("behavioral_cloning: a burn_in of ", burn_in,
                             " steps needs rows [T, N] with T > ", burn_in, ", got ",
                             shape_text(rows.sizes())));
  const auto time = at::arange(rows.size(0), rows.options().dtype(at::kLong)).unsqueeze(1);
  const auto late = time.ge(burn_in).expand(rows.sizes());
  return episode_start.defined()
             ? late.bitwise_or(episode_start.to(rows.device(), at::kLong).cumsum(0).gt(0))
             : late;
}

/// Returns a saved tensor whose rows have the shape and type of those of `current`. The number of
/// rows may differ. Throws shape_error or state_error if the rows do not fit. `who` is the start of
/// the error text.
inline at::Tensor saved_rows(const char* who, const state& in, const std::string& key,
                             const at::Tensor& current) {
  const at::Tensor& tensor = in.tensor(key);
  if (tensor.dim() != current.dim() || tensor.sizes().slice(1) != current.sizes().slice(1) ||
      tensor.size(0) < 1)
    throw shape_error(concat(who, ": the saved '", key, "' has shape ", shape_text(tensor.sizes()),
                             ", but this term's has shape ", shape_text(current.sizes()),
                             ": the state belongs to other data"));
  if (tensor.scalar_type() != current.scalar_type())
    throw state_error(concat(who, ": the saved '", key, "' is ", tensor.dtype(),
                             ", but this term's is ", current.dtype()));
  return tensor.to(current.device());
}

/// Saves a tensor or a stateful object. The caller must save any other object.
template <class Part>
void save_part(state& out, const std::string& key, const Part& part) {
  if constexpr (std::convertible_to<Part, at::Tensor>)
    out.set(key, part);
  else if constexpr (stateful<Part>)
    part.save_state(out, key + ".");
}
/// Loads what save_part saved.
template <class Part>
void load_part(const char* who, const state& in, const std::string& key, Part& part) {
  if constexpr (std::convertible_to<Part, at::Tensor>)
    part = saved_rows(who, in, key, part);
  else if constexpr (stateful<Part>)
    part.load_state(in, key + ".");
}

}  // namespace retain::detail
