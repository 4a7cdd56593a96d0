// SPDX-License-Identifier: MIT
// Parameters and buffers of a module as part of a state.
#pragma once

#include <retain/detail/plain_floats.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>
#include <retain/parameters.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <string>
#include <utility>
#include <vector>

namespace retain::detail {

/// The buffers of a module, a holder or a pointer to one; none of anything else. With `aliases`, one of several names under each of them.
template <class M>
parameter_list buffers_of(const M& model, bool aliases = false) {
  if constexpr (requires { { model.named_buffers() } -> named_range; })
    return collect(model.named_buffers(), aliases);
  else if constexpr (requires { { (*model).named_buffers() } -> named_range; })
    return collect((*model).named_buffers(), aliases);
  else
    return {};
}

template <parameter_source M>
parameter_list tensors_of(const M& model) {
  auto list = parameters(model);
  for (auto& buffer : buffers_of(model)) list.push_back(std::move(buffer));
  return list;
}

/// Copies, since an optimiser writes into the tensors of a model.
template <parameter_source M>
void save_tensors(state& out, const std::string& prefix, const M& model) {
  for (const auto& [name, tensor] : tensors_of(model)) out.set(prefix + name, tensor.detach().clone());
}

/// Tensors, and what is to become of them.
using replacement_list = std::vector<std::pair<at::Tensor, at::Tensor>>;

/// Throws shape_error or state_error where the state is not of this model, and changes nothing.
template <parameter_source M>
replacement_list read_tensors(const state& in, const std::string& prefix, const M& model, const char* who) {
  const at::NoGradGuard no_grad;
  replacement_list replacements;
  for (const auto& [name, tensor] : tensors_of(model)) {
    const at::Tensor& saved = in.tensor(prefix + name);
    if (saved.sizes() != tensor.sizes())
      throw shape_error(concat(who, ": the saved '", prefix, name, "' has shape ", shape_text(saved.sizes()), ", this one's is ",
                               shape_text(tensor.sizes()), ": the state belongs to another network"));
    if (saved.scalar_type() != tensor.scalar_type())
      throw state_error(concat(who, ": the saved '", prefix, name, "' is ", saved.dtype(), ", this one's is ", tensor.dtype()));
    replacements.emplace_back(tensor, at::empty_like(tensor).copy_(saved));
  }
  return replacements;
}

/// An optimiser keeps the tensors it has. A graph that holds one is told that it was written to.
inline void replace_tensors(const replacement_list& replacements) {
  for (auto [tensor, replacement] : replacements) {
    tensor.set_data(replacement);
    written(tensor);
  }
}

}  // namespace retain::detail
