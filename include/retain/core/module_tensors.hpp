// SPDX-License-Identifier: MIT
// Parameters and buffers of a module as part of a state.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/state.hpp>
#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace retain::detail {

/// Returns the buffers of a module, a holder or a pointer to a module. Returns an empty list for
/// any other type. With `aliases`, a buffer with several names is listed under each name.
template <class M>
parameter_list buffers_of(const M& model, bool aliases = false) {
  if constexpr (requires {
                  { model.named_buffers() } -> named_range;
                })
    return collect(model.named_buffers(), aliases);
  else if constexpr (requires {
                       { (*model).named_buffers() } -> named_range;
                     })
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

/// Returns pairs of tensors with the same name. `source` must list a tensor with several names
/// under each name, because a module's clone() separates tensors that were tied after construction.
/// Throws state_error if the names differ, shape_error if the shapes differ.
inline std::vector<std::pair<at::Tensor, at::Tensor>> paired(const char* who,
                                                             const parameter_list& target,
                                                             const parameter_list& source) {
  std::unordered_map<std::string, at::Tensor> by_name;
  std::unordered_set<const at::TensorImpl*> taken;
  for (const auto& [name, tensor] : source) by_name.emplace(name, tensor);
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;
  for (const auto& [name, tensor] : target) {
    const auto found = by_name.find(name);
    if (found == by_name.end())
      throw state_error(concat(who, ": the target's '", name, "' ", shape_text(tensor.sizes()),
                               " is not in the source: create the target as a copy of the source"));
    if (found->second.sizes() != tensor.sizes())
      throw shape_error(concat(who, ": '", name, "' has shape ", shape_text(tensor.sizes()),
                               " in the target and ", shape_text(found->second.sizes()),
                               " in the source"));
    pairs.emplace_back(tensor, found->second);
    taken.insert(found->second.unsafeGetTensorImpl());
  }
  for (const auto& [name, tensor] : source)
    if (!taken.contains(tensor.unsafeGetTensorImpl()))
      throw state_error(
          concat(who, ": the source's '", name,
                 "' is not in the target: create the target as a copy of the source"));
  return pairs;
}

/// Saves copies of the tensors, because an optimizer writes into the tensors of a model.
template <parameter_source M>
void save_tensors(state& out, const std::string& prefix, const M& model) {
  for (const auto& [name, tensor] : tensors_of(model))
    out.set(prefix + name, tensor.detach().clone());
}

/// Tensors and their replacements.
using replacement_list = std::vector<std::pair<at::Tensor, at::Tensor>>;

/// Reads the saved tensors and changes nothing. Throws shape_error or state_error if the state does
/// not fit this model.
template <parameter_source M>
replacement_list read_tensors(const state& in, const std::string& prefix, const M& model,
                              const char* who) {
  const at::NoGradGuard no_grad;
  replacement_list replacements;
  for (const auto& [name, tensor] : tensors_of(model)) {
    const at::Tensor& saved = in.tensor(prefix + name);
    if (saved.sizes() != tensor.sizes())
      throw shape_error(concat(who, ": the saved '", prefix, name, "' has shape ",
                               shape_text(saved.sizes()), ", but the network's has shape ",
                               shape_text(tensor.sizes()),
                               ": the state belongs to another network"));
    if (saved.scalar_type() != tensor.scalar_type())
      throw state_error(concat(who, ": the saved '", prefix, name, "' is ", saved.dtype(),
                               ", but the network's is ", tensor.dtype()));
    replacements.emplace_back(tensor, at::empty_like(tensor).copy_(saved));
  }
  return replacements;
}

/// Replaces the data of the tensors. The tensor objects stay the same, so an optimizer can continue
/// to use them. The version counters increase, so that autograd detects the change.
inline void replace_tensors(const replacement_list& replacements) {
  for (const auto& [tensor, replacement] : replacements) {
    tensor.set_data(replacement);
    written(tensor);
  }
}

}  // namespace retain::detail
