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

/// The buffers of a module, a holder or a pointer to one; none of anything else. With `aliases`,
/// one of several names under each of them.
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

/// Pairs by name: `source` lists a tensor of several names under each of them, since a module's
/// clone() takes those apart that were tied after it was made. Throws unless both sides have the
/// same names and shapes.
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
                               " is not in the source: make the target as its copy"));
    if (found->second.sizes() != tensor.sizes())
      throw shape_error(concat(who, ": '", name, "' has shape ", shape_text(tensor.sizes()),
                               " in the target and ", shape_text(found->second.sizes()),
                               " in the source"));
    pairs.emplace_back(tensor, found->second);
    taken.insert(found->second.unsafeGetTensorImpl());
  }
  for (const auto& [name, tensor] : source)
    if (!taken.contains(tensor.unsafeGetTensorImpl()))
      throw state_error(concat(who, ": the source's '", name,
                               "' is not in the target: make the target as its copy"));
  return pairs;
}

/// Copies, since an optimiser writes into the tensors of a model.
template <parameter_source M>
void save_tensors(state& out, const std::string& prefix, const M& model) {
  for (const auto& [name, tensor] : tensors_of(model))
    out.set(prefix + name, tensor.detach().clone());
}

/// Tensors, and what is to become of them.
using replacement_list = std::vector<std::pair<at::Tensor, at::Tensor>>;

/// Throws shape_error or state_error where the state is not of this model, and changes nothing.
template <parameter_source M>
replacement_list read_tensors(const state& in, const std::string& prefix, const M& model,
                              const char* who) {
  const at::NoGradGuard no_grad;
  replacement_list replacements;
  for (const auto& [name, tensor] : tensors_of(model)) {
    const at::Tensor& saved = in.tensor(prefix + name);
    if (saved.sizes() != tensor.sizes())
      throw shape_error(concat(who, ": the saved '", prefix, name, "' has shape ",
                               shape_text(saved.sizes()), ", this one's is ",
                               shape_text(tensor.sizes()),
                               ": the state belongs to another network"));
    if (saved.scalar_type() != tensor.scalar_type())
      throw state_error(concat(who, ": the saved '", prefix, name, "' is ", saved.dtype(),
                               ", this one's is ", tensor.dtype()));
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
